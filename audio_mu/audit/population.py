"""Population attack: can the losses of the forget set be told from those of clips never trained on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from audio_mu.audit.performance import Floats
from audio_mu.audit.statistics import clopper_pearson

Z95 = float(ndtri(0.975))
RATES = {"1 %": "tpr_at_fpr_1pct", "0.1 %": "tpr_at_fpr_01pct"}
"""False-positive rate, in words → the field of a result that has the true-positive rate at it."""


@dataclass(frozen=True)
class Rate:
    """A share of n clips with its 95 % Clopper-Pearson interval; value None and a note when refused."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""


@dataclass(frozen=True)
class PopulationResult:
    """The figures of a population attack.

    auc: probability that a member's loss lies below a non-member's, ties counted half; None without clips on
    one side. auc_standard_error: None where the data give none (complete separation, one clip).
    balanced_accuracy: mean of true-positive and true-negative rate (see `population_attack`).
    """

    auc: float | None
    auc_standard_error: float | None
    auc_low: float | None
    auc_high: float | None
    balanced_accuracy: float | None
    tpr_at_fpr_1pct: Rate
    tpr_at_fpr_01pct: Rate
    n_members: int
    n_nonmembers: int

    @property
    def over_unlearned(self) -> bool:
        """Whether the AUC's 95 % interval lies below 0.5: the forget set stands out by fitting too badly."""
        return self.auc_high is not None and self.auc_high < 0.5

    @property
    def reading(self) -> str:
        """One sentence for a report."""
        if self.auc is None or self.auc_low is None or self.auc_high is None:
            return f"no attack: {self.n_members} members, {self.n_nonmembers} non-members"
        figures = f"AUC {self.auc:.3f} [{self.auc_low:.3f}, {self.auc_high:.3f}]"
        if self.over_unlearned:
            return (
                f"{figures} lies below 0.5: worse fits than clips never trained on (over-unlearned unless naive's too)"
            )
        if self.auc_low > 0.5:
            return f"{figures} lies above 0.5: better fits than clips never trained on (members unless naive's too)"
        return f"{figures} contains 0.5: not told apart from clips never trained on"

    def as_metrics(self) -> dict[str, float]:
        """Return the defined numbers by metric name; what is not defined is left out, never 0 or NaN."""
        named = {
            "auc": self.auc,
            "auc_low": self.auc_low,
            "auc_high": self.auc_high,
            "balanced_accuracy": self.balanced_accuracy,
        }
        rates = {"tpr_at_fpr_1pct": self.tpr_at_fpr_1pct, "tpr_at_fpr_0.1pct": self.tpr_at_fpr_01pct}
        for name, rate in rates.items():
            named |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
        return {name: value for name, value in named.items() if value is not None}


def population_attack(member_losses: ArrayLike, nonmember_losses: ArrayLike) -> PopulationResult:
    """Attack by the loss alone: a clip with a low loss is called a member (Yeom et al. 2018).

    member_losses [n]: losses of the forget set under the audited network; nonmember_losses [m]: of held-out
    clips of the same distribution (same class or speaker where those were forgotten). Any increasing function
    of the loss gives the same result.

    AUC with the standard error of DeLong et al. (1988) and a 95 % interval on the logit scale (Pepe 2003);
    where DeLong's variance vanishes, the score interval of Newcombe (2006, method 5). Balanced accuracy calls
    the n clips of lowest loss members, n being the number of members, ties in proportion: that threshold
    reads no membership, so that its expectation without leakage is exactly 0.5, which the best threshold's is
    not. Rates at a fixed false-positive rate refuse themselves below 100 or 1,000 non-members.
    """
    members, nonmembers = _losses(member_losses), _losses(nonmember_losses)
    auc = error = low = high = balanced = None
    if len(members) and len(nonmembers):
        auc, error, low, high = auc_interval(members, nonmembers)
        balanced = _balanced_accuracy(members, nonmembers)
    return PopulationResult(
        auc=auc,
        auc_standard_error=error,
        auc_low=low,
        auc_high=high,
        balanced_accuracy=balanced,
        tpr_at_fpr_1pct=_tpr_at(members, nonmembers, one_in=100),
        tpr_at_fpr_01pct=_tpr_at(members, nonmembers, one_in=1000),
        n_members=len(members),
        n_nonmembers=len(nonmembers),
    )


