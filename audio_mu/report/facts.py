"""What verdicts and sentences are made from: a request's facts and a method's estimates, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd


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
    """A mean over n seeds with its 95 % t interval; low and high are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


Figures = Mapping[str, Estimate]
"""Metric → estimate, of one method in one cell."""


def figures_of(long: pd.DataFrame, method: str) -> dict[str, Estimate]:
    """The figures of a method from the long table of one cell (columns method, metric, mean, n, ci_low, ci_high)."""
    return {
        row.metric: Estimate(row.mean, _number(row.ci_low), _number(row.ci_high), int(row.n))
        for row in long[long["method"] == method].itertuples()
    }


def _number(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


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


def speed_words(speedup: Estimate) -> str:
    """How a method's time compares with retraining, as the end of a sentence."""
    if speedup.mean >= 1:
        return f"is {speedup.mean:.1f} times as fast as retraining"
    return f"takes {1 / speedup.mean:.1f} times as long as retraining"


def _interval(estimate: Estimate, scale: float, form: str) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{scale * estimate.low:{form}}, {scale * estimate.high:{form}}]"
