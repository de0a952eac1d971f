"""The rows of results/speed.csv: a figure, its baseline, their ratio, the target and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tests.commands import ROOT

TABLE = ROOT / "results" / "speed.csv"


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, both ways of working, their ratio, and the target with its verdict.

    `unit` is that of `baseline` and `ours`. `note` holds what the study's own code took, where that is known.
    """

    section: str
    what: str
    baseline: float
    ours: float
    unit: str
    ratio: float
    target: str
    met: str
    note: str = ""


def ratio_row(
    section: str,
    what: str,
    baseline: Sequence[float],
    ours: Sequence[float],
    least: float,
    study_seconds: float | None = None,
) -> Row:
    """Row of a comparison in which the baseline should take at least `least` times as long.

    `study_seconds` is what the study's own code took for as much work.
    """
    ratio = statistics.median(b / o for b, o in zip(baseline, ours, strict=True))
    return Row(
        section, what, statistics.median(baseline), statistics.median(ours), "s", ratio, f"at least {least:g}",
        verdict(ratio >= least), study_note(study_seconds),
    )  # fmt: skip


def limit_row(section: str, what: str, seconds: float, limit: float) -> Row:
    """Row of a time that has to stay below a limit."""
    return Row(section, what, limit, seconds, "s", limit / seconds, f"at most {limit:g} s", verdict(seconds <= limit))


def study_note(seconds: float | None) -> str:
    """The seconds of the study's own code in words, if they are known."""
    return "" if seconds is None else f"the study's own code: {seconds:.3g} s"


def verdict(is_met: bool) -> str:
    """Yes or no."""
    return "yes" if is_met else "no"


def stored() -> pd.DataFrame:
    """The rows so far."""
    names = list(Row.__dataclass_fields__)
    return pd.read_csv(TABLE, keep_default_na=False) if TABLE.exists() else pd.DataFrame(columns=names)


def markdown(rows: pd.DataFrame) -> str:
    """The rows as a table in Markdown."""
    lines = ["| measurement | baseline | ours | unit | ratio | target | met |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {float(row.baseline):.3g} | {float(row.ours):.3g} | {row.unit} | {float(row.ratio):.3g} "
        f"| {row.target} | {row.met or '–'} |"
        for row in rows.itertuples()
    ]
    return "\n".join(lines)
