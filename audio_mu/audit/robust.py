"""The membership attack on altered copies: whether a model knows a recording that comes as MP3, noisy or trimmed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from audio_mu.audit.performance import as_logits, cross_entropy
from audio_mu.audit.population import population_attack

PLAIN = "plain"
"""The name of the recordings themselves among their copies."""


def robust_figures(logits: Mapping[str, np.ndarray], labels: np.ndarray, n_members: int) -> dict[str, float]:
    """Metrics of one model: robust/<alteration>_accuracy and robust/<alteration>_auc, and robust/mean_auc.

    logits: name of an alteration, and `PLAIN`, → [n, classes] of the copies of n clips, the first n_members of which
    are of the forget set and the others non-members; labels [n]. The AUC is that of `population_attack`, members
    against non-members that were altered alike. robust/mean_auc: the same by the mean loss over a recording and its
    copies, as attacks with several queries of one recording do (Choquette-Choo et al. 2021, "Label-only membership
    inference attacks"; Carlini et al. 2022, section VI-C). Without non-members there is no AUC.
    """
    losses = {name: cross_entropy(found, labels) for name, found in logits.items()}
    figures = {}
    for name in logits.keys() - {PLAIN}:
        right = as_logits(logits[name]).argmax(axis=1) == labels
        figures[f"robust/{name}_accuracy"] = float(right[:n_members].mean())
    attacked = {name: values for name, values in losses.items() if name != PLAIN}
    attacked["mean"] = np.mean(list(losses.values()), axis=0)
    for name, values in attacked.items():
        auc = population_attack(values[:n_members], values[n_members:]).auc
        figures |= {} if auc is None else {f"robust/{name}_auc": auc}
    return figures
