"""Retraining in a fraction of its time: all but the first layers anew, from a start that lets signals through."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from audio_mu.training import PREDICT_BATCH, n_steps, trained_parameters
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import COUNT, EPOCHS, RATE, choice, log_uniform
from audio_mu.unlearning.task import Task

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMALISING = (_NormBase, nn.LayerNorm, nn.GroupNorm)
EPOCHS_OF_BASE, WARMUP, HEAD_DEVIATION = 0.25, 0.1, 0.1
NO_SIGNAL = 1e-6  # a deviation below it is of an output that does not answer to what comes in


def _layers(network: nn.Module) -> list[nn.Module]:
    """The linear layers and convolutions, in the network's own order."""
    return [module for module in network.modules() if isinstance(module, LAYERS)]


def _restarted(task: Task, kept_layers: int) -> nn.Module:
    """A fresh network that has the base's first layers, what stands between them, and all that is frozen.

    At least the last layer is fresh, and so is what stands before the first, such as positions.
    """
    network = task.base()
    layers = _layers(network)[: kept_layers + 1]
    own, fresh = network.state_dict(), task.fresh("restart").state_dict()
    prefixes = {module: f"{name}." for name, module in network.named_modules()}
    begins = [next(i for i, name in enumerate(own) if name.startswith(prefixes[layer])) for layer in layers]
    kept = {*list(own)[begins[0] : begins[-1]]} if begins else set()
    kept |= {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    network.load_state_dict({name: value if name in kept else fresh[name] for name, value in own.items()})
    return network


def _let_signals_through(task: Task, network: nn.Module, kept_layers: int) -> None:
    """Scale and shift each fresh layer so that every output has mean 0 and deviation 1 on clips of the remain set.

    The last layer's have deviation 0.1, so that no class is preferred. In the order of one pass of at most 256 clips.
    Networks that normalise by themselves, or that start from weights of others, stay as they are.
    """
    if any(isinstance(module, NORMALISING) for module in network.modules()) or hasattr(network, "start"):
        return
    layers, trained = _layers(network), {id(parameter) for parameter in trained_parameters(network)}
    measured: set[nn.Module] = set()

    def measure(layer: Any, _: Any, out: Tensor) -> Tensor | None:
        if layer in measured or any(id(parameter) not in trained for parameter in layer.parameters()):
            return None
        measured.add(layer)
        channel = -1 if isinstance(layer, nn.Linear) else 1
        values = out.movedim(channel, -1)
        flat = values.flatten(0, -2)
        mean, deviation = flat.mean(0), flat.std(0, correction=0)
        scale = (HEAD_DEVIATION if layer is layers[-1] else 1.0) / deviation
        scale = torch.where(deviation > NO_SIGNAL, scale, torch.ones_like(scale))
        layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
        if layer.bias is None:
            mean = torch.zeros_like(mean)
        else:
            layer.bias.copy_((layer.bias - mean) * scale)
        return ((values - mean) * scale).movedim(-1, channel)

    remain = task.examples("remain")
    rows = torch.randperm(len(remain), generator=task.draw("signals"))[:PREDICT_BATCH].to(remain.indices.device)
    handles = [layer.register_forward_hook(measure) for layer in layers[min(kept_layers, len(layers) - 1) :]]
    try:
        task.logits(network, replace(remain, indices=remain.indices[rows]))
    finally:
        for handle in handles:
            handle.remove()


@method(
    reads={"remain"},
    settings={"repair_learning_rate"},
    limits={"kept_layers": COUNT, "epochs": EPOCHS, "learning_rate": RATE},
    search={"kept_layers": choice(0, 1, 2, 3), "learning_rate": log_uniform(0.005, 0.04)},
)
def fast_retrain(
    task: Task, *, kept_layers: int = 2, epochs: int | None = None, learning_rate: float = 0.02
) -> nn.Module:
    """Retrain all but the first layers on the remain set, in a quarter of the base's epochs. Ours (docs/research.md).

    θ = the base's first `kept_layers` layers, fresh weights elsewhere. Each fresh layer W·x + b becomes
    s · (W·x + b - μ), channel by channel, μ and 1 / s being mean and deviation of its output on clips that remain
    (data-dependent initialisation, Krähenbühl et al. 2016): a deep network without normalisation is spared the plateau
    of its first epochs. Then T steps of CE on R, the rate of step t rising to r = twice the recipe's over the first
    0.1 T and falling as r · ½ (1 + cos π τ), τ being the share gone of the others.
    """
    network = _restarted(task, kept_layers)
    _let_signals_through(task, network, kept_layers)
    epochs = max(1, ceil(EPOCHS_OF_BASE * task.settings.n_epochs)) if epochs is None else epochs
    recipe = replace(task.settings.optimizer, schedule="cosine", warmup=WARMUP)
    with task.repairing():
        optimizer = task.optimizer(network, learning_rate, task.settings.repair_learning_rate)
        size = task.settings.batch_size
        steps = epochs * n_steps(network, len(task.examples("remain")), size, recipe.accumulate)
        return task.fit(
            network,
            "remain",
            task.remain_loss,
            epochs=epochs,
            optimizer=optimizer,
            purpose="repair",
            after_step=recipe.follow_schedule(optimizer, steps),
        )
