"""What the report says of single classes."""

from __future__ import annotations

import pandas as pd

from audio_mu.report.classes import CalledNow, Confused, called_now, confusions, worst_named


def test_the_worst_class_is_that_of_most_seeds() -> None:
    """Catches the first seed's class told as everybody's, and a run of an earlier version that has none."""
    tags = {
        "naive": [{"worst_class_test": f"{name} (9 recordings)"} for name in ("one (half)", "two", "one (half)")],
        "pop": [{"worst_class_forget": "two (1 recordings)"}],
        "omp": [{"audit": "of an earlier version"}],
    }
    assert worst_named(tags) == {("naive", "test"): "one (half), 2 of 3 seeds", ("pop", "forget"): "two"}


def test_what_a_removed_class_is_called_now() -> None:
    """Catches shares of one seed for those of all, another set's answers, and a method without tables."""
    columns = ["set", "label", "answer", "n"]
    first = pd.DataFrame([("forget", "seven", "six", 3), ("test", "six", "seven", 9)], columns=columns)
    more = [("forget", "seven", answer, 1) for answer in ("one", "two", "three", "four", "five")]
    second = pd.DataFrame([*more, ("forget", "seven", "six", 2)], columns=columns)
    assert called_now({"original": [], "naive": [first, second]}) == [
        CalledNow("naive", "seven", 10, "six 50.0 %, five 10.0 %, four 10.0 %, one 10.0 %, 2 more")
    ]


def test_confusions_are_of_wrong_answers_over_all_seeds() -> None:
    """Catches right answers among the confusions, shares of one seed for those of all, and another set's answers."""
    columns = ["set", "label", "answer", "n"]
    first = pd.DataFrame(
        [("test", "six", "six", 8), ("test", "six", "two", 2), ("forget", "six", "one", 9)], columns=columns
    )
    second = pd.DataFrame([("test", "six", "six", 9), ("test", "six", "one", 1)], columns=columns)
    naive = pd.DataFrame([("test", "six", "six", 9), ("test", "six", "two", 1)], columns=columns)
    expected = [Confused("six", "two", 0.1, 0.1), Confused("six", "one", 0.05, 0.0)]
    assert confusions([first, second], [naive]) == expected
    assert confusions([], [naive]) == []  # runs of an earlier version
