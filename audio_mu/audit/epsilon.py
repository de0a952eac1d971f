"""A lower bound on the distinguishability of unlearned and retrained networks, clip by clip."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audio_mu.audit.performance import Floats

MOST_RELABELINGS = 2000


@dataclass(frozen=True)
class Null:
    """The mean bound if "unlearned" and "retrained" were mere names.

    Its mean over the relabelings (the true one included), and the share of them that reach the observed value.
    """

    mean_bound: float
    mean_bound_p: float


@dataclass(frozen=True)
class EpsilonBound:
    """Bounds per clip and their summary.

    bounds [n]: inf where the scores are perfectly separated; 0 also where no threshold could be used, whose share
    is undecided_share. mean_bound counts a separated clip with separated_value, ln((1 - delta) seeds): as if one
    rate were 0 and the other that of a single network.
    """

    bounds: Floats
    separated: NDArray[np.bool_]
    n_seeds: int
    separated_value: float
    mean_bound: float
    separated_share: float
    separated_by_chance: float
    undecided_share: float
    independent: Null
    paired: Null

    @property
    def reading(self) -> str:
        """One sentence for a report."""
        return (
            f"bound from {self.n_seeds} + {self.n_seeds} networks (no guarantee): mean {self.mean_bound:.3f} "
            f"of at most {self.separated_value:.3f}; null of relabelling {self.independent.mean_bound:.3f} "
            f"(p {self.independent.mean_bound_p:.3f}), of swaps within pairs {self.paired.mean_bound:.3f} "
            f"(p {self.paired.mean_bound_p:.3f}); perfectly separated {self.separated_share:.2%} of clips, "
            f"{self.separated_by_chance:.2%} by chance"
        )


def epsilon_bound(scores_unlearned: ArrayLike, scores_retrained: ArrayLike, delta: float = 1e-5) -> EpsilonBound:
    """Bound per clip from scores [seeds, n] of unlearned and of retrained networks, row s of one seed.

    The bound is the largest, over thresholds and both directions of the test, of ln(1 - delta - FPR) - ln FNR
    and ln(1 - delta - FNR) - ln FPR (Kairouz et al. 2015; per clip as in Triantafillou et al. 2024), at least
    0. Thresholds at which just one of the two rates is 0 are dropped: with few networks they say nothing;
    both 0 is perfect separation. Two nulls: every choice of which networks are called unlearned (takes U_s and
    R_s as independent), and swaps of U_s with R_s (keeps the pairs). Both are counted out up to 2,000
    relabelings and drawn beyond. Scores may be logit-scaled confidences or likelihood ratios. Raises
    ValueError for shapes that differ, fewer than 2 seeds, no clips or scores that are NaN.
    """
    scores = _stack(scores_unlearned, scores_retrained)
    n_seeds = len(scores) // 2
    table = _bound_table(n_seeds, delta)
    separated_value = float(np.log((1 - delta) * n_seeds))
    order = np.argsort(scores, axis=0)
    ordered = np.take_along_axis(scores, order, axis=0)
    # A threshold lies between two different scores only: equal ones are never parted.
    usable = np.vstack([ordered[1:] > ordered[:-1], np.zeros((1, scores.shape[1]), bool)])
    observed = np.arange(2 * n_seeds) < n_seeds
    found = _bounds(observed, order, usable, table)
    bounds = np.maximum(found, 0.0)
    mean_bound, separated_share = _summary(found, separated_value)

    def null(relabelings: NDArray[np.bool_]) -> Null:
        renamed = np.array([_summary(_bounds(row, order, usable, table), separated_value) for row in relabelings])
        return Null(float(renamed.mean(axis=0)[0]), float((renamed[:, 0] >= mean_bound - 1e-9).mean()))

    return EpsilonBound(
        bounds=bounds,
        separated=np.isinf(bounds),
        n_seeds=n_seeds,
        separated_value=separated_value,
        mean_bound=mean_bound,
        separated_share=separated_share,
        separated_by_chance=2 / comb(2 * n_seeds, n_seeds),
        undecided_share=float(np.isneginf(found).mean()),
        independent=null(_relabelings(n_seeds)),
        paired=null(_pair_swaps(n_seeds)),
    )


def _bound_table(n_seeds: int, delta: float) -> Floats:
    """Return the bound [u, r] at a threshold with u unlearned and r retrained scores at or below it.

    -inf where the threshold is dropped, inf where it separates perfectly.
    """
    if not 0 <= delta < 1 / n_seeds:
        raise ValueError(f"delta must lie in 0..1/{n_seeds}, got {delta}")
    table = np.full((n_seeds + 1, n_seeds + 1), -np.inf)
    for u, r in product(range(n_seeds + 1), repeat=2):
        low_is_retrained = (n_seeds - r) / n_seeds, u / n_seeds
        low_is_unlearned = r / n_seeds, (n_seeds - u) / n_seeds
        table[u, r] = max(_rates_to_bound(*rates, delta) for rates in (low_is_retrained, low_is_unlearned))
    return table


def _rates_to_bound(false_positive: float, false_negative: float, delta: float) -> float:
    if false_positive == 0 and false_negative == 0:
        return np.inf
    if false_positive == 0 or false_negative == 0 or false_positive == 1 or false_negative == 1:
        return -np.inf
    return float(
        max(
            np.log(1 - delta - false_positive) - np.log(false_negative),
            np.log(1 - delta - false_negative) - np.log(false_positive),
        )
    )


def _bounds(
    is_unlearned: NDArray[np.bool_], order: NDArray[np.int64], usable: NDArray[np.bool_], table: Floats
) -> Floats:
    """Return the bound [n], -inf without a threshold, when is_unlearned [2 seeds] names the networks.

    order [2 seeds, n]: networks by rising score; usable [2 seeds, n]: where a threshold may lie above them.
    """
    unlearned_below = np.cumsum(is_unlearned[order], axis=0)
    retrained_below = np.arange(1, len(order) + 1)[:, None] - unlearned_below
    return np.where(usable, table[unlearned_below, retrained_below], -np.inf).max(axis=0)


def _summary(bounds: Floats, separated_value: float) -> tuple[float, float]:
    return float(np.clip(bounds, 0.0, separated_value).mean()), float(np.isinf(bounds).mean())


def _relabelings(n_seeds: int) -> NDArray[np.bool_]:
    """Return who is called unlearned [relabelings, 2 seeds], complements left out: bounds are symmetric."""
    networks = 2 * n_seeds
    identity = np.arange(networks) < n_seeds
    if comb(networks, n_seeds) // 2 <= MOST_RELABELINGS:
        chosen = [(0, *rest) for rest in combinations(range(1, networks), n_seeds - 1)]
        return np.array([np.isin(np.arange(networks), members) for members in chosen])
    generator = np.random.default_rng(0)
    drawn = [generator.permutation(identity) for _ in range(MOST_RELABELINGS - 1)]
    return np.array([identity, *drawn])


def _pair_swaps(n_seeds: int) -> NDArray[np.bool_]:
    """Return the same as `_relabelings` for swaps of U_s with R_s; the first pair stays, as above."""
    if 2 ** (n_seeds - 1) <= MOST_RELABELINGS:
        keep = np.array([(True, *rest) for rest in product([True, False], repeat=n_seeds - 1)])
    else:
        keep = np.random.default_rng(0).random((MOST_RELABELINGS, n_seeds)) < 0.5
        keep[0] = True
    return np.hstack([keep, ~keep])


def _stack(scores_unlearned: ArrayLike, scores_retrained: ArrayLike) -> Floats:
    unlearned, retrained = np.asarray(scores_unlearned, np.float64), np.asarray(scores_retrained, np.float64)
    if unlearned.ndim != 2 or unlearned.shape != retrained.shape:
        raise ValueError(f"scores must have one shape [seeds, n], got {unlearned.shape}, {retrained.shape}")
    if len(unlearned) < 2 or unlearned.shape[1] == 0:
        raise ValueError(f"need at least 2 seeds and 1 clip, got scores of shape {unlearned.shape}")
    scores = np.vstack([unlearned, retrained])
    if np.isnan(scores).any():
        raise ValueError("scores must not be NaN")
    return scores
