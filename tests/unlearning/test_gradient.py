"""Methods that follow a gradient away from the forget set, against single steps by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from audio_mu.training import OptimizerSettings
from audio_mu.unlearning.gradient import bounded_rate
from tests.unlearning.formulas import agree, by_hand, flat, gradient, linear, mean_loss, moved, precise, task_of
from tests.unlearning.small_problem import trained


def test_gradient_ascent_goes_up_at_the_bounded_rate() -> None:
    """Catches descent, and a rate without its bound: |F| = 16, batch 8 gives two steps at half the recipe's rate."""
    problem = linear().changed(batch_size=8)
    rows = problem.forget
    slope = gradient(problem, functional.cross_entropy(problem.base(problem.features[rows]), problem.labels[rows]))
    expected = 2 * 1e-6 * 0.5 * slope
    torch.testing.assert_close(moved(problem, "gradient_ascent"), expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("n_forget", "batch", "expected"), [(1, 256, 0.01), (256, 256, 0.01), (2400, 256, 0.01 * 256 / 2400)]
)
def test_bounded_rate(n_forget: int, batch: int, expected: float) -> None:
    """Catches the study's own 0.01 · 256 / |F|, which grows as the request shrinks."""
    problem = trained().changed(batch_size=batch)
    task = task_of(replace(problem, forget=torch.zeros(n_forget, dtype=torch.long)), "gradient_ascent")
    assert bounded_rate(task) == pytest.approx(expected)


def test_neggrad_plus_repeats_the_forget_set_for_every_batch_of_the_remain_set() -> None:
    """Catches zip(remain, forget), which ends with the shorter set; swapped weights; and a lost sign."""
    problem = precise().changed(batch_size=16, optimizer=OptimizerSettings("sgd", 1e-6, momentum=0.0))
    remain, forget = mean_loss(problem, problem.remain), mean_loss(problem, problem.forget)
    expected = by_hand(problem, [(1e-6, lambda n: 0.9 * remain(n) - 0.1 * forget(n))] * 3 * 2, momentum=0.0)
    found = problem.run("neggrad_plus", hyper_parameters={"remain_weight": 0.9, "epochs": 2}).network
    agree(flat(found), expected, flat(problem.base))
