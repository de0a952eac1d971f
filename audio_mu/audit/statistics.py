"""Intervals and tests for few seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy  # its `stats` are imported when they are first used: a second, which `unlearn` and `train` can do without
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

SIGN_FLIPS = 2**16
FLIPPED_AT_ONCE = 2**22  # numbers: 32 MB
SHARED_NETWORKS = (
    "cells that share networks (the same seeds, data or base models) are not independent: "
    "read the p values as a ranking aid"
)


@dataclass(frozen=True)
class Interval:
    """Mean of n values with its t interval; std has ddof 1; std, low and high are None for one value."""

    mean: float
    std: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairedDifference:
    """Differences a - b over the common seeds.

    p_sign_flip, p_wilcoxon: two-sided and exact; neither can go below p_floor = 2 / 2^n.
    """

    interval: Interval
    seeds: tuple[int, ...]
    p_sign_flip: float
    p_wilcoxon: float
    p_floor: float


@dataclass(frozen=True)
class Pooled:
    """The mean of several models' differences, each of which is known to a standard error.

    half: half-width of its interval, None for one model without an error. sampling: what the recordings alone
    contribute to it, None without errors. between: variance from model to model that the errors do not explain;
    scattered: whether it is surely there (Cochran's Q at 5 %).
    """

    mean: float
    half: float | None
    sampling: float | None
    between: float
    scattered: bool


@dataclass(frozen=True)
class BalancedAccuracy:
    """Mean of the shares of members and of non-members called rightly, with its interval."""

    value: float
    low: float
    high: float

    @property
    def at_chance(self) -> bool:
        """Whether the interval contains 0.5: the attack cannot be told from guessing."""
        return self.low <= 0.5 <= self.high


@dataclass(frozen=True)
class RankPair:
    """Two methods compared by their average ranks; p_holm is two-sided and adjusted for all pairs."""

    first: str
    second: str
    p_holm: float


@dataclass(frozen=True)
class FriedmanResult:
    """Methods ranked over cells; average_ranks[i] belongs to methods[i], rank 1 is best.

    statistic, p_value, critical_difference are None and pairs is empty with too few cells or methods. By
    Nemenyi's test two methods differ at 5 % where their average ranks differ by critical_difference or more.
    """

    methods: tuple[str, ...]
    average_ranks: tuple[float, ...]
    n_cells: int
    statistic: float | None
    p_value: float | None
    critical_difference: float | None
    pairs: tuple[RankPair, ...]
    note: str


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval (low, high) of a share of k in n trials (Clopper and Pearson 1934).

    Raises ValueError unless 0 <= k <= n and n >= 1.
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"need 0 <= k <= n and n >= 1, got k={k}, n={n}")
    interval = scipy.stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of values [n] and its t interval, mean +- t(n - 1) std / sqrt(n).

    Raises ValueError for no values and for values that are not finite.
    """
    sample = _sample(values)
    n, mean = len(sample), float(sample.mean())
    if n < 2:
        return Interval(mean, None, n, None, None)
    std = float(sample.std(ddof=1))
    half_width = _t_quantile((1 + confidence) / 2, n - 1) * std / n**0.5
    return Interval(mean, std, n, mean - half_width, mean + half_width)


@cache
def _t_quantile(share: float, degrees: int) -> float:
    return float(scipy.stats.t.ppf(share, degrees))


def pooled(differences: ArrayLike, errors: ArrayLike | None = None, confidence: float = 0.95) -> Pooled:
    """Return the mean of differences [n], with the sampling of recordings (errors [n]) and of seeds in its interval.

    A random-effects mean (DerSimonian and Laird 1986) with equal weights: the variance between models is what their
    scatter exceeds the mean squared error by. The recordings' part of the half-width has the normal quantile, the rest
    the t quantile of n - 1, in quadrature; without errors it is the t interval. The errors are of the same recordings
    in every model, and independent as far as a model's answers depend on its seed.
    """
    sample = _sample(differences)
    n = len(sample)
    squared = 0.0 if errors is None else float((_sample(errors) ** 2).mean())
    scatter = float(sample.var(ddof=1)) if n > 1 else 0.0
    between = max(0.0, scatter - squared)
    sampling = None if errors is None else _z_quantile((1 + confidence) / 2) * (squared / n) ** 0.5
    if n == 1:
        return Pooled(float(sample.mean()), sampling, sampling, 0.0, scattered=False)
    of_seeds = _t_quantile((1 + confidence) / 2, n - 1) * (between / n) ** 0.5
    scattered = squared > 0 and (n - 1) * scatter / squared > float(scipy.stats.chi2.ppf(0.95, n - 1))
    return Pooled(float(sample.mean()), float(np.hypot(sampling or 0.0, of_seeds)), sampling, between, scattered)


@cache
def _z_quantile(share: float) -> float:
    return float(scipy.stats.norm.ppf(share))


def paired_differences(
    pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]], confidence: float = 0.95
) -> list[PairedDifference]:
    """Return interval and exact tests of a[seed] - b[seed] over the common seeds, for every pair (a, b).

    Pairs with as many common seeds are tested together. Raises ValueError where a pair has no common seed.
    """
    common = [tuple(sorted(set(a) & set(b))) for a, b in pairs]
    if () in common:
        a, b = pairs[common.index(())]
        raise ValueError(f"no common seeds: {sorted(a)} and {sorted(b)}")
    differences = [np.array([a[s] - b[s] for s in seeds]) for (a, b), seeds in zip(pairs, common, strict=True)]
    p_values: dict[int, tuple[float, float]] = {}
    for n in {len(seeds) for seeds in common}:
        places = [i for i, seeds in enumerate(common) if len(seeds) == n]
        table = np.stack([differences[i] for i in places])
        p_values |= dict(zip(places, zip(sign_flip_p(table).tolist(), wilcoxon_p(table).tolist(), strict=True)))
    return [
        PairedDifference(t_interval(values, confidence), seeds, *p_values[i], p_floor=2 / 2 ** len(seeds))
        for i, (values, seeds) in enumerate(zip(differences, common, strict=True))
    ]


