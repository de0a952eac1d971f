"""Single steps by hand, in float64, where a small rate makes a step linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from audio_mu.training import OptimizerSettings
from audio_mu.unlearning import Settings, Task
from tests.unlearning.small_problem import Problem, trained

SGD = OptimizerSettings("sgd", 0.01)


def in_float64(problem: Problem, settings: Settings) -> Problem:
    """The problem in float64 under other settings."""

    def initialise(seed: int) -> nn.Module:
        return problem.initialise(seed).double()

    base = problem.initialise(40).double()
    base.load_state_dict({name: value.double() for name, value in problem.base.state_dict().items()})
    return replace(problem, base=base, initialise=initialise, features=problem.features.double(), settings=settings)


@cache
def linear() -> Problem:
    """The problem in float64 under a tiny rate, where an epoch moves the weights by the sum of its gradients."""
    tiny = OptimizerSettings("sgd", 1e-6, momentum=0.0)
    return in_float64(trained(), replace(trained().settings, optimizer=tiny, n_epoch_repair=0))


@cache
def precise() -> Problem:
    """The problem in float64 with batches as large as the sets, so that the order of clips does not matter."""
    return in_float64(trained(), replace(trained().settings, optimizer=SGD, batch_size=64))


def task_of(problem: Problem, method: str, seed: int = 40) -> Task:
    return Task(method, seed, problem.base, problem.initialise, problem.sets, problem.settings, 4)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def gradient(problem: Problem, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(problem.base.parameters()))])


def moved(problem: Problem, method: str) -> Tensor:
    return flat(problem.run(method).network) - flat(problem.base)


def by_hand(
    problem: Problem, losses: list[tuple[float, Callable[[nn.Module], Tensor]]], momentum: float = 0.9
) -> Tensor:
    """Weights after one step of SGD with momentum for each (rate, loss)."""
    network = task_of(problem, "fine_tune").base()
    velocity: list[Any] = [0.0] * len(list(network.parameters()))
    for rate, loss in losses:
        slopes = torch.autograd.grad(loss(network), list(network.parameters()))
        velocity = [momentum * v + slope for v, slope in zip(velocity, slopes, strict=True)]
        with torch.no_grad():
            for parameter, v in zip(network.parameters(), velocity, strict=True):
                parameter.sub_(rate * v)
    return flat(network)


def mean_loss(problem: Problem, rows: Tensor) -> Callable[[nn.Module], Tensor]:
    return lambda network: functional.cross_entropy(network(problem.features[rows]), problem.labels[rows])


def mean_divergence(
    problem: Problem, teacher: nn.Module, rows: Tensor, temperature: float = 1.0
) -> Callable[[nn.Module], Tensor]:
    features = problem.features[rows]
    target = Categorical(logits=teacher(features).detach() / temperature)
    return lambda network: kl_divergence(target, Categorical(logits=network(features) / temperature)).mean()


def agree(found: Tensor, expected: Tensor, start: Tensor) -> None:
    """Both moved by the same amounts, to a thousandth of the largest."""
    assert (expected - start).abs().max() > 0
    torch.testing.assert_close(
        found - start, expected - start, rtol=1e-3, atol=1e-4 * float((expected - start).abs().max())
    )
