"""Clocks that wait for the device, networks as the project makes them, and how far weights are apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audio_mu.models import AudioClassifier, build, tiny
from audio_mu.seeding import seeded

ARCHITECTURES = ("VGGish", "CCT", "ViT")
SHAPE, CLASSES, BATCH, RATE = (32, 63), 10, 256, 0.01
NO_DROPOUT = {"attention_dropout": 0.0, "stochastic_depth": 0.0}


def wait_for(device: str | torch.device) -> None:
    """Wait until the device has done all that it was asked."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str, repeats: int = 1) -> list[float]:
    """Wall seconds of each call, all of the device's work included; a first call is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        taken.append(time.perf_counter() - start)
    return taken


def initialiser(
    architecture: str, *, small: bool = False, drops: bool = True, shape: tuple[int, int] = SHAPE
) -> Callable[[int], AudioClassifier]:
    """A function from a seed to a network as the project's jobs make it; `drops` False leaves CCT's dropout out."""
    widths: dict[str, Any] = tiny(architecture) if small else {}
    if architecture == "CCT" and not drops:
        widths |= NO_DROPOUT

    def initialise(seed: int) -> AudioClassifier:
        with seeded(seed):
            return build(architecture, shape, CLASSES, **widths).to(memory_format=torch.channels_last)

    return initialise


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All values as one float64 vector on the CPU."""
    return torch.cat([tensor.detach().cpu().double().reshape(-1) for tensor in tensors])


def apart(one: nn.Module, other: nn.Module, start: Sequence[Tensor]) -> float:
    """‖a - b‖ / ‖b - start‖: how far two networks are apart, in units of the way that the second has gone."""
    a, b, before = flat(one.parameters()), flat(other.parameters()), flat(start)
    return float((a - b).norm() / (b - before).norm())