def sign_flip_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Return the two-sided p values [...] of differences [..., n] having mean 0, by flipping signs (Fisher 1935).

    All 2^n sign patterns are counted for n <= 16; beyond that 65,536 drawn ones.
    """
    sample = _finite(differences)
    if sample.shape[-1] == 1:
        return np.ones(sample.shape[:-1])
    test = scipy.stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", n_resamples=SIGN_FLIPS, vectorized=True, axis=-1, rng=0,
        batch=max(1, FLIPPED_AT_ONCE // sample.size),
    )  # fmt: skip
    return np.asarray(test.pvalue)


def wilcoxon_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Return the two-sided p values [...] of Wilcoxon's (1945) signed-rank test of differences [..., n].

    Sign flips of the signed ranks, zeros left out: exact with ties too, where the tables are not. A zero that stays
    with the rank 0 is left out: every pattern of the others is then counted as often.
    """
    sample = _finite(differences)
    zero = sample == 0
    ranks = scipy.stats.rankdata(np.abs(sample), axis=-1) - zero.sum(axis=-1, keepdims=True)
    return sign_flip_p(np.sign(sample) * ranks)


def balanced_accuracy_interval(
    members_right: int,
    n_members: int,
    nonmembers_right: int,
    n_nonmembers: int,
    confidence: float = 0.95,
) -> BalancedAccuracy:
    """Return an attack's balanced accuracy and its interval from counts of clips called rightly.

    Wilson intervals of the two shares are joined by square-and-add (Newcombe 1998; Zou and Donner 2008): the
    distance from mean to limit is half the root of the two squared distances. Count clips, not rows: the
    losses of one clip under several seeds are one observation. Raises ValueError for impossible counts.
    """
    sides = ((members_right, n_members), (nonmembers_right, n_nonmembers))
    if any(not 0 <= k <= n or n < 1 for k, n in sides):
        raise ValueError(f"need 0 <= right <= n and n >= 1 on both sides, got {sides}")
    shares = np.array([k / n for k, n in sides])
    wilson = [scipy.stats.binomtest(k, n).proportion_ci(confidence, method="wilson") for k, n in sides]
    value = shares.mean()
    low = value - np.hypot(*(shares - [interval.low for interval in wilson])) / 2
    high = value + np.hypot(*(shares - [interval.high for interval in wilson])) / 2
    return BalancedAccuracy(float(value), float(low), float(high))


def friedman(table: pd.DataFrame, *, higher_is_better: bool) -> FriedmanResult:
    """Rank methods within every cell and test whether they differ (Friedman 1937; Demsar 2006).

    table: one row per cell (data, network, request), one column per method. Cells with a missing value are
    left out and counted in the note. Nemenyi's critical difference at 5 % is q sqrt(k (k + 1) / (6 N)) with q
    the studentised range's quantile over sqrt(2); pairs carry normal p values adjusted by Holm (1979).
    """
    values = table.to_numpy(dtype=np.float64)
    complete = values[~np.isnan(values).any(axis=1)]
    methods = tuple(str(column) for column in table.columns)
    notes = [SHARED_NETWORKS]
    if len(complete) < len(values):
        notes.append(f"{len(values) - len(complete)} incomplete cells left out")
    if not complete.size:
        return FriedmanResult((), (), 0, None, None, None, (), "; ".join(["no complete cell", *notes]))
    ranks = scipy.stats.rankdata(-complete if higher_is_better else complete, axis=1)
    n, k = ranks.shape
    average = tuple(float(rank) for rank in ranks.mean(axis=0))
    if n < 2 or k < 3 or (ranks == ranks[:, :1]).all():
        notes.insert(0, f"no test: needs 2 cells and 3 methods that differ somewhere, has {n} and {k}")
        return FriedmanResult(methods, average, n, None, None, None, (), "; ".join(notes))
    test = scipy.stats.friedmanchisquare(*ranks.T)
    unit = np.sqrt(k * (k + 1) / (6 * n))
    critical = float(scipy.stats.studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2) * unit)
    pairs = _holm_pairs(methods, average, float(unit))
    statistic, p_value = float(test.statistic), float(test.pvalue)
    return FriedmanResult(methods, average, n, statistic, p_value, critical, pairs, "; ".join(notes))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p values [m] adjusted for m tests: i-th smallest times m - i + 1, never falling (Holm 1979)."""
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    return adjusted


def _holm_pairs(methods: tuple[str, ...], ranks: tuple[float, ...], unit: float) -> tuple[RankPair, ...]:
    indices = list(combinations(range(len(methods)), 2))
    gaps = np.array([ranks[i] - ranks[j] for i, j in indices])
    adjusted = holm(2 * scipy.stats.norm.sf(np.abs(gaps) / unit))
    return tuple(RankPair(methods[i], methods[j], float(p)) for (i, j), p in zip(indices, adjusted, strict=True))


def _sample(values: ArrayLike) -> NDArray[np.float64]:
    sample = _finite(values)
    if sample.ndim != 1:
        raise ValueError(f"need values of shape [n], got {sample.shape}")
    return sample


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if not sample.ndim or not sample.size:
        raise ValueError(f"need values [..., n] with n >= 1, got {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"values must be finite, got {sample.tolist()}")
    return sample
