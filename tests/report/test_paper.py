"""What a paper takes from a comparison."""

from __future__ import annotations

import pandas as pd

from audio_mu.names import FLOOR
from audio_mu.report import canvas, figures
from audio_mu.report.paper import latex_table, rows_of_seeds
from audio_mu.report.tables import long_table
from tests.report.conftest import MEANS


def test_a_latex_table_has_every_method_and_no_bare_sign(long: pd.DataFrame) -> None:
    """Catches a table that TeX stops at: names of data sets and people have signs that it reads as commands."""
    text = latex_table(long, list(MEANS), "my_words & 5 % of person_17 (#1)", "abc")
    assert all(line.endswith(r" \\") for line in text.splitlines() if " & " in line)
    assert "my\\_words \\& 5 \\% of person\\_17 (\\#1)" in text
    assert "remembers\\_by\\_loss" in text
    assert [f"\\{rule}" in text for rule in ("toprule", "midrule", "bottomrule")] == [True] * 3
    body = text.partition("\\midrule")[2].partition("\\bottomrule")[0]
    assert len(body.strip().splitlines()) == len(MEANS)


def test_a_latex_table_fits_a_page_and_says_what_its_figures_are_of(long: pd.DataFrame) -> None:
    """Catches braces that do not close, eight means and intervals side by side, and an interval of one seed."""
    text = latex_table(long, [*MEANS, FLOOR], "t", "abc")
    assert text.count("{") == text.count("}")
    assert r"\shortstack{" in text and r"\\{\scriptsize [" in text and r"\resizebox{" in text
    seeds = int(long["n"].max())
    assert f"Mean [95 \\% interval] over {seeds} seeds; naive" in text and "over 1 seeds" not in text
    one = latex_table(long.assign(n=1, ci_low=None, ci_high=None), list(MEANS), "t", "abc")
    assert "Of one seed, without intervals; naive" in one and "shortstack" not in one


def test_rows_of_seeds_are_the_values_that_went_in() -> None:
    """Catches a value beside another seed than its own, and figures of all seeds at once under a single seed."""
    values = pd.DataFrame({"metric": "forget/accuracy", "seed": [41, 40], "value": [0.1 + 0.2, 0.25]})
    long = long_table(values.assign(cell="c", request="r", method="m"))
    whole = long.assign(metric="audit/ulira_auc", values="")
    rows = rows_of_seeds(pd.concat([long, whole]))
    assert [(row.metric, row.seed, row.value) for row in rows.itertuples()] == [
        ("forget/accuracy", 40, 0.25),
        ("forget/accuracy", 41, 0.1 + 0.2),
    ]


def test_figures_of_a_paper_are_vectors_and_the_same_every_time(long: pd.DataFrame) -> None:
    """Catches a picture in a vector file, letters as outlines, and files that differ from run to run."""
    for kind, start in (("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")):
        first, second = (canvas.as_file(figures.accuracy_figure(long, list(MEANS), "t"), kind) for _ in range(2))
        assert first == second
        assert first.startswith(start)
    assert b">remembers_by_loss<" in canvas.as_file(figures.accuracy_figure(long, list(MEANS), "t"), "svg")
