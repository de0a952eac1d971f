"""The attack on altered copies, on logits whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from audio_mu.audit.robust import PLAIN, robust_figures

N = 200


def logits_of(margins: np.ndarray) -> np.ndarray:
    """Of two classes, the first one right by these margins."""
    return np.stack([margins, np.zeros_like(margins)], axis=1)


def test_known_answers() -> None:
    """Catches members taken for the others, an AUC of the wrong copies, and a mean that leaves the recording out."""
    draw = np.random.default_rng(0)
    members, labels = np.arange(2 * N) < N, np.zeros(2 * N, dtype=np.int64)
    plain = draw.normal(size=2 * N) + 2 * members  # known as it is
    mp3 = draw.normal(size=2 * N) + 1 * members  # and a little as MP3
    noise = draw.normal(size=2 * N)  # and not at all in noise
    figures = robust_figures({PLAIN: logits_of(plain), "mp3": logits_of(mp3), "noise": logits_of(noise)}, labels, N)
    assert set(figures) == {
        f"robust/{name}" for name in ("mp3_auc", "noise_auc", "mean_auc", "mp3_accuracy", "noise_accuracy")
    }
    assert figures["robust/mp3_auc"] == pytest.approx(roc_auc_score(members, mp3))
    assert figures["robust/noise_auc"] == pytest.approx(roc_auc_score(members, noise))
    losses = np.mean([np.logaddexp(0, -of) for of in (plain, mp3, noise)], axis=0)
    assert figures["robust/mean_auc"] == pytest.approx(roc_auc_score(members, -losses))
    assert figures["robust/mp3_accuracy"] == pytest.approx((mp3[:N] > 0).mean())


def test_without_nonmembers_there_is_no_attack() -> None:
    """Catches an AUC of nothing."""
    logits = logits_of(np.ones(3))
    assert robust_figures({PLAIN: logits, "mp3": logits}, np.zeros(3, dtype=np.int64), 3) == {
        "robust/mp3_accuracy": 1.0
    }
