"""Ideas for a method, tried by `python -m experiments.research`; what came out is in docs/research.md."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.seeding import derive
from audio_mu.training import Batch, Objective, n_steps
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.task import Task

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def mixed(task: Task, alpha: float, smooth: float) -> Callable[[nn.Module, Batch], Tensor]:
    """Cross-entropy on pairs of clips mixed by a share drawn from Beta(alpha, alpha), with smoothed labels."""
    draw = np.random.default_rng(derive(task.seed, "mix"))

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        share = float(draw.beta(alpha, alpha)) if alpha else 1.0
        other = torch.from_numpy(draw.permutation(len(batch.labels)))
        logits = network(share * batch.features + (1 - share) * batch.features[other])
        own, second = (
            functional.cross_entropy(logits, labels, label_smoothing=smooth)
            for labels in (batch.labels, batch.labels[other])
        )
        return share * own + (1 - share) * second

    return loss


def scheduled(
    task: Task,
    network: nn.Module,
    objective: Objective,
    epochs: int,
    rate: float,
    schedule: str,
    warmup: float,
    batch: int = 0,
    mean: nn.Module | None = None,
    decay: float = 0.0,
    **hooks: Any,
) -> nn.Module:
    """Repair at `rate` times the recipe's rate under a schedule over the repair's own steps."""
    recipe = task.settings.optimizer
    settings = replace(recipe, learning_rate=rate * recipe.learning_rate, schedule=schedule, warmup=warmup)
    with task.repairing():
        optimizer = settings.build(network.parameters())
        size = batch or task.settings.batch_size
        steps = epochs * n_steps(network, len(task.examples("remain")), size, 1 if batch else recipe.accumulate)
        follow = settings.follow_schedule(optimizer, steps)

        @torch.no_grad()
        def after_step() -> None:
            if follow:
                follow()
            if mean is not None and decay:
                for kept, own in zip(mean.parameters(), network.parameters(), strict=True):
                    kept.lerp_(own, 1 - decay)

        common: dict[str, Any] = {"epochs": epochs, "optimizer": optimizer, "purpose": "repair", **hooks}
        if batch:
            common["batch_size"] = batch
        return task.fit(network, "remain", objective, after_step=after_step, after_epoch=told(task), **common)


def told(task: Task) -> Callable[[int, float], None]:
    """Records the mean loss of the last epoch."""

    def record(epoch: int, loss: float) -> None:
        task.figures["loss"] = loss

    return record


@torch.no_grad()
def norms_of(base: nn.Module, fresh: nn.Module) -> nn.Module:
    """A fresh network whose tensors have the norms of the base's."""
    for own, known in zip(fresh.parameters(), base.parameters(), strict=True):
        own.mul_(known.norm() / own.norm().clamp(min=1e-12))
    return fresh


@torch.no_grad()
def whitened(
    network: nn.Module, features: Tensor, gain: float, head_gain: float, centred: bool = True, first: int = 0
) -> nn.Module:
    """Scale and shift every layer, in the order of a pass, so that each output has mean 0 and deviation `gain`."""
    layers = [module for module in network.modules() if isinstance(module, LAYERS)]

    def measure(module: nn.Module, _: Any, out: Tensor) -> Tensor:
        dims = [d for d in range(out.dim()) if d != (out.dim() - 1 if isinstance(module, nn.Linear) else 1)]
        mean, deviation = out.mean(dims), out.std(dims).clamp(min=1e-8)
        scale = (head_gain if module is layers[-1] else gain) / deviation
        if not centred:
            scale, mean = scale.mean().expand_as(scale), torch.zeros_like(mean)
        module.weight.mul_(scale.view(-1, *[1] * (module.weight.dim() - 1)))
        if module.bias is not None:
            module.bias.copy_((module.bias - mean) * scale)
        shape = [1] * out.dim()
        shape[out.dim() - 1 if isinstance(module, nn.Linear) else 1] = -1
        return (out - mean.view(shape)) * scale.view(shape)

    handles = [layer.register_forward_hook(measure) for layer in layers[first:]]
    network.eval()(features)
    for handle in handles:
        handle.remove()
    return network


def sample(task: Task, n: int) -> Tensor:
    """Features of n clips of the remain set."""
    remain = task.examples("remain")
    rows = torch.randperm(len(remain), generator=task.draw("sample"))[:n].to(remain.indices.device)
    return remain.features[remain.indices[rows]]


@method(reads={"remain"})
def anew(
    task: Task,
    *,
    start: str = "whitened",
    gain: float = 1.0,
    head_gain: float = 0.1,
    epochs: int = 8,
    rate: float = 1.0,
    schedule: str = "constant",
    warmup: float = 0.0,
    batch: int = 0,
    n: int = 256,
    mix: float = 0.0,
    smooth: float = 0.0,
    average: float = 0.0,
    keep: int = 0,
) -> nn.Module:
    """A fresh network whose start is made to pass signals, trained on the remain set for a few epochs."""
    network = task.fresh("anew")
    layers, known = ([m for m in n.modules() if isinstance(m, LAYERS)] for n in (network, task.original))
    for own, old in list(zip(layers, known, strict=True))[:keep]:
        own.load_state_dict(old.state_dict())
    if start == "norms":
        norms_of(task.original, network)
    elif start in ("whitened", "scaled"):
        whitened(network, sample(task, n), gain, head_gain, centred=start == "whitened", first=keep)
    objective = mixed(task, mix, smooth) if mix or smooth else task.remain_loss
    mean = copy.deepcopy(network)
    scheduled(task, network, objective, epochs, rate, schedule, warmup, batch, mean=mean, decay=average)
    return mean if average else network
