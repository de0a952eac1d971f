"""Verdicts follow from the figures by the stated rule, and from nothing else."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from audio_mu.audit.one_model import SHARE
from audio_mu.report.choice import best_method
from audio_mu.report.facts import Estimate, figures_of
from audio_mu.report.rule import LEARNED, RULE, Outcome, Verdict, judge, verdicts
from audio_mu.report.tables import long_table
from tests.invented_models import Cell, counted
from tests.report.conftest import MEANS, table

SEEDS = (40, 41, 42, 43, 44)


def seeds(*values: float) -> Estimate:
    """A figure with these values on seeds 40, 41, …, as the long table has it."""
    rows = [("c", "r", "m", "gap/x", seed, value) for seed, value in zip(SEEDS, values)]
    found = long_table(pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"]))
    return figures_of(found, "m")["gap/x"]


def judged(
    errors: float | None = 0.01, original: float = 0.3, share: float = 0.0, **gaps: tuple[float, ...]
) -> Verdict:
    """The verdict on gaps by seed; figures that are not given are as naive's. `errors`: of every figure."""
    n = len(next(iter(gaps.values())))
    names = ("forget_accuracy", "remain_accuracy", "test_accuracy")
    values = {name: (0.0,) * n for name in names} | gaps
    figures = {f"gap/{name}": seeds(*of) for name, of in values.items() if "/" not in name}
    figures |= {name: seeds(*of) for name, of in values.items() if "/" in name} | {SHARE: seeds(*(share,) * n)}
    if errors is not None:
        figures |= {f"error/{name}": seeds(*(errors,) * n) for name in (*values, "half_forget_accuracy")}
    return judge("m", figures, {"gap/forget_accuracy": seeds(*(original,) * n), "gap/mia_auc": seeds(*(0.0,) * n)})


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
    """Catches one that passes where it is not even sure that there was something to forget."""
    figures = {f"gap/{name}_accuracy": Estimate(0.0, 0.0, 0.0, 5) for name in ("forget", "remain", "test")}
    sure, unsure = ({"gap/forget_accuracy": Estimate(0.1, 0.1 - half, 0.1 + half, 5)} for half in (0.04, 0.12))
    assert judge("pop", figures, sure).settled
    assert judge("pop", figures, unsure).outcome is Outcome.NOT_SHOWN
    by_attack = unsure | {"gap/mia_auc": Estimate(0.1, 0.06, 0.14, 5)}
    figures["gap/mia_auc"] = Estimate(0.0, -0.01, 0.01, 5)
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
    assert judge("idle", unchanged).outcome is Outcome.NOT_SHOWN  # nothing says what there was to forget


def test_gaps_that_cancel_over_the_seeds_do_not_pass() -> None:
    """Catches a mean of signed gaps: no model that goes into service is as far from naive as 0."""
    verdict = judged(forget_accuracy=(0.2, -0.2, 0.2, -0.2, 0.0))
    assert verdict.outcome in (Outcome.NOT_FORGOTTEN, Outcome.OVER_UNLEARNED)
    assert verdict.reasons[0].startswith("on seed 4")
    assert "20.0 points" in verdict.reasons[0]
    small = judged(errors=0.03, forget_accuracy=(0.08, -0.08, 0.08, -0.08, 0.0))  # no seed by itself is sure
    assert small.outcome in (Outcome.NOT_FORGOTTEN, Outcome.OVER_UNLEARNED)
    assert "from seed to seed" in small.reasons[0]
    assert judged(errors=0.03, forget_accuracy=(0.03, -0.03, 0.03, -0.03, 0.0)).passed  # as the recordings scatter


def test_damage_is_seen_where_forgetting_is_not() -> None:
    """Catches a wrecked model that is told as one of which nothing can be said."""
    assert judged(original=0.0, forget_accuracy=(0.0,)).outcome is Outcome.NOT_JUDGED
    assert judged(original=0.0, remain_accuracy=(-0.2,)).outcome is Outcome.DAMAGED


def test_one_seed_refuses() -> None:
    """Catches four good models that hide a wrecked fifth, which would be in service too."""
    lost = judged(remain_accuracy=(0.0, 0.0, 0.0, 0.0, -0.09))
    assert lost.outcome is Outcome.DAMAGED
    assert lost.reasons[0].startswith("on seed 44 remain accuracy is 9.0 points below naive's (± 2.0 points)")
    coarse = judged(errors=0.1, remain_accuracy=(0.0, 0.0, 0.0, 0.0, -0.11))  # the audits' own word, sure or not
    assert coarse.outcome is Outcome.DAMAGED
    assert coarse.reasons[0].startswith("seed 44 has not recovered")


