"""The comparison as a long table, and as one that people read."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from audio_mu.audit.statistics import t_interval

COLUMNS = ["cell", "request", "method", "metric", "mean", "std", "n", "seeds", "ci_low", "ci_high"]
SHOWN = {
    "forget/accuracy": "forget acc",
    "remain/accuracy": "remain acc",
    "test/accuracy": "test acc",
    "held_out/accuracy": "held-out acc",
    "mia/score": "MIA score",
    "mia/auc": "MIA AUC",
    "distance/activation": "act. dist.",
    "distance/js": "JS",
    "gap/tow": "ToW",
    "time/total_s": "seconds",
    "time/speedup": "speed-up",
}
"""Metrics of the table for people, in its order, with their headings."""

EXPLANATION = (
    "Mean ± standard deviation over the seeds. forget/remain/test acc: accuracy on the recordings to forget, on the "
    "rest of the training set, on the test set. MIA score: share of forget recordings that the attack models call "
    "non-member; MIA AUC: 0.5 = forget recordings look like unseen ones. act. dist., JS: distance to naive on the "
    "forget set. ToW: 1 = same accuracies as naive. naive (retrained without the recordings) is the target in every "
    "column, not the extreme."
)


def long_table(values: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds within each cell.

    `values` has the columns cell, request, method, metric, seed, value, one row each. Returns the columns of the
    contract; `std` has ddof 1 and is empty, like the 95 % t interval, for a single seed.
    """
    rows = []
    for (cell, request, method, metric), group in values.groupby(["cell", "request", "method", "metric"], sort=False):
        interval = t_interval(group["value"].to_numpy())
        seeds = " ".join(str(seed) for seed in sorted(group["seed"]))
        rows.append(
            [cell, request, method, metric, interval.mean, interval.std, interval.n, seeds, interval.low, interval.high]
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def wide_table(long: pd.DataFrame, order: Iterable[str]) -> pd.DataFrame:
    """One row per method, `mean ± std` under people's headings; columns that nothing fills are left out."""
    shown = long[long["metric"].isin(SHOWN)]
    text = shown.assign(text=[_mean_and_deviation(row) for row in shown.itertuples()])
    wide = text.pivot(index="method", columns="metric", values="text")
    columns = [metric for metric in SHOWN if metric in wide.columns]
    rows = [method for method in order if method in wide.index]
    wide = wide.reindex(index=rows, columns=columns).rename(columns=SHOWN).fillna("–")
    return wide.rename_axis(index="method", columns=None).reset_index()


def _mean_and_deviation(row: object) -> str:
    digits = 1 if row.metric in ("time/total_s", "time/speedup") else 3
    mean = f"{row.mean:.{digits}f}"
    return mean if pd.isna(row.std) else f"{mean} ± {row.std:.{digits}f}"


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table, its columns aligned for reading as plain text too."""
    cells = [list(map(str, table.columns)), *(list(map(str, row)) for row in table.itertuples(index=False))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
