"""The summary names every method once, under the verdict that it has."""

from __future__ import annotations

import pandas as pd
import pytest

from audio_mu.report.facts import RequestFacts
from audio_mu.report.summary import summary
from tests.report.conftest import MEANS, table

CHANCE = {"original": (0.1, 0.11, 0.1, 0.5, None), "naive": (0.1, 0.1, 0.1, 0.5, 9.0), "omp": (0.1, 0.1, 0.1, 0.5, 1.0)}
ALIKE = {
    "original": (0.966, 0.99, 0.96, 0.51, None), "naive": (0.957, 0.99, 0.96, 0.50, 9.0),
    "idle": (0.966, 0.99, 0.96, 0.51, 1.0),
}  # fmt: skip


def test_summary_names_each_method_once_under_its_verdict(long: pd.DataFrame, request_facts: RequestFacts) -> None:
    """Catches a method left out of the summary, or listed under another verdict."""
    lines = summary(long, list(MEANS), request_facts)
    assert lines[0].startswith("Recommended: good, the closest to retraining of those that meet the rule (ToW 0.")
    assert "points from the original's. It is " in lines[0] and "settled" in lines[0]
    assert lines[1] == "2 of 6 methods meet the rule: good and good_but_farther."
    assert lines[2] == (
        "To be forgotten: 144 of 1,440 training recordings (10.0 %; request item-10, 3 of them copies of requested "
        "recordings)."
    )
    assert "The original model recognises 99.0 %" in lines[3]
    (not_forgotten,) = [line for line in lines if line.startswith("Not forgotten")]
    assert "remembers (" in not_forgotten
    assert "remembers_by_loss (" in not_forgotten
    assert any(line.startswith("Over-unlearned: overdone (") for line in lines)
    assert any(line.startswith("Accuracy lost: damaged (") for line in lines)


def test_without_naive_no_verdict_is_told(request_facts: RequestFacts) -> None:
    """Catches a summary that counts methods by a rule which was not applied."""
    without = table({method: means for method, means in MEANS.items() if method != "naive"})
    lines = summary(without, [method for method in MEANS if method != "naive"], request_facts)
    assert any("none is judged" in line for line in lines)
    assert not any("meet" in line and "rule" in line for line in lines)


@pytest.mark.parametrize(("means", "start"), [(CHANCE, "No method is judged: the retrained model"),
                                              (ALIKE, "No method is judged: the original")])  # fmt: skip
def test_the_reason_for_no_verdict_is_told(
    means: dict[str, tuple[float | None, ...]], start: str, request_facts: RequestFacts
) -> None:
    """Catches methods that are counted as failed where none can be judged."""
    lines = summary(table(means), list(means), request_facts)
    assert lines[0].startswith(start)
    assert not any("meets the rule" in line for line in lines)


def test_damage_is_told_beside_what_is_not_judged(request_facts: RequestFacts) -> None:
    """Catches methods of which nothing can be said taking the damaged ones with them, or being left out."""
    means = ALIKE | {"wrecked": (0.4, 0.4, 0.4, 0.51, 1.0)}
    lines = summary(table(means), list(means), request_facts)
    assert any(line.startswith("Accuracy lost: wrecked (") for line in lines)
    assert any(line.startswith("Not judged: idle, because the original itself") for line in lines)
