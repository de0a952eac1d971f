"""The sentences of an evidence record agree with the figures that they are made from."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audio_mu.report.evidence import Choice, evidence
from audio_mu.report.facts import RequestFacts
from audio_mu.report.summary import summary
from audio_mu.report.tables import long_table
from tests.report.conftest import MEANS, SEEDS, table


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("remembers", "remembers does not meet the rule, not forgotten: forget accuracy is 8.0 points above naive's"),
        ("remembers_by_loss", "the membership attack's AUC is 0.100 above naive's (± 0.004), 0.050 is allowed"),
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
    rmia = {"naive": (0.55, 0.56, 0.57), "good": (0.55, 0.56, 0.60), "remembers": (0.60, 0.61, 0.63)}
    rows = [("c", "item-10", m, "audit/rmia_auc", s, v) for m, of in rmia.items() for s, v in zip((40, 41, 42), of)]
    found = long_table(pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"]))
    both = pd.concat([table(MEANS), found])
    lines = {m: next(line for line in evidence(m, both, request_facts).shows if "RMIA" in line) for m in rmia}
    assert "above" not in lines["naive"]
    assert "not surely above naive's: difference +0.010 [-0.033, +0.053], paired by seed." in lines["good"]
    assert ", surely above naive's: difference +0.053 [" in lines["remembers"]


def test_pairs_are_told_by_their_differences(request_facts: RequestFacts) -> None:
    """Catches two intervals side by side: seeds that scatter more than they differ hide a difference on every seed."""
    scatter = (0.1, 0.2, 0.3, 0.4, 0.5)
    js = {"original": scatter, "good": tuple(value - 0.02 - 0.001 * i for i, value in enumerate(scatter))}
    rows = [("c", "item-10", m, "distance/js", s, v) for m, of in js.items() for s, v in zip(SEEDS, of)]
    found = long_table(pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"]))
    shows = "\n".join(evidence("good", pd.concat([table(MEANS), found]), request_facts).shows)
    assert "are closer to the retrained model's than the original's were" in shows
    assert "a difference of -0.022 [-0.024, -0.020] paired by seed" in shows
    assert "AUC of 0.510 [0.508, 0.512]" in shows
    assert "Difference from naive, paired by seed: +0.010 [+0.006, +0.014]." in shows


def test_the_record_says_how_its_method_was_chosen(long: pd.DataFrame, request_facts: RequestFacts) -> None:
    """Catches the best of many judged as if it had been the only one, and audits that are missing without a word."""
    choice = Choice("good was chosen among 6.", 6, ["U-LiRA left out: needs 3 seeds with naive, has 1."])
    found = evidence("good", long, request_facts, choice=choice)
    assert found.does_not_show[-1] == "U-LiRA left out: needs 3 seeds with naive, has 1."
    assert "it has surely forgotten at 5 % over 6 methods" in found.headline


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
    assert "backups, copies that were handed on" in limits
    assert "cannot go below 0.0625" in limits
    confounded = evidence("good", long, replace(request_facts, speaker_confounded=True)).does_not_show
    assert any("recognise speakers, not membership" in line for line in confounded)
    blind = long[~long["metric"].str.contains("mia")]
    assert any("no membership attack" in line for line in evidence("good", blind, request_facts).does_not_show)
    scattered, single = table(MEANS, np.array([-0.04, -0.02, 0.0, 0.02, 0.04])), table(MEANS, np.array([0.0]))
    open_one = evidence("good", scattered, request_facts)
    assert any("not settled" in line for line in open_one.does_not_show)
    assert open_one.headline.startswith("Not settled, other seeds could decide otherwise: good ")
    assert "ettled" not in evidence("good", long, request_facts).headline
    assert any("One seed gives no interval" in line for line in evidence("good", single, request_facts).does_not_show)


@pytest.mark.parametrize(
    ("retrained", "words"),
    [
        (
            {2: 30.0},
            "were on 1 shard of 4 (number 2), retrained from its start on the 30 recordings left there; the 3 o",
        ),
        ({0: 1_000.0, 3: 500.0}, "were on 2 shards of 4 (number 0, 3), retrained from their start on the 1,500 record"),
        (
            {1: 0.0},
            "the 0 recordings left there; shard 1 has none left and no voice in the answers; the 3 others never",
        ),
    ],
)
def test_exactness_is_told_in_words(retrained: dict[int, float], words: str, request_facts: RequestFacts) -> None:
    """Catches a record of exact_shards that reads like one of an approximation, and counts of other shards."""
    own = {"shards/all": 4.0} | {f"shards/retrained_{shard}": n for shard, n in retrained.items()}
    rows = [("c", "item-10", "good", name, seed, value) for name, value in own.items() for seed in SEEDS]
    found = long_table(pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"]))
    long = pd.concat([table(MEANS), found])
    first = evidence("good", long, request_facts).shows[0]
    assert first.startswith("Exact by construction, by the list of the training (shards.csv): ") and words in first
    assert summary(long, list(MEANS), request_facts)[0] == f"good: {first}"
    for method in ("naive", "remembers"):
        assert not any("construction" in line for line in evidence(method, long, request_facts).shows)


def test_a_method_that_is_naive_to_the_bit_breaks_no_statistic(request_facts: RequestFacts) -> None:
    """Catches a division by the spread of differences that are all 0, and a verdict that is not the rule's."""
    long = table({**MEANS, "good": MEANS["naive"]})
    with np.errstate(all="raise"):
        found = evidence("good", long, request_facts)
    assert "nan" not in " ".join((found.headline, *found.shows)).lower()
    assert "Difference from naive, paired by seed: +0.0 points" in " ".join(found.shows)
