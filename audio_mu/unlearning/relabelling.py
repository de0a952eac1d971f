"""Methods that teach the forget set other labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.training import Batch
from audio_mu.unlearning.gradient import bounded_rate
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import BOTH_STEPS, IMPAIR, REPAIR
from audio_mu.unlearning.task import Task


def other_labels(labels: Tensor, n_classes: int, draw: torch.Generator) -> Tensor:
    """For every label a class drawn uniformly from the others."""
    shift = torch.randint(1, n_classes, labels.shape, generator=draw).to(labels.device)
    return (labels + shift) % n_classes


@method(reads={"forget", "remain"}, raises_forget_loss=True, settings=BOTH_STEPS, search=IMPAIR | REPAIR)
def amnesiac(task: Task) -> nn.Module:
    """Train the forget set on wrong labels, drawn once, for an epoch, then repair (Graves et al. 2021).

    Impair: CE against a uniformly drawn other class at rate 0.001.
    """
    forget = task.examples("forget")
    wrong = other_labels(forget.labels[forget.indices], task.n_classes, task.draw("labels"))

    def mislabelled(network: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(network(batch.features), wrong[batch.rows])

    network = task.impair(task.base(), mislabelled, published_rate=0.001)
    return task.repair(network)


@method(reads={"forget", "remain"}, raises_forget_loss=True, settings=BOTH_STEPS, search=IMPAIR | REPAIR)
def label_smoothing(task: Task) -> nn.Module:
    """Train the forget set towards the uniform distribution for an epoch, then repair (the study).

    Impair: CE with label smoothing 1.0 at rate 0.01 · min(1, b / |F|).
    """

    def smooth(network: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(network(batch.features), batch.labels, label_smoothing=1.0)

    network = task.impair(task.base(), smooth, published_rate=bounded_rate(task))
    return task.repair(network)
