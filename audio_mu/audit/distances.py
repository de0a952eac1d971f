"""How far two networks' outputs lie apart on the same clips."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from audio_mu.audit.performance import Floats, as_logits, softmax

TUG_OF_WAR_SETS = ("forget", "remain", "test")


def activation_distance(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the L2 distance [n] of the softmax outputs of logits a and b [n, classes], clip by clip.

    Between 0 and sqrt(2) (Golatkar et al. 2020, "Forgetting outside the box").
    """
    first, second = _pair(a, b)
    return np.linalg.norm(softmax(first) - softmax(second), axis=1)


def js_divergence(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the Jensen-Shannon divergence [n] in nats of the softmax of logits a and b [n, classes].

    Half KL(p, m) plus half KL(q, m) with m = (p + q) / 2 (Lin 1991); symmetric, between 0 and ln 2. With
    x = (log p - log q) / 2 it is the sum over classes of m (x tanh x - log cosh x): every term is bounded by
    0 and m ln 2, so that neither tiny probabilities nor equal outputs lose their digits.
    """
    first, second = _pair(a, b)
    log_p, log_q = log_softmax(first, axis=1), log_softmax(second, axis=1)
    x = np.abs(log_p - log_q) / 2
    log_cosh = x + np.log1p(np.exp(-2 * x)) - np.log(2)
    mixture = (np.exp(log_p) + np.exp(log_q)) / 2
    return np.clip((mixture * (x * np.tanh(x) - log_cosh)).sum(axis=1), 0.0, np.log(2))


def distances(logits: ArrayLike, reference_logits: ArrayLike) -> dict[str, float]:
    """Return the mean {activation, js} over clips between two networks; {} when there are no clips."""
    if len(_pair(logits, reference_logits)[0]) == 0:
        return {}
    return {
        "activation": float(activation_distance(logits, reference_logits).mean()),
        "js": float(js_divergence(logits, reference_logits).mean()),
    }


def tug_of_war(accuracies: Mapping[str, float], reference: Mapping[str, float]) -> float | None:
    """Return the tug of war, the product over forget, remain and test of 1 - |accuracy - reference|.

    Accuracies are fractions of the unlearned and of the retrained network; 1 is best (Zhao et al. 2024, "What
    makes unlearning hard and what to do about it"). None when a set is missing on either side.
    """
    if any(name not in side for side in (accuracies, reference) for name in TUG_OF_WAR_SETS):
        return None
    for side in (accuracies, reference):
        for name in TUG_OF_WAR_SETS:
            if not 0 <= side[name] <= 1:
                raise ValueError(f"accuracies must be fractions 0-1, got {side[name]} for {name}")
    gaps = [abs(accuracies[name] - reference[name]) for name in TUG_OF_WAR_SETS]
    return float(np.prod([1 - gap for gap in gaps]))


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = as_logits(a), as_logits(b)
    if first.shape != second.shape:
        raise ValueError(f"logits must have one shape, got {first.shape} and {second.shape}")
    return first, second
