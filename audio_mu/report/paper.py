"""The comparison as a paper needs it: a LaTeX table, and the figures of every seed as tidy rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from audio_mu.report.tables import wide_table

COLUMNS = {
    "forget/accuracy": "Forget", "remain/accuracy": "Remain", "test/accuracy": "Test", "mia/auc": "MIA AUC",
    "audit/rmia_auc": "RMIA AUC", "distance/js": "JS", "gap/tow": "ToW", "time/total_s": "Seconds",
}  # fmt: skip
"""Metrics of the LaTeX table, in its order, with their headings."""
ESCAPES = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
})  # fmt: skip


def latex_table(long: pd.DataFrame, methods: Sequence[str], title: str, cell: str) -> str:
    """A table for the package booktabs: a row per method, each figure as mean [95 % interval] over the seeds.

    long: the rows of one cell. Names of data sets and people are escaped.
    """
    table = wide_table(long, methods, COLUMNS).rename(columns={"method": "Method"})
    seeds = max(long["n"], default=0)
    caption = f"{title}. Mean [95 % interval] over {seeds} seeds; naive is retrained without the recordings."
    style = table.style.hide(axis="index").format(escape="latex")
    return style.to_latex(
        hrules=True, column_format="l" * len(table.columns), caption=caption.translate(ESCAPES),
        label=f"tab:{cell}", position="t", position_float="centering",
    )  # fmt: skip


def rows_of_seeds(long: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell, request, method, metric and seed, with its value; none of figures of all seeds at once."""
    single = long[long["values"] != ""]
    rows = single.assign(seed=single["seeds"].str.split(), value=single["values"].str.split())
    rows = rows.explode(["seed", "value"])[["cell", "request", "method", "metric", "seed", "value"]]
    return rows.astype({"seed": int, "value": float}).reset_index(drop=True)
