"""The last block of a command: three lines that a console holds, and a command that is whole."""

from __future__ import annotations

import pandas as pd

from audio_mu.report import tables
from audio_mu.report.answer import WIDTH, answer
from audio_mu.report.facts import RequestFacts
from audio_mu.report.rule import verdict_words
from tests.report.conftest import MEANS, table


def test_the_answer_is_three_lines_of_a_console_and_a_whole_command(
    long: pd.DataFrame, request_facts: RequestFacts
) -> None:
    """Catches lines that wrap, a command that is cut, and a method under another verdict than the report's."""
    command = "mlflow run . -e unlearn --env-manager local " + "-P data_dir=/a/long/folder " * 9
    asked, near, step, how = answer(long, list(MEANS), request_facts, "put good into service", command)
    assert max(map(len, (asked, near, step))) <= WIDTH
    assert asked.startswith("asked: forget item-10, 144 of 1,440 recordings; recognised: original 99.0 %, naive ")
    assert near.startswith("near naive: 2 of 6: good (")
    assert step == "next: put good into service:" and how == f"  {command}"


def test_the_answer_names_the_highest_tow_where_no_method_comes_near(request_facts: RequestFacts) -> None:
    """Catches "the closest" without the word that it fails, and an answer that says nothing without naive."""
    failing = {name: MEANS[name] for name in ("original", "naive", "remembers", "damaged")}
    assert "near naive: none of 2; highest ToW: " in answer(table(failing), list(failing), request_facts, "s", "c")[1]
    without = {name: MEANS[name] for name in ("original", "remembers")}
    near = answer(table(without), list(without), request_facts, "s", "c")[1]
    assert near == "near naive: not known, no model was retrained (naive)"


def test_the_table_of_a_console_fits_it(long: pd.DataFrame) -> None:
    """Catches a table that wraps, and one without the verdicts that the report has."""
    names = {name: f"{name[:19]:_<19}" for name in MEANS if name not in ("naive", "original")}  # the longest of ours
    wide = long.assign(method=long["method"].replace(names))
    methods = [names.get(name, name) for name in MEANS]
    shown = tables.markdown(tables.short_table(wide, methods, verdict_words(wide, methods)))
    assert max(map(len, shown.splitlines())) <= WIDTH
    requests = pd.DataFrame(
        [["1", "speaker-17", *["0.912 (0.914)"] * 9, "0.931"]], columns=[*"abcdefghijk", "test before"]
    )
    narrow = tables.narrowed(requests, WIDTH)
    assert len(tables.markdown(narrow).splitlines()[0]) <= WIDTH and narrow.columns[-1] == "test before"
    assert "| target " in shown and "| meets the rule" in shown