def auc_interval(low_group: ArrayLike, high_group: ArrayLike) -> tuple[float, float | None, float, float]:
    """Return (AUC, standard error or None, low, high) of P(low_group < high_group) + half the ties, 95 %.

    Both groups are 1-D and not empty. Sources as in `population_attack`.
    """
    lower, higher = _losses(low_group), _losses(high_group)
    m, n = len(lower), len(higher)
    above, below = placements(lower, higher)
    # Sums of whole numbers are exact: without leakage a symmetric sample gives 0.5 and not its neighbour.
    auc = float(_twice_below(higher, lower).sum() / (2 * m * n))
    variance = float(above.var(ddof=1) / m + below.var(ddof=1) / n) if min(m, n) > 1 else 0.0
    if variance < 1e-20 or not 0 < auc < 1:
        return auc, None, *_newcombe_interval(auc, m, n)
    error = float(np.sqrt(variance))
    centre, half_width = np.log(auc / (1 - auc)), Z95 * error / (auc * (1 - auc))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-half_width, half_width]))))
    return auc, error, float(low), float(high)


def placements(low_group: ArrayLike, high_group: ArrayLike) -> tuple[Floats, Floats]:
    """Return for each value [m] and [n] the share of the other group on its expected side, ties half.

    DeLong's structural components: the mean of either is the AUC.
    """
    lower, higher = _losses(low_group), _losses(high_group)
    return 1 - _share_below(lower, higher), _share_below(higher, lower)


def _share_below(values: Floats, others: Floats) -> Floats:
    """For each value the share of the others that lie below it, ties half."""
    return _twice_below(values, others) / 2 / len(others)


def _twice_below(values: Floats, others: Floats) -> NDArray[np.int64]:
    """For each value two times the number of others below it, ties counted once."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return below + not_above


def _newcombe_interval(auc: float, m: int, n: int) -> tuple[float, float]:
    """Solve |auc - t| = z sqrt(V(t)), V being Hanley and McNeil's (1982) variance as a function of t."""
    from scipy.optimize import brentq  # half a second, which few commands need

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + ((m + n) / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)
        return (auc - t) ** 2 - Z95**2 * variance

    low = 0.0 if auc <= 0 else brentq(excess, 0.0, auc) if auc < 1 else brentq(excess, 0.0, 1 - 1e-12)
    high = 1.0 if auc >= 1 else brentq(excess, auc, 1.0) if auc > 0 else brentq(excess, 1e-12, 1.0)
    return float(low), float(high)


def _balanced_accuracy(members: Floats, nonmembers: Floats) -> float:
    pooled = np.concatenate([members, nonmembers])
    threshold = np.sort(pooled)[len(members) - 1]
    tied = int((pooled == threshold).sum())
    share = (len(members) - int((pooled < threshold).sum())) / tied
    called_members, called_nonmembers = (
        float((group < threshold).mean() + share * (group == threshold).mean()) for group in (members, nonmembers)
    )
    return (called_members + 1 - called_nonmembers) / 2


def _tpr_at(members: Floats, nonmembers: Floats, one_in: int) -> Rate:
    """Return the largest true-positive rate with a false-positive rate of at most 1 / one_in."""
    n = len(members)
    if len(nonmembers) < one_in:
        note = f"n too small: needs >= {one_in:,} negatives, has {len(nonmembers):,}"
        return Rate(None, None, None, n, note)
    if n == 0:
        return Rate(None, None, None, n, "n too small: no members")
    threshold = np.sort(nonmembers)[len(nonmembers) // one_in]
    caught = int((members < threshold).sum())
    low, high = clopper_pearson(caught, n)
    return Rate(caught / n, low, high, n, "interval over members, for the threshold found")


def _losses(values: ArrayLike) -> Floats:
    losses = np.asarray(values, dtype=np.float64)
    if losses.ndim != 1:
        raise ValueError(f"losses must have shape [n], got {losses.shape}")
    if np.isnan(losses).any():
        raise ValueError(f"{int(np.isnan(losses).sum())} of {len(losses)} losses are NaN")
    return losses
