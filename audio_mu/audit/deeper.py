"""Deeper audits, on request: the time to learn the forget set again, and a probe of the features."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from audio_mu.models import AudioClassifier
from audio_mu.seeding import derive, seeded
from audio_mu.training import Examples, OptimizerSettings, fit, in_float32, ordered_batches, predict

SMALL_RATE = 0.1  # of the recipe's rate
MOST_EPOCHS = 20
PROBE_CLIPS = 1_000  # forget and remain clips each that a probe is fitted to, at most
PROBE_STEPS = 300
BATCH = 256


@dataclass(frozen=True)
class Relearning:
    """Epochs until the accuracy was back; MOST_EPOCHS with reached=False where it was not.

    accuracies: on the forget set before training and after each epoch.
    """

    epochs: int
    reached: bool
    accuracies: tuple[float, ...]


def relearn(
    network: nn.Module, forget: Examples, target: float, optimizer: OptimizerSettings, *, batch_size: int, seed: int
) -> Relearning:
    """Train a copy of a network on the forget set at a tenth of the recipe's rate until its accuracy is the target.

    target: the original's accuracy on the forget set, a fraction. A network that never saw the clips needs as long
    as naive does; a network that only hides them gets there sooner (relearn time, Golatkar et al. 2020, "Eternal
    sunshine of the spotless net"; Tarun et al. 2023). The network itself is left as it was.
    """
    learner = copy.deepcopy(network)
    small = replace(optimizer, learning_rate=optimizer.learning_rate * SMALL_RATE).build(learner.parameters())
    accuracies = [_accuracy(learner, forget)]
    with seeded(derive(seed, "relearn")):
        while accuracies[-1] < target and len(accuracies) <= MOST_EPOCHS:
            epoch = len(accuracies)
            own = derive(seed, "relearn", epoch)
            fit(learner, forget, small, epochs=1, batch_size=batch_size, seed=own, accumulate=optimizer.accumulate)
            accuracies.append(_accuracy(learner, forget))
    return Relearning(len(accuracies) - 1, accuracies[-1] >= target, tuple(accuracies))


def _accuracy(network: nn.Module, examples: Examples) -> float:
    answers = predict(network, examples.features, examples.indices).argmax(axis=1)
    return float((answers == _labels(examples)).mean())


def _labels(examples: Examples) -> np.ndarray:
    return examples.labels[examples.indices].cpu().numpy()


def probe_accuracy(network: AudioClassifier, forget: Examples, remain: Examples, *, seed: int) -> float:
    """Accuracy on the forget set of a linear classifier that reads the network's penultimate features.

    Logistic regression on standardised features, fitted to one half of the forget clips and as many remain clips
    and scored on the other half, and the other way round; the mean of both. To be compared with naive's: what a
    network that never saw the clips offers of them (after Golatkar et al. 2020). Raises ValueError with fewer than
    two forget clips.
    """
    # Here alone: its import takes a second of every worker's start.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(forget) < 2:
        raise ValueError(f"a probe needs at least 2 forget clips, got {len(forget)}")
    draw = np.random.default_rng(derive(seed, "probe"))
    halves = np.array_split(draw.permutation(len(forget)), 2)
    size = min(len(remain), max(len(half) for half in halves), PROBE_CLIPS)
    others = _subset(remain, draw.choice(len(remain), size=size, replace=False))
    other_features, other_labels = _penultimate(network, others), _labels(others)
    features = [_penultimate(network, _subset(forget, half)) for half in halves]
    labels = [_labels(_subset(forget, half)) for half in halves]
    right = []
    for fitted, scored in ((0, 1), (1, 0)):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=PROBE_STEPS))
        probe.fit(
            np.concatenate([features[fitted][:PROBE_CLIPS], other_features]),
            np.concatenate([labels[fitted][:PROBE_CLIPS], other_labels]),
        )
        right.append(probe.predict(features[scored]) == labels[scored])
    return float(np.concatenate(right).mean())


def _subset(examples: Examples, rows: np.ndarray) -> Examples:
    chosen = torch.from_numpy(np.sort(rows)).to(examples.indices.device)
    return Examples(examples.features, examples.labels, examples.indices[chosen])


@in_float32()
@torch.inference_mode()
def _penultimate(network: AudioClassifier, examples: Examples) -> np.ndarray:
    """[n, d] float64, the input of the last linear layer."""
    network.eval()
    parts = [network.penultimate(batch.features).double().cpu() for batch in ordered_batches(examples, BATCH)]
    return torch.cat(parts).numpy()


def deep_figures(
    network: AudioClassifier,
    original: nn.Module,
    forget: Examples,
    remain: Examples,
    optimizer: OptimizerSettings,
    *,
    batch_size: int,
    seed: int,
) -> Mapping[str, float]:
    """Metrics of both audits: deep/relearn_epochs, deep/relearn_reached (0 or 1), deep/probe_accuracy."""
    target = _accuracy(original, forget)
    relearning = relearn(network, forget, target, optimizer, batch_size=batch_size, seed=seed)
    figures = {"deep/relearn_epochs": float(relearning.epochs), "deep/relearn_reached": float(relearning.reached)}
    if len(forget) >= 2 and len({*_labels(forget).tolist(), *_labels(remain).tolist()}) > 1:
        figures["deep/probe_accuracy"] = probe_accuracy(network, forget, remain, seed=seed)
    return figures
