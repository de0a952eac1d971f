"""Leave-one-seed-out U-LiRA: can unlearned networks be told from retrained ones, clip by clip?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from audio_mu.audit.performance import Floats, logit_scaled_confidence
from audio_mu.audit.population import auc_interval
from audio_mu.audit.statistics import Interval, t_interval
from audio_mu.errors import UserError

# A standard deviation of 0.01 nat: networks that agree on a clip more closely than that (or exactly, as copies
# do) would otherwise turn rounding into certainty.
VARIANCE_FLOOR = 1e-4


@dataclass(frozen=True)
class UliraResult:
    """Log-likelihood ratios of every left-out seed and how well they tell U_s from R_s.

    scores_unlearned, scores_retrained [seeds, n]: log density of the clip's confidence under the unlearned
    networks of the other seeds minus that under the retrained ones; positive speaks for unlearned.
    auc, accuracy [seeds]: over all clips of the left-out pair; 0.5 when the two cannot be told apart.
    """

    seeds: tuple[int, ...]
    scores_unlearned: Floats
    scores_retrained: Floats
    auc: Floats
    accuracy: Floats

    def auc_over_seeds(self) -> Interval:
        """Return the mean AUC with its t interval; left-out seeds share networks, so it is a rough one."""
        return t_interval(self.auc)


def ulira(
    unlearned_logits: Mapping[int, ArrayLike], retrained_logits: Mapping[int, ArrayLike], labels: ArrayLike
) -> UliraResult:
    """Attack every seed with Gaussians fitted to the other seeds (after Hayes et al. 2024, U-LiRA).

    unlearned_logits, retrained_logits: per seed the logits [n, classes] of the forget clips; labels [n].
    Takes logits and not correctness, for which a Gaussian has no meaning: the confidence is
    phi = z_y - logsumexp of the other logits. For the left-out seed s and each clip, phi of the other seeds'
    unlearned and retrained networks give two means and one variance pooled over both (at least
    VARIANCE_FLOOR); a network is called unlearned where its ratio is positive, ties count half. Raises
    UserError with fewer than three common seeds (no variance), ValueError without clips.
    """
    seeds = tuple(sorted(set(unlearned_logits) & set(retrained_logits)))
    if len(seeds) < 3:
        raise UserError(f"U-LiRA needs 3 seeds with both networks, found {list(seeds)}; run more seeds")
    unlearned = np.stack([logit_scaled_confidence(unlearned_logits[seed], labels) for seed in seeds])
    retrained = np.stack([logit_scaled_confidence(retrained_logits[seed], labels) for seed in seeds])
    if unlearned.shape[1] == 0:
        raise ValueError("U-LiRA needs clips, got none")
    pairs = [_left_out_scores(unlearned, retrained, index) for index in range(len(seeds))]
    # auc_interval gives P(first < second): the retrained network's ratio should be the lower one.
    return UliraResult(
        seeds=seeds,
        scores_unlearned=np.stack([pair[0] for pair in pairs]),
        scores_retrained=np.stack([pair[1] for pair in pairs]),
        auc=np.array([auc_interval(pair[1], pair[0])[0] for pair in pairs]),
        accuracy=np.array([_accuracy(*pair) for pair in pairs]),
    )


def _left_out_scores(unlearned: Floats, retrained: Floats, left_out: int) -> tuple[Floats, Floats]:
    others_unlearned = np.delete(unlearned, left_out, axis=0)
    others_retrained = np.delete(retrained, left_out, axis=0)
    variance = (others_unlearned.var(axis=0, ddof=1) + others_retrained.var(axis=0, ddof=1)) / 2
    variance = np.maximum(variance, VARIANCE_FLOOR)
    mean_unlearned, mean_retrained = others_unlearned.mean(axis=0), others_retrained.mean(axis=0)
    # With one variance the difference of the two log densities is linear in phi.
    slope, middle = (mean_unlearned - mean_retrained) / variance, (mean_unlearned + mean_retrained) / 2
    return slope * (unlearned[left_out] - middle), slope * (retrained[left_out] - middle)


def _accuracy(unlearned: Floats, retrained: Floats) -> float:
    return float(np.mean([(1 + np.sign(unlearned)) / 2, (1 - np.sign(retrained)) / 2]))
