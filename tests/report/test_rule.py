"""Verdicts follow from the figures by the stated rule, and from nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from audio_mu.report.facts import Estimate, figures_of
from audio_mu.report.rule import LEARNED, RULE, Outcome, best_method, judge, verdicts
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


def test_without_naive_nothing_is_judged() -> None:
    """Catches a verdict without the retrained model that it would rest on."""
    without = table({method: means for method, means in MEANS.items() if method != "naive"})
    methods = [method for method in MEANS if method != "naive"]
    judged = verdicts(without, methods)
    assert judged["good"].reasons == ("there is no retrained model (naive) to compare with",)
    assert {verdict.outcome for verdict in judged.values()} == {Outcome.NOT_JUDGED}
    assert best_method(without, methods) is None


def test_models_at_chance_are_not_judged() -> None:
    """Catches a wrecked model passing because the retrained one has learned nothing either."""
    means = {
        "original": (0.1, 0.11, 0.1, 0.5, None),
        "naive": (0.1, 0.1, 0.1, 0.5, 9.0),
        "omp": (0.1, 0.1, 0.1, 0.5, 1.0),
    }
    found = table(means)
    assert {v.outcome for v in verdicts(found, list(means)).values()} == {Outcome.NOT_JUDGED}
    assert "recognises only 10.0 % of the recordings it was trained on" in verdicts(found, ["omp"])["omp"].reasons[0]
    assert best_method(found, list(means)) is None


def test_nothing_is_judged_where_the_untouched_model_would_pass() -> None:
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


def test_a_seed_without_a_retrained_model_excuses_nothing() -> None:
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


def test_wide_intervals_are_not_settled() -> None:
    """Catches a verdict from scattered seeds, or from one, being told as certain."""
    steady, scattered = table(MEANS), table(MEANS, np.array([-0.06, -0.03, 0.0, 0.03, 0.06]))
    assert verdicts(steady, ["good"])["good"].settled
    assert not verdicts(scattered, ["good"])["good"].settled
    single = table(MEANS, np.array([0.0]))
    assert not verdicts(single, ["good"])["good"].settled
