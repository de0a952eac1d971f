"""Verdicts and sentences agree with the figures that they are made from."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audio_mu.report.evidence import (
    LEARNED,
    RULE,
    Estimate,
    Outcome,
    RequestFacts,
    best_method,
    evidence,
    figures_of,
    judge,
    summary,
    verdicts,
)
from audio_mu.report.tables import long_table
from tests.report.conftest import MEANS, table

EXPECTED = {
    "original": Outcome.UNTOUCHED,
    "naive": Outcome.REFERENCE,
    "good": Outcome.PASSED,
    "good_but_farther": Outcome.PASSED,
    "remembers": Outcome.NOT_FORGOTTEN,
    "remembers_by_loss": Outcome.NOT_FORGOTTEN,
    "overdone": Outcome.OVER_UNLEARNED,
    "damaged": Outcome.DAMAGED,
}


def test_every_kind_of_method_gets_its_verdict(long: pd.DataFrame) -> None:
    """Catches a failing method called good, or the signs of a gap the wrong way round."""
    assert {method: verdict.outcome for method, verdict in verdicts(long, list(MEANS)).items()} == EXPECTED
    passed = {method for method, verdict in verdicts(long, list(MEANS)).items() if verdict.passed}
    assert passed == {"naive", "good", "good_but_farther"}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("remembers", "failed, the recordings are not forgotten: forget accuracy is 8.0 points above naive's"),
        ("remembers_by_loss", "the membership attack's AUC is 0.100 above naive's, 0.05 is allowed"),
        ("overdone", "failed, it is over-unlearned"),
        ("damaged", "failed, it lost accuracy that retraining keeps: remain accuracy is 29.0 points below naive's"),
        ("good", "meets the stated rule"),
        ("original", "the model before unlearning: it still holds the recordings"),
    ],
)
def test_the_headline_says_the_verdict(
    method: str, words: str, long: pd.DataFrame, request_facts: RequestFacts
) -> None:
    """Catches a record whose first sentence is kinder than its figures."""
    headline = evidence(method, long, request_facts).headline
    assert words in headline
    assert ("failed" in headline) == (EXPECTED[method].name in ("NOT_FORGOTTEN", "OVER_UNLEARNED", "DAMAGED"))


def test_without_naive_nothing_is_judged(request_facts: RequestFacts) -> None:
    """Catches a verdict without the retrained model that it would rest on."""
    without = table({method: means for method, means in MEANS.items() if method != "naive"})
    record = evidence("good", without, request_facts)
    assert record.headline == (
        "Whether good has forgotten cannot be judged: there is no retrained model (naive) to compare with."
    )
    methods = [method for method in MEANS if method != "naive"]
    assert best_method(without, methods) is None
    lines = summary(without, methods, request_facts)
    assert any("none is judged" in line for line in lines)
    assert not any("meet" in line and "rule" in line for line in lines)


def test_models_at_chance_are_not_judged(request_facts: RequestFacts) -> None:
    """Catches a wrecked model passing because the retrained one has learned nothing either."""
    means = {
        "original": (0.1, 0.11, 0.1, 0.5, None),
        "naive": (0.1, 0.1, 0.1, 0.5, 9.0),
        "omp": (0.1, 0.1, 0.1, 0.5, 1.0),
    }
    found = table(means)
    assert {v.outcome for v in verdicts(found, list(means)).values()} == {Outcome.NOT_JUDGED}
    assert (
        "recognises only 10.0 % of the recordings it was trained on" in evidence("omp", found, request_facts).headline
    )
    assert any(line.startswith("No method is judged") for line in summary(found, list(means), request_facts))
    assert best_method(found, list(means)) is None


def test_nothing_is_judged_where_the_untouched_model_would_pass(request_facts: RequestFacts) -> None:
    """Catches a rule that anything meets, doing nothing too, where the recordings were never memorised."""
    means = {
        "original": (0.966, 0.99, 0.96, 0.51, None),
        "naive": (0.957, 0.99, 0.96, 0.50, 9.0),
        "idle": (0.966, 0.99, 0.96, 0.51, 1.0),
    }
    found = table(means)
    judged = verdicts(found, list(means))
    assert judged["idle"].outcome is Outcome.NOT_JUDGED
    assert "forget accuracy +0.9 points, AUC of the membership attack +0.010" in judged["idle"].reasons[0]
    assert judged["naive"].passed  # retraining needs no proof
    assert best_method(found, list(means)) is None
    assert any(
        line.startswith("No method is judged: the original") for line in summary(found, list(means), request_facts)
    )
    told_apart = table({**means, "original": (0.966, 0.99, 0.96, 0.56, None)})  # by the attack alone
    assert verdicts(told_apart, list(means))["idle"].outcome is Outcome.PASSED


def test_nothing_is_judged_where_the_original_knows_less_than_naive() -> None:
    """Catches a difference whose sign is lost: an original below naive has nothing that could be forgotten."""
    means = {
        "original": (0.945, 0.99, 0.96, 0.50, None),
        "naive": (0.957, 0.99, 0.96, 0.50, 9.0),
        "half": (0.952, 0.99, 0.96, 0.50, 1.0),
    }
    judged = verdicts(table(means), list(means))
    assert judged["half"].outcome is Outcome.NOT_JUDGED
    assert "forget accuracy -1.2 points" in judged["half"].reasons[0]


def test_a_seed_without_a_retrained_model_excuses_nothing(request_facts: RequestFacts) -> None:
    """Catches a mean over the seeds in which one failed naive model hides what a method has lost on all the others."""
    learned = Estimate(0.8, None, None, 5)
    gaps = {"forget_accuracy": 0.0, "remain_accuracy": 0.062, "test_accuracy": 0.05, "mia_auc": 0.0}
    figures = {f"gap/{name}": Estimate(value, value, value, 5) for name, value in gaps.items()}
    original = {"gap/forget_accuracy": Estimate(0.3, 0.25, 0.35, 5)}
    assert judge("pop", figures, original).outcome is Outcome.PASSED
    for method in ("pop", "naive"):
        verdict = judge(method, figures | {LEARNED: learned}, original)
        assert verdict.outcome is Outcome.NOT_JUDGED
        assert "retraining (naive) failed on 1 of 5 seeds" in verdict.reasons[0]
        assert not verdict.passed


def test_a_verdict_rests_on_the_original_too() -> None:
    """Catches one called settled where it is not even sure that there was something to forget."""
    figures = {f"gap/{name}_accuracy": Estimate(0.0, 0.0, 0.0, 5) for name in ("forget", "remain", "test")}
    sure, unsure = ({"gap/forget_accuracy": Estimate(0.1, low, 0.2, 5)} for low in (0.06, 0.04))
    assert judge("pop", figures, sure).settled
    assert judge("pop", figures, unsure).outcome is Outcome.PASSED
    assert not judge("pop", figures, unsure).settled
    by_attack = unsure | {"gap/mia_auc": Estimate(0.1, 0.06, 0.2, 5)}
    assert judge("pop", figures, by_attack).settled


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


def test_doing_nothing_never_passes() -> None:
    """Catches a tolerance as wide as the original's own gap: then the untouched model would be called unlearned."""
    for gap in (0.0, 0.005, 0.02, 0.04, 0.2, 1.0):
        tolerance = RULE.forget_tolerance(gap)
        assert tolerance == pytest.approx(max(0.01, min(0.05, gap / 2)))
        assert tolerance < gap or gap <= RULE.least
    gaps = {"forget_accuracy": 0.04, "remain_accuracy": 0.0, "test_accuracy": 0.0, "mia_auc": 0.02}
    unchanged = {f"gap/{name}": Estimate(value, value, value, 5) for name, value in gaps.items()}
    assert judge("idle", unchanged, unchanged).outcome is Outcome.NOT_FORGOTTEN
    assert judge("idle", unchanged).outcome is Outcome.PASSED  # without the original's figures 5 points are allowed


