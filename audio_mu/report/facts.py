"""What verdicts and sentences are made from: a request's facts and a method's estimates, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from audio_mu.audit.one_model import COMPARED
from audio_mu.audit.statistics import t_interval
from audio_mu.errors import counted
from audio_mu.names import NAIVE, ORIGINAL, RETRAINED, SHARDS


@dataclass(frozen=True)
class RequestFacts:
    """A request's name and size. Counts are clips.

    speaker_confounded: other people speak the clips that membership attacks compare with, so that the attacks may tell
    voices apart and not membership. copies: which copies were looked for, in words.
    """

    name: str
    hash: str
    n_forget: int
    n_remain: int
    n_test: int
    n_held_out: int
    n_duplicates_added: int
    speaker_confounded: bool = False
    copies: str = ""


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds with its 95 % t interval; low and high are None for a single seed.

    by_seed: seed → value, empty where only the mean is known.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    by_seed: Mapping[int, float] = field(default_factory=dict)


Figures = Mapping[str, Estimate]
"""Metric → estimate, of one method in one cell."""


def figures_of(long: pd.DataFrame, method: str) -> dict[str, Estimate]:
    """The figures of a method from the long table of one cell.

    Columns: method, metric, mean, n, ci_low, ci_high; seeds and values, where the table has them.
    """
    return {
        row.metric: Estimate(row.mean, _number(row.ci_low), _number(row.ci_high), int(row.n), _by_seed(row))
        for row in long[long["method"] == method].itertuples()
    }


def paired(own: Estimate, other: Estimate) -> Estimate | None:
    """The difference of two figures, paired by seed; None where they share no seed."""
    common = sorted(own.by_seed.keys() & other.by_seed.keys())
    if not common:
        return None
    differences = {seed: own.by_seed[seed] - other.by_seed[seed] for seed in common}
    interval = t_interval(list(differences.values()))
    return Estimate(interval.mean, interval.low, interval.high, interval.n, differences)


def _by_seed(row: Any) -> dict[int, float]:
    """The values of a row by their seeds; none where one number takes all seeds at once."""
    values = [text for text in str(getattr(row, "values", "")).split() if text != "nan"]  # one is read as a number
    seeds = str(getattr(row, "seeds", "")).split()
    return dict(zip(map(int, seeds), map(float, values))) if len(seeds) == len(values) else {}


def _number(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def sides_told(split: str, dataset: str, adopted: bool) -> str:
    """By what the training and the test set are parted, in words."""
    if adopted:
        return "sides of trained_on"
    return "sides of the labels table" if (split, dataset) == ("official", "folder") else f"{split} split"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:.1f} points"


def interval_percent(estimate: Estimate) -> str:
    """A share with its interval, in percent."""
    return percent(estimate.mean) + _interval(estimate, 100, ".1f")


def interval_points(estimate: Estimate) -> str:
    """A signed difference of shares with its interval, in percentage points."""
    return f"{100 * estimate.mean:+.1f} points" + _interval(estimate, 100, "+.1f")


def interval_number(estimate: Estimate) -> str:
    """A number with its interval."""
    return f"{estimate.mean:.3f}" + _interval(estimate, 1, ".3f")


def interval_difference(estimate: Estimate) -> str:
    """A signed difference of numbers with its interval."""
    return f"{estimate.mean:+.3f}" + _interval(estimate, 1, "+.3f")


def speed_words(speedup: Estimate) -> str:
    """How a method's time compares with retraining, as the end of a sentence."""
    if speedup.mean >= 1:
        return f"is {speedup.mean:.1f} times as fast as retraining"
    return f"takes {1 / speedup.mean:.1f} times as long as retraining"


def _interval(estimate: Estimate, scale: float, form: str) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{scale * estimate.low:{form}}, {scale * estimate.high:{form}}]"


def accuracies_beside(long: pd.DataFrame, method: str) -> str:
    """The accuracies of a method, with those of the original and of naive."""
    figures = {who: figures_of(long, who) for who in (method, ORIGINAL, NAIVE)}
    parts = []
    for key in (f"{name}/accuracy" for name in COMPARED):
        known = {who: of[key].mean for who, of in figures.items() if key in of}
        others = ", ".join(f"{who} {value:.3f}" for who, value in known.items() if who != method)
        parts.append(f"{key.partition('/')[0]} {known[method]:.3f} ({others})")
    return ", ".join(parts)


def exact_words(figures: Figures) -> str:
    """What retraining single shards makes sure of, by the figures of `exact_shards`; empty for other methods."""
    if SHARDS not in figures:
        return ""
    left = {int(name.removeprefix(RETRAINED)): own.mean for name, own in figures.items() if name.startswith(RETRAINED)}
    numbers = ", ".join(map(str, sorted(left)))
    n, rest = len(left), round(figures[SHARDS].mean) - len(left)
    which = f"{counted(n, 'shard')} of {n + rest} (number {numbers})"
    what = f"retrained from {'its' if n == 1 else 'their'} start on the {sum(left.values()):,.0f} recordings left there"
    others = (
        f"; the {counted(rest, 'other')} never learned them, and {'is' if rest == 1 else 'are'} bit for bit as before"
    )
    emptied = [str(shard) for shard, recordings in sorted(left.items()) if not recordings]
    silent = f"; shard {', '.join(emptied)} has none left and no voice in the answers" if emptied else ""
    return (
        f"Exact by construction, by the list of the training (shards.csv): all recordings to forget were on {which}, "
        f"{what}{silent}{others if rest else ''}."
    )