def test_a_figure_below_its_power_neither_passes_nor_refuses() -> None:
    """Catches an AUC of eight unseen recordings that decides as if it were a fact."""
    errors = {"error/forget_accuracy": 0.012, "error/half_forget_accuracy": 0.012, "error/mia_auc": 0.056,
              "error/remain_accuracy": 0.005, "error/test_accuracy": 0.008}  # fmt: skip

    def outcome(auc: float, forget: float = 0.0) -> Verdict:
        gaps = {"gap/forget_accuracy": forget, "gap/remain_accuracy": 0.0, "gap/test_accuracy": 0.0, "gap/mia_auc": auc}
        figures = {name: seeds(value) for name, value in (errors | gaps).items()}
        return judge("omp", figures, {"gap/forget_accuracy": seeds(1.0), "gap/mia_auc": seeds(0.45)})

    verdict = outcome(0.132)
    assert verdict.outcome is Outcome.PASSED
    assert not verdict.settled
    assert "surely forgotten: forget accuracy +0.0 points from naive's, the original's +100.0" in verdict.reasons[1]
    assert verdict.reasons[0] == (
        "so few recordings do not carry the membership attack's AUC (+0.132 ± 0.110); no other figure lies beyond the "
        "rule's tolerances"
    )
    assert outcome(0.2).outcome is Outcome.NOT_FORGOTTEN  # surely beyond the limit, however coarse
    assert outcome(0.0, 0.04).outcome is Outcome.PASSED
    assert outcome(0.0, 0.06).outcome is Outcome.NOT_FORGOTTEN  # 24 thousandths: this one has the power


def test_a_sure_loss_refuses_however_few_the_recordings() -> None:
    """Catches damage that is set aside because nobody knows its size."""
    assert judged(errors=0.03, remain_accuracy=(-0.07,)).outcome is Outcome.DAMAGED  # 7 ± 6 points, 2 are allowed
    assert not judged(errors=0.03, remain_accuracy=(-0.07,)).settled
    assert judged(errors=0.03, remain_accuracy=(-0.05,)).outcome is Outcome.PASSED


def test_what_is_not_shown_does_not_pass() -> None:
    """Catches models on whose few recordings nothing can be told, and which pass for that."""
    verdict = judged(errors=0.2, original=0.3, forget_accuracy=(0.0,))
    assert verdict.outcome is Outcome.NOT_SHOWN
    assert not verdict.passed
    assert verdict.reasons[0].startswith(
        "nothing shows that it has forgotten: forget accuracy +0.0 points from naive's"
    )
    assert judged(errors=0.05, original=0.3, forget_accuracy=(0.0,)).outcome is Outcome.PASSED
    assert judged(errors=0.05, original=0.3, forget_accuracy=(-0.06,)).outcome is Outcome.NOT_SHOWN  # overdone, if so
    assert judged(errors=None, original=0.3, forget_accuracy=(0.0,)).outcome is Outcome.NOT_SHOWN  # no interval at all


def test_accuracies_count_above_the_largest_class() -> None:
    """Catches half of two classes, which guessing gives, taken for something learned, and losses made half as large."""
    assert judged(errors=0.002, remain_accuracy=(-0.015,)).outcome is Outcome.PASSED
    assert judged(errors=0.002, share=0.5, remain_accuracy=(-0.015,)).outcome is Outcome.DAMAGED
    assert judged(errors=0.005, forget_accuracy=(0.04,)).outcome is Outcome.PASSED
    assert judged(errors=0.005, share=0.5, forget_accuracy=(0.04,)).outcome is Outcome.NOT_FORGOTTEN
    guesses = {"remain/accuracy": seeds(0.6), SHARE: seeds(0.55)}
    assert judge("naive", guesses).outcome is Outcome.NOT_JUDGED
    assert "the largest class being 55.0 % of them" in judge("naive", guesses).reasons[0]
    assert judge("naive", guesses | {SHARE: seeds(0.1)}).passed


@pytest.mark.parametrize("kind", ["class", "speaker"])
def test_the_worst_group_counts(kind: str) -> None:
    """Catches a method that wrecks one class, or one person who has not asked, below a mean that is fine."""
    gap, high = f"worst/{kind}_gap", f"worst/{kind}_high"
    wrecked = judged(remain_accuracy=(-0.01, 0.0), **{gap: (-0.6, 0.0), high: (-0.4, 0.05)})
    assert wrecked.outcome is Outcome.DAMAGED
    assert (
        f"on seed 40 accuracy on the remaining recordings of one {'class' if kind == 'class' else 'other speaker'}"
        in (wrecked.reasons[0])
    )
    assert "60.0 points below naive's, surely more than 10.0 points" in wrecked.reasons[0]
    assert judged(remain_accuracy=(-0.01, 0.0), **{gap: (-0.2, 0.0), high: (-0.05, 0.05)}).passed  # not surely


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


