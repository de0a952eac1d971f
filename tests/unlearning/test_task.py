"""The task of a method: rates, phases, and the clock."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from audio_mu.training import OptimizerSettings
from audio_mu.unlearning import run_method
from tests.unlearning.formulas import gradient, linear, moved, task_of
from tests.unlearning.small_problem import same, trained, weights


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_published_rates_scale_with_the_recipe(name: str) -> None:
    """Catches literal SGD rates under another recipe, state carried over, and a given rate that is scaled too."""
    problem = trained().changed(optimizer=OptimizerSettings(name, 0.003, momentum=0.7, weight_decay=0.02))
    task = task_of(problem, "gradient_ascent")
    optimizer = task.optimizer(task.base(), 0.001)
    assert isinstance(optimizer, {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name])
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(0.0003)
    assert group["weight_decay"] == 0.02
    assert not optimizer.state
    assert task.optimizer(task.base(), 0.001, override=0.5).param_groups[0]["lr"] == 0.5


def test_study_recipe_gives_the_published_rates() -> None:
    """Catches a scale that is not 1 for the study's own recipe."""
    task = task_of(trained().changed(optimizer=OptimizerSettings("sgd", 0.01)), "gradient_ascent")
    assert task.optimizer(task.base(), 0.001).param_groups[0]["lr"] == pytest.approx(0.001)


def test_given_rates_reach_their_phases() -> None:
    """Catches impair and repair rates that are swapped or ignored."""
    problem = linear().changed(batch_size=16, impair_learning_rate=3e-6)
    rows = problem.forget
    slope = gradient(problem, functional.cross_entropy(problem.base(problem.features[rows]), problem.labels[rows]))
    torch.testing.assert_close(moved(problem, "gradient_ascent"), 3e-6 * slope, rtol=1e-3, atol=1e-12)
    problem = linear().changed(batch_size=len(problem.remain), n_epoch_repair=1, repair_learning_rate=5e-6)
    rows = problem.remain
    slope = gradient(problem, functional.cross_entropy(problem.base(problem.features[rows]), problem.labels[rows]))
    torch.testing.assert_close(moved(problem, "fine_tune"), -5e-6 * slope, rtol=1e-3, atol=1e-12)


def test_no_repair_epochs_leave_the_impaired_network() -> None:
    """Catches a repair that runs at least once, and one that fails where there is nothing to do."""
    problem = trained().changed(n_epoch_repair=0)
    assert same(weights(problem.run("fine_tune").network), weights(problem.base))
    for method in ("gradient_ascent", "stochastic_teacher", "omp", "label_smoothing"):
        assert not same(weights(problem.run(method).network), weights(problem.base))


def test_checkpoint_scoring_is_outside_the_clock() -> None:
    """Catches evaluation time counted as unlearning time, on the wall or on the CPU."""
    problem = trained().changed(n_epochs=2)

    def slow_score(network: nn.Module) -> float:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return 0.0

    start = time.perf_counter()
    outcome = run_method(
        "naive", 40, problem.base, problem.initialise, problem.sets, problem.settings, 4,
        request="item", checkpoint=slow_score,
    )  # fmt: skip
    elapsed = time.perf_counter() - start
    assert elapsed > 0.6
    assert 0 < outcome.total_seconds < elapsed - 0.5
    assert 0 < outcome.cpu_seconds < 0.4
    assert outcome.impair_seconds < outcome.repair_seconds


def test_phases_are_booked_where_they_belong() -> None:
    """Catches repair time booked as impairing, or the other way round."""
    outcome = trained().changed(n_epoch_impair=0, n_epoch_repair=6).run("gradient_ascent")
    assert outcome.repair_seconds > 5 * outcome.impair_seconds
    outcome = trained().changed(n_epoch_impair=6, n_epoch_repair=0).run("gradient_ascent")
    assert outcome.impair_seconds > 5 * outcome.repair_seconds


def test_rates_in_effect_are_recorded() -> None:
    """Catches rates of steps that trained nothing, rates of a schedule's end, and the recipe's in place of the used."""
    problem = trained().changed(optimizer=OptimizerSettings("sgd", 0.02), batch_size=8)
    assert problem.run("gradient_ascent").rates == {"impair_learning_rate": 0.01, "repair_learning_rate": 0.02}
    assert problem.run("scrub").rates["repair_learning_rate"] == pytest.approx(0.001)
    assert problem.run("msg").rates == {"repair_learning_rate": pytest.approx(0.002)}
    assert problem.run("bad_teacher").rates == {"impair_learning_rate": 0.0001}
    given = problem.changed(impair_learning_rate=0.5, n_epoch_repair=0)
    assert given.run("amnesiac").rates == {"impair_learning_rate": 0.5}
    assert problem.run("naive").rates == problem.run("ssd").rates == {}
