"""The schedule of a recipe's rate."""

from __future__ import annotations

import pytest
import torch

from audio_mu.optimizer import OptimizerSettings


def shares(schedule: str, warmup: float, n_steps: int) -> list[float]:
    """The rates of steps as the optimiser had them, as shares of the recipe's."""
    settings = OptimizerSettings("sgd", 0.5, schedule=schedule, warmup=warmup)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, found = settings.build([weight]), []
    after_step = settings.follow_schedule(optimizer, n_steps)
    for _ in range(n_steps):
        weight.grad = torch.zeros(1)
        found.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        if after_step is not None:
            after_step()
    return found


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("constant", 0.5, [0.5, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("linear", 0.5, [0.5, 1, 1, 0.5]),
        ("cosine", 0.0, [1, 0.8535534, 0.5, 0.1464466]),
        ("cosine", 0.25, [1, 1, 0.75, 0.25]),
    ],
)
def test_rates_follow_the_schedule(schedule: str, warmup: float, expected: list[float]) -> None:
    """Catches a first or last step that moves nothing, a warm-up too long by one, and a rate that never falls."""
    assert shares(schedule, warmup, 4) == pytest.approx(expected)


def test_a_constant_rate_needs_no_schedule() -> None:
    """Catches a scheduler that touches the rate of every recipe from before there was one."""
    settings = OptimizerSettings("adam", 0.003)
    assert settings.follow_schedule(settings.build([torch.nn.Parameter(torch.ones(1))]), 10) is None


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("n_steps", [0, 1, 2, 3])
def test_short_trainings_have_rates(schedule: str, n_steps: int) -> None:
    """Catches a division by no steps."""
    assert all(0 < share <= 1 for share in shares(schedule, 0.5, n_steps))