def test_best_has_the_number_of_methods_in_its_doubt() -> None:
    """Catches a choice among many by the figures that each by itself would pass: one of them does so by luck."""
    values = {
        "gap/forget_accuracy": 0.0,
        "error/forget_accuracy": 0.02,
        "error/half_forget_accuracy": 0.06,
        "gap/tow": 1.0,
    }
    rows = [("c", "r", "original", "gap/forget_accuracy", 40, 0.3)]
    rows += [("c", "r", f"m{i}", name, 40, value) for i in range(20) for name, value in values.items()]
    long = long_table(pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"]))
    names = [f"m{i}" for i in range(20)]
    assert verdicts(long, ["m0"])["m0"].passed
    assert best_method(long, ["m0"]) == "m0"
    assert best_method(long, names) is None
    refused = verdicts(long, ["m0"], compared=20)["m0"]
    assert refused.outcome is Outcome.NOT_SHOWN
    assert "nothing shows at 5 % over 20 methods that it has forgotten" in refused.reasons[0]
    alone = re.search(r"half way known to ± [\d.]+ points", verdicts(long, ["m0"])["m0"].reasons[1])
    assert alone and re.search(rf"{alone[0]} by itself, to ± [\d.]+ points as one of 20 methods", refused.reasons[0])


@pytest.mark.slow
def test_twenty_methods_that_forget_nothing_are_not_taken() -> None:
    """Catches a rule that one of twenty idle methods meets by chance, or that a method equal to retraining cannot."""
    idle = counted(Cell(0.03, 50, 5, has_good=False), trials=12)
    assert idle["wrong_taken"] == 0
    good = counted(Cell(0.3, 200, 5, has_good=True), trials=6)
    assert good["good_taken"] >= 0.5
    assert good["wrong_taken"] == 0


def test_wide_intervals_are_not_settled() -> None:
    """Catches a verdict from scattered seeds, or from one, being told as certain."""
    steady, scattered = table(MEANS), table(MEANS, np.array([-0.04, -0.02, 0.0, 0.02, 0.04]))
    assert verdicts(steady, ["good"])["good"].settled
    assert verdicts(scattered, ["good"])["good"].outcome is Outcome.NOT_SHOWN
    assert not verdicts(scattered, ["good"])["good"].settled
    single = table(MEANS, np.array([0.0]))
    assert not verdicts(single, ["good"])["good"].settled
    assert not judged(errors=0.02, forget_accuracy=(0.03,)).settled
    assert judged(errors=0.005, forget_accuracy=(0.03,)).settled


def with_many_seeds(error: float, compared: int = 1, **means: float) -> Verdict:
    """The verdict on a method of 16 seeds with these mean gaps, whose tests have one error for every figure."""
    names = ("forget_accuracy", "remain_accuracy", "test_accuracy", "mia_auc")
    figures = {f"gap/{name}": seeds(*(means.get(name, 0.0),) * 5) for name in names}
    figures |= {f"error/{name}": seeds(*(0.001,) * 5) for name in (*names, "half_forget_accuracy", "half_mia_auc")}
    for name in names:
        parts = {"mean": means.get(name, 0.0), "error": error, "degrees": 15.0}
        figures |= {f"sure/{name}_{part}": Estimate(value, None, None, 16) for part, value in parts.items()}
    original = {"gap/forget_accuracy": seeds(*(0.3,) * 5), "gap/mia_auc": seeds(*(0.2,) * 5)}
    return judge("m", figures, original, compared=compared)


def test_with_many_seeds_the_tests_of_equivalence_settle() -> None:
    """Catches "settled" from intervals that know nothing of people, and tests that nobody adjusts for the methods."""
    assert with_many_seeds(0.005).settled
    assert "equivalent to retraining" in with_many_seeds(0.005).reasons[-1]
    assert with_many_seeds(0.02).outcome is Outcome.PASSED
    assert not with_many_seeds(0.02).settled
    assert with_many_seeds(0.0095).settled
    assert not with_many_seeds(0.0095, compared=10).settled
    lost = with_many_seeds(0.005, test_accuracy=-0.05)
    assert (lost.outcome, lost.settled) == (Outcome.DAMAGED, True)
    assert "surely beyond a limit" in lost.reasons[-1]
