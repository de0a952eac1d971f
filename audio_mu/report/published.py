"""The study's published figures, to stand beside ours."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from audio_mu.report.tables import listed, markdown

SHOWN = {
    "method": "method",
    "version": "version",
    "forget_accuracy": "forget acc",
    "remain_accuracy": "remain acc",
    "test_accuracy": "test acc",
    "mia_score": "MIA score",
    "activation_distance_scaled": "act. dist. (scaled)",
    "js_scaled": "JS (scaled)",
}


def published(dataset: str, pipeline: str, architecture: str, request: str) -> pd.DataFrame:
    """The study's rows for a data set, network and request; empty where it published none.

    Accuracies and MIA scores are fractions. Distances stand in the study's own scaling, and its JS is not the
    Jensen-Shannon divergence: they compare within the study only. `version` is thesis or later; `note` says what
    is known about a row.
    """
    rows = pd.read_csv(Path(__file__).with_name("study_results.csv"))
    wanted = {"dataset": dataset, "pipeline": pipeline, "architecture": architecture, "request": request}
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows.reset_index(drop=True)


def published_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows for people: three digits, empty columns left out."""
    shown = rows[list(SHOWN)].dropna(axis="columns", how="all").rename(columns=SHOWN)
    digits = shown.map(lambda value: f"{value:.3f}" if isinstance(value, float) and not pd.isna(value) else value)
    return digits.fillna("–")


def published_markdown(dataset: str, pipeline: str, architecture: str, request: str) -> str:
    """The study's figures under a heading, with the notes on them; empty where it published none."""
    rows = published(dataset, pipeline, architecture, request)
    if rows.empty:
        return ""
    table = markdown(published_table(rows))
    return f"### The study's published figures (its recordings, its runs)\n\n{table}\n{listed(rows['note'].unique())}"
