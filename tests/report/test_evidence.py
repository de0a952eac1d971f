"""The sentences of an evidence record agree with the figures that they are made from."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audio_mu.report.evidence import evidence
from audio_mu.report.facts import RequestFacts
from audio_mu.report.tables import long_table
from tests.report.conftest import MEANS, table


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("remembers", "remembers does not meet the rule, not forgotten: forget accuracy is 8.0 points above naive's"),
        ("remembers_by_loss", "the membership attack's AUC is 0.100 above naive's, 0.05 is allowed"),
        ("overdone", "overdone does not meet the rule, over-unlearned: "),
        ("damaged", "damaged does not meet the rule, accuracy lost: remain accuracy is 29.0 points below naive's"),
        ("good", "good meets the rule: "),
        ("naive", "naive is the target itself: retrained from scratch"),
        ("original", "original is the model before unlearning: it still holds the recordings"),
    ],
)
def test_the_headline_says_the_verdict(
    method: str, words: str, long: pd.DataFrame, request_facts: RequestFacts
) -> None:
    """Catches a record whose first sentence is kinder than its figures."""
    assert words in evidence(method, long, request_facts).headline


def test_the_headline_without_naive(request_facts: RequestFacts) -> None:
    """Catches a record that judges without the retrained model."""
    without = table({method: means for method, means in MEANS.items() if method != "naive"})
    expected = "good is not judged: there is no retrained model (naive) to compare with."
    assert evidence("good", without, request_facts).headline == expected


def test_the_retrained_model_is_no_member(request_facts: RequestFacts) -> None:
    """Catches an attack read against 0.5 alone: naive, which never held the recordings, may lie above it."""
    rows = [("c", "item-10", m, "audit/rmia_auc", s, v + 0.01 * s) for m, v in (("naive", 0.15), ("good", 0.16))
            for s in (40, 41, 42)]  # fmt: skip
    found = long_table(pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"]))
    both = pd.concat([table(MEANS), found])
    (naive,) = (line for line in evidence("naive", both, request_facts).shows if "RMIA" in line)
    (good,) = (line for line in evidence("good", both, request_facts).shows if "RMIA" in line)
    assert "above" not in naive
    assert good.endswith("(naive 0.560 [0.535, 0.585]), not above naive's beyond the intervals.")


def test_sentences_carry_the_figures(long: pd.DataFrame, request_facts: RequestFacts) -> None:
    """Catches figures of another method or set in a sentence, and intervals beyond what a share can be."""
    shows = "\n".join(evidence("good", long, request_facts).shows)
    half = 2.776445 * np.std([-0.2, -0.1, 0, 0.1, 0.2], ddof=1) / 5**0.5  # t quantile of 4 degrees of freedom
    assert f"Accuracy on the forget set: 91.0 % [{91 - half:.1f}, {91 + half:.1f}]" in shows
    assert re.search(r"original 99\.0 % \[98\.8, 99\.2\]; naive 90\.0 %", shows)
    assert "paired by seed: +1.0 points" in shows
    assert "AUC of 0.510 [0.508, 0.512] (naive 0.500" in shows
    assert "It took 20.0 s and is 5.0 times as fast as retraining." in shows
    assert "takes 2.0 times as long as retraining" in "\n".join(evidence("damaged", long, request_facts).shows)
    assert "100.2" not in "\n".join(evidence("x", table({"x": (1.0, 1.0, 1.0, 0.5, 1.0)}), request_facts).shows)


def test_limits_are_told(long: pd.DataFrame, request_facts: RequestFacts) -> None:
    """Catches a record that keeps quiet about what it cannot show."""
    limits = "\n".join(evidence("good", long, request_facts).does_not_show)
    assert "no proof of deletion" in limits
    assert "base models, which still hold the recordings" in limits
    assert "cannot go below 0.0625" in limits
    confounded = evidence("good", long, replace(request_facts, speaker_confounded=True)).does_not_show
    assert any("recognise speakers, not membership" in line for line in confounded)
    blind = long[~long["metric"].str.contains("mia")]
    assert any("no membership attack" in line for line in evidence("good", blind, request_facts).does_not_show)
    scattered, single = table(MEANS, np.array([-0.06, -0.03, 0.0, 0.03, 0.06])), table(MEANS, np.array([0.0]))
    assert any("not settled" in line for line in evidence("good", scattered, request_facts).does_not_show)
    assert any("One seed gives no interval" in line for line in evidence("good", single, request_facts).does_not_show)
