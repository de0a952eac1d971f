"""Retraining and fine-tuning: the gold standard and the cheapest baseline."""

from __future__ import annotations

from torch import nn

from audio_mu.unlearning.registry import method
from audio_mu.unlearning.task import Task


@method(reads={"remain"})
def naive(task: Task) -> nn.Module:
    """Retrain on the remain set alone, from the base's initialisation, with the base recipe: the gold standard."""
    return task.retrain("remain")


@method(reads={"remain"})
def fine_tune(task: Task) -> nn.Module:
    """The repair step alone: train the original on the remain set."""
    return task.repair(task.base())
