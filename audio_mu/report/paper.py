"""The comparison as a paper needs it: a LaTeX table, and the figures of every seed as tidy rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from audio_mu.names import FLOOR
from audio_mu.report.tables import wide_table

COLUMNS = {
    "forget/accuracy": "Forget", "remain/accuracy": "Remain", "test/accuracy": "Test", "mia/auc": "MIA AUC",
    "audit/rmia_auc": "RMIA AUC", "distance/js": "JS", "gap/tow": "ToW", "time/total_s": "Seconds",
}  # fmt: skip
"""Metrics of the LaTeX table, in its order, with their headings."""
PACKAGES = r"% \usepackage{booktabs,graphicx}; over two columns: table* in place of table"
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%" + "\n"
"""Scales what is wider than the page, and nothing else."""
ESCAPES = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
})  # fmt: skip


def latex_table(long: pd.DataFrame, methods: Sequence[str], title: str, cell: str) -> str:
    """A table for booktabs and graphicx: a row per method, each figure as mean, below it its 95 % interval.

    long: the rows of one cell. Names of data sets and people are escaped. Side by side eight means with their intervals
    are some 1,000 pt; one above the other 550 pt, and where the page has less the table is scaled down to it.
    """
    table = wide_table(long, methods, COLUMNS).rename(columns={"method": "Method"})
    seeds = max(long["n"], default=0)
    over = "Of one seed, without intervals" if seeds == 1 else f"Mean [95 % interval] over {seeds} seeds"
    caption = (
        f"{title}. {over}; naive is retrained without the recordings"
        + (f", {FLOOR} is the distance of two such models" if FLOOR in set(table["Method"]) else "")
        + "."
    )
    style = table.style.hide(axis="index").format(_cell)
    text = style.to_latex(
        hrules=True, column_format="l" + "c" * (len(table.columns) - 1), caption=caption.translate(ESCAPES),
        label=f"tab:{cell}", position="t", position_float="centering",
    )  # fmt: skip
    within = text.replace(r"\begin{tabular}", FIT + r"\begin{tabular}").replace(r"\end{tabular}", r"\end{tabular}}")
    return f"{PACKAGES}\n{within}"


def _cell(text: str) -> str:
    """An entry for TeX; an interval in small figures below its mean."""
    mean, sign, interval = text.partition(" [")
    if not sign:
        return text.translate(ESCAPES)
    return rf"\shortstack{{{mean}\\{{\scriptsize [{interval}}}}}"


def rows_of_seeds(long: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell, request, method, metric and seed, with its value; none of figures of all seeds at once."""
    single = long[long["values"] != ""]
    rows = single.assign(seed=single["seeds"].str.split(), value=single["values"].str.split())
    rows = rows.explode(["seed", "value"])[["cell", "request", "method", "metric", "seed", "value"]]
    return rows.astype({"seed": int, "value": float}).reset_index(drop=True)
