"""Methods with a teacher, each against a plain implementation and the known faults of public code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from audio_mu.training import Batch, OptimizerSettings
from audio_mu.unlearning.distillation import divergence, imitate
from tests.unlearning.formulas import (
    agree,
    by_hand,
    flat,
    gradient,
    linear,
    mean_divergence,
    mean_loss,
    moved,
    precise,
    task_of,
)
from tests.unlearning.small_problem import Problem, same, trained, weights


def test_divergence_is_that_of_teacher_from_student() -> None:
    """Catches the arguments of KL swapped, a mean over classes, raw logits, and a temperature on one side only."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, 5, generator=draw)
    for temperature in (1.0, 4.0):
        expected = kl_divergence(Categorical(logits=teacher / temperature), Categorical(logits=student / temperature))
        torch.testing.assert_close(divergence(student, teacher, temperature), expected.mean())
    assert divergence(student, student).abs() < 1e-6


def test_imitation_pairs_each_clip_with_its_own_answer() -> None:
    """Catches answers looked up by clip number instead of position in the set."""
    problem = trained()
    task = task_of(problem, "stochastic_teacher")
    teacher = task.fresh("teacher")
    rows = torch.tensor([5, 0, 11])
    index = problem.forget[rows]
    batch = Batch(problem.features[index], problem.labels[index], rows)
    expected = divergence(problem.base(batch.features), teacher(batch.features))
    torch.testing.assert_close(imitate(task, teacher, "forget")(problem.base, batch), expected)


def problem_loss(problem: Problem, rows: Tensor) -> float:
    return problem.loss(problem.run("stochastic_teacher").network, rows)


def test_stochastic_teacher_follows_a_random_network_then_the_original() -> None:
    """Catches a teacher that is the base's own initialisation, and one original that moves along in the repair."""
    problem = linear().changed(batch_size=16)
    teacher = task_of(problem, "stochastic_teacher").fresh("teacher")
    assert not same(weights(teacher), weights(problem.initialise(40)))
    features = problem.features[problem.forget]
    loss = kl_divergence(Categorical(logits=teacher(features).detach()), Categorical(logits=problem.base(features)))
    torch.testing.assert_close(
        moved(problem, "stochastic_teacher"), -1e-6 * gradient(problem, loss.mean()), rtol=1e-3, atol=1e-11
    )
    # Where nothing was impaired the original has nothing to correct: its own answers are the target.
    still = trained().changed(n_epoch_impair=0, optimizer=OptimizerSettings("sgd", 0.01))
    assert moved(still, "stochastic_teacher").abs().max() < 1e-5
    impaired = trained().changed(n_epoch_impair=4, n_epoch_repair=0)
    repaired = impaired.changed(n_epoch_repair=5)
    rows = problem.remain
    assert problem_loss(repaired, rows) < 0.5 * problem_loss(impaired, rows)


def test_scrub_equals_a_plain_implementation() -> None:
    """Catches an optimiser bound to the teacher, a teacher that shares the student's tensors (its KL is always 0),
    KL of raw logits, a missing T², `msteps` and rate drops that come an epoch early or late."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 0.2))
    teacher = task_of(problem, "scrub").original
    away = mean_divergence(problem, teacher, problem.forget, 4.0)
    towards = mean_divergence(problem, teacher, problem.remain, 4.0)
    remain = mean_loss(problem, problem.remain)
    losses: list[tuple[float, Callable[[nn.Module], Tensor]]] = []
    for epoch in range(6):
        rate = 0.01 * (0.1 if epoch >= 3 else 1) * (0.1 if epoch >= 5 else 1)
        if epoch < 2:
            losses.append((rate, lambda n: -16 * away(n)))
        losses.append((rate, lambda n: 2.0 * remain(n) + 0.5 * 16 * towards(n)))
    hyper_parameters = {"msteps": 2, "gamma": 2.0, "epochs": 6}
    found = problem.run("scrub", hyper_parameters=hyper_parameters).network
    agree(flat(found), by_hand(problem, losses), flat(problem.base))


def test_scrub_forgets_by_its_max_steps() -> None:
    """Catches a maximisation without effect: the same run without it keeps the forget set."""
    problem = trained()
    losses = {
        msteps: problem.loss(
            problem.run("scrub", hyper_parameters={"learning_rate": 0.01, "msteps": msteps}).network, problem.forget
        )
        for msteps in (0, 3)
    }
    assert losses[3] > 5 * losses[0]


def test_bad_teacher_mixes_sets_and_teachers_under_its_own_adam() -> None:
    """Catches each set trained on its own, teachers swapped, a teacher that is the base's own initialisation, a literal
    SGD recipe, and a rate scaled by it."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 0.5))
    task = task_of(problem, "bad_teacher")
    shown = problem.remain[torch.randperm(48, generator=task.draw("shown"))[:15]]
    random_teacher, network = task.fresh("teacher"), task.base()
    assert not same(weights(random_teacher), weights(problem.initialise(40)))
    forget = mean_divergence(problem, random_teacher, problem.forget)
    remain = mean_divergence(problem, problem.base, shown)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        ((16 * forget(network) + 15 * remain(network)) / 31).backward()
        optimizer.step()
    found = problem.run("bad_teacher", hyper_parameters={"epochs": 2}).network
    difference = (flat(found) - flat(network)).abs()
    # Where a gradient is almost 0, Adam turns rounding into steps: nearly all weights agree, not all.
    assert difference.median() < 1e-7 and (difference < 1e-6).double().mean() > 0.98
    assert (flat(found) - flat(problem.base)).abs().max() == pytest.approx(2e-4, rel=0.02)


def test_delete_pulls_towards_the_originals_other_classes() -> None:
    """Catches a target that moves with the student, NaN from 0 · -∞, and a true class masked after the softmax."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 0.1))
    rows, labels = problem.forget, problem.labels[problem.forget]
    with torch.no_grad():
        others = problem.base(problem.features[rows]).softmax(1) * (1 - functional.one_hot(labels, 4))
    target = others / others.sum(1, keepdim=True)

    def loss(network: nn.Module) -> Tensor:
        log_probabilities = network(problem.features[rows]).log_softmax(1)
        return (torch.xlogy(target, target) - target * log_probabilities).sum(1).mean()

    found = problem.run("delete", hyper_parameters={"epochs": 3}).network
    agree(flat(found), by_hand(problem, [(0.01, loss)] * 3), flat(problem.base))
