"""Figures of a network on a set of clips: accuracy, over all and by class, cross-entropy, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp

from audio_mu.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SMALLEST_LOSS = 1e-12


def as_logits(logits: ArrayLike) -> Floats:
    """Return logits [n, classes] in float64.

    Raises UserError when a value is not finite (the network diverged), ValueError for a wrong shape.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"logits must have shape [n, classes] with at least 2 classes, got {values.shape}")
    broken = int((~np.isfinite(values)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"logits of {broken} of {len(values)} clips are not finite: the network diverged; "
            "use a smaller learning rate or fewer steps"
        )
    return values


def as_labels(labels: ArrayLike, n: int, n_classes: int) -> Integers:
    """Return labels [n] as int64; ValueError when they are not n class numbers below n_classes."""
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(f"labels must have shape ({n},) like the logits, got {values.shape}")
    if n and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {values.dtype}")
    if n and (values.min() < 0 or values.max() >= n_classes):
        raise ValueError(f"labels must lie in 0..{n_classes - 1}, got {values.min()}..{values.max()}")
    return values.astype(np.int64)


def softmax(logits: ArrayLike) -> Floats:
    """Return class probabilities [n, classes] of logits [n, classes]."""
    return np.exp(log_softmax(as_logits(logits), axis=1))


def logit_scaled_confidence(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """Return phi [n] = log p_y - log(1 - p_y), the logit of the probability of the true class.

    Computed as z_y minus the logsumexp of the other logits, so that it stays exact where p_y rounds to 1
    (Carlini et al. 2022, "Membership inference attacks from first principles").
    """
    values = as_logits(logits)
    truth = as_labels(labels, *values.shape)
    rows = np.arange(len(values))
    others = values.copy()
    others[rows, truth] = -np.inf
    return values[rows, truth] - logsumexp(others, axis=1) if len(values) else np.zeros(0)


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """Return the cross-entropy loss [n] of each clip in nats, float64.

    -log p_y = log(1 + exp(-phi)) with phi the logit-scaled confidence: no cancellation, so that losses far
    below the resolution of float32 still differ.
    """
    return np.logaddexp(0.0, -logit_scaled_confidence(logits, labels))


def log_loss_feature(losses: ArrayLike) -> Floats:
    """Return log(max(loss, 1e-12)) of losses [n]: the scale on which small losses can be told apart."""
    return np.log(np.maximum(np.asarray(losses, dtype=np.float64), SMALLEST_LOSS))


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of clips whose largest logit is that of their class; ValueError for no clips."""
    values = as_logits(logits)
    truth = as_labels(labels, *values.shape)
    _refuse_empty(values)
    return float((values.argmax(axis=1) == truth).mean())


def mean_loss(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean cross-entropy in nats; ValueError for no clips."""
    losses = cross_entropy(logits, labels)
    _refuse_empty(losses)
    return float(losses.mean())


def expected_calibration_error(logits: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> float:
    """Return the expected calibration error (L1) of the softmax confidence; ValueError for no clips.

    Sum over equal-width bins [low, high) of |accuracy - mean confidence| times the share of clips in the bin
    (Guo et al. 2017, "On calibration of modern neural networks"). A confidence of exactly 1 belongs to the
    last bin.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}")
    values = as_logits(logits)
    truth = as_labels(labels, *values.shape)
    _refuse_empty(values)
    confidence = softmax(values).max(axis=1)
    correct = values.argmax(axis=1) == truth
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    # The last edge is left out of the search, which puts a confidence of 1 into the last bin.
    bins = np.searchsorted(edges[1:-1], confidence, side="right")
    # Per bin |sum(correct) - sum(confidence)| / n is share times |accuracy - confidence|; empty bins give 0.
    gaps = np.bincount(bins, weights=correct - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(values))


def answers_and_labels(logits: ArrayLike, labels: ArrayLike) -> tuple[Integers, Integers]:
    """Return the class of the largest logit [n], and the labels [n], checked like those of every figure."""
    values = as_logits(logits)
    return values.argmax(axis=1).astype(np.int64), as_labels(labels, *values.shape)


@dataclass(frozen=True)
class OfClasses:
    """Figures of each class that has clips, which are `labels`: [classes] each. A class's recall is its accuracy."""

    labels: Integers
    precision: Floats
    recall: Floats
    f1: Floats
    n: Integers


def of_classes(answers: Integers, truth: Integers) -> OfClasses:
    """Return the figures of each class of the answers [n] and labels [n]; ValueError for no clips.

    Of a set without a class its F1 says nothing, and an answer that names it counts against the class that the clip is
    of.
    """
    from sklearn.metrics import (
        precision_recall_fscore_support,  # a second, which commands without figures need not wait
    )

    _refuse_empty(truth)
    present = np.unique(truth)
    found = precision_recall_fscore_support(truth, answers, labels=present, zero_division=0.0)
    precision, recall, f1, n = found
    return OfClasses(present, precision, recall, f1, n.astype(np.int64))


def class_performance(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return {macro_f1, worst_class_accuracy} of logits [n, classes] and labels [n]; ValueError for no clips.

    Both over the classes that have clips here. The lowest accuracy is that of a class, whatever its size.
    """
    found = of_classes(*answers_and_labels(logits, labels))
    return {"macro_f1": float(found.f1.mean()), "worst_class_accuracy": float(found.recall.min())}


def recording_accuracy(logits: ArrayLike, labels: ArrayLike, recordings: ArrayLike) -> float | None:
    """Return the share of recordings whose mean logits are largest for their class; None where each has one clip.

    recordings [n]: the number of each clip's recording. Segments of one recording that are of several classes count as
    a recording of each.
    """
    values = as_logits(logits)
    truth = as_labels(labels, *values.shape)
    _, first, unit = np.unique([np.asarray(recordings), truth], axis=1, return_index=True, return_inverse=True)
    if len(first) == len(truth):
        return None
    sums = np.zeros((len(first), values.shape[1]))
    np.add.at(sums, unit.ravel(), values)
    return float((sums.argmax(axis=1) == truth[first]).mean())


def performance(logits: ArrayLike, labels: ArrayLike, recordings: ArrayLike | None = None) -> dict[str, float]:
    """Return {accuracy, loss, ece, macro_f1, worst_class_accuracy} of logits [n, classes] and labels [n], and where
    `recordings` [n] says that some are of the same recording recording_accuracy; {} when there are no clips."""
    if len(np.asarray(labels)) == 0:
        return {}
    by_recording = None if recordings is None else recording_accuracy(logits, labels, recordings)
    return {
        "accuracy": accuracy(logits, labels),
        "loss": mean_loss(logits, labels),
        "ece": expected_calibration_error(logits, labels),
        **class_performance(logits, labels),
        **({} if by_recording is None else {"recording_accuracy": by_recording}),
    }


def _refuse_empty(values: NDArray[np.generic]) -> None:
    if len(values) == 0:
        raise ValueError("no clips: the value is not defined")