def test_every_limit_of_the_rule_decides() -> None:
    """Catches a criterion that is stated but not applied; each is passed just inside and failed just outside."""
    original = {"gap/forget_accuracy": Estimate(0.5, 0.5, 0.5, 5)}

    def outcome(**gaps: float) -> Outcome:
        values = {"forget_accuracy": 0.0, "remain_accuracy": 0.0, "test_accuracy": 0.0, "mia_auc": 0.0} | gaps
        return judge("m", {f"gap/{k}": Estimate(v, v, v, 5) for k, v in values.items()}, original).outcome

    assert outcome(remain_accuracy=-0.0199) is Outcome.PASSED
    assert outcome(remain_accuracy=-0.0201) is Outcome.DAMAGED
    assert outcome(test_accuracy=-0.0201) is Outcome.DAMAGED
    assert outcome(test_accuracy=0.2) is Outcome.PASSED
    assert outcome(forget_accuracy=0.0499) is Outcome.PASSED
    assert outcome(forget_accuracy=0.0501) is Outcome.NOT_FORGOTTEN
    assert outcome(forget_accuracy=-0.0501) is Outcome.OVER_UNLEARNED
    assert outcome(mia_auc=0.0501) is Outcome.NOT_FORGOTTEN
    assert outcome(mia_auc=-0.0501) is Outcome.OVER_UNLEARNED


def test_best_is_the_closest_of_those_that_pass(long: pd.DataFrame) -> None:
    """Catches `best` taking the fastest method, a failing one, naive or the original."""
    assert best_method(long, list(MEANS)) == "good"
    tow = {method: figures_of(long, method)["gap/tow"].mean for method in ("good", "remembers_by_loss")}
    assert tow["remembers_by_loss"] > tow["good"]  # it would win if the rule were not asked
    assert best_method(long, ["original", "naive", "remembers", "overdone"]) is None


def test_wide_intervals_are_not_settled(request_facts: RequestFacts) -> None:
    """Catches a verdict from scattered seeds, or from one, being told as certain."""
    steady, scattered = table(MEANS), table(MEANS, np.array([-0.06, -0.03, 0.0, 0.03, 0.06]))
    assert verdicts(steady, ["good"])["good"].settled
    assert not verdicts(scattered, ["good"])["good"].settled
    assert any("not settled" in line for line in evidence("good", scattered, request_facts).does_not_show)
    single = table(MEANS, np.array([0.0]))
    assert not verdicts(single, ["good"])["good"].settled
    assert any("One seed gives no interval" in line for line in evidence("good", single, request_facts).does_not_show)


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


def test_summary_names_each_method_once_under_its_verdict(long: pd.DataFrame, request_facts: RequestFacts) -> None:
    """Catches a method left out of the summary, or listed under another verdict."""
    lines = summary(long, list(MEANS), request_facts)
    assert lines[0] == (
        "To be forgotten: 144 of 1,440 training recordings (10.0 %; request item-10, 3 of them copies of requested "
        "recordings)."
    )
    assert "The original model recognises 99.0 %" in lines[1]
    assert "2 of 6 methods meet the rule: good and good_but_farther. good comes closest" in lines[2]
    (not_forgotten,) = [line for line in lines if line.startswith("Not forgotten")]
    assert "remembers (" in not_forgotten
    assert "remembers_by_loss (" in not_forgotten
    assert any(line.startswith("Over-unlearned: overdone (") for line in lines)
    assert any(line.startswith("Accuracy lost: damaged (") for line in lines)


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
