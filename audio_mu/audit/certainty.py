"""How well one model's differences from others are known: standard errors over recordings, and the worst group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from audio_mu.audit.performance import Floats

LEAST_OF_A_GROUP = 10
"""Recordings of a class or of a speaker below which its accuracy says nothing."""


@dataclass(frozen=True)
class WorstGroup:
    """The group that has surely lost the most.

    gap: its mean difference, negative for a loss; high: the upper end of its 95 % interval, which holds for all groups
    at once; n: its recordings; of: groups that were looked at.
    """

    name: str
    gap: float
    high: float
    n: int
    of: int


def majority_share(labels: ArrayLike) -> float:
    """Return the share of the largest class among labels [n]: the accuracy of a model that has learned nothing else."""
    counts = np.bincount(np.asarray(labels, dtype=np.int64))
    return float(counts.max() / counts.sum())


def paired_error(differences: ArrayLike) -> float:
    """Return the standard error of the mean of differences [n] on the same recordings, n >= 1.

    As Agresti and Min (2005) have it for right and wrong answers: half a recording is added to each of the four ways in
    which two models may answer, sqrt(sum of squares + 1) / (n + 2). Never 0: models that agree on all of a few
    recordings may differ on the next.
    """
    values = np.asarray(differences, dtype=np.float64)
    return float(np.sqrt(((values - values.mean()) ** 2).sum() + 1) / (len(values) + 2))


def auc_error(weighted: Sequence[tuple[float, Floats, Floats]]) -> float:
    """Return the standard error of a weighted sum of AUCs of several models on the same recordings.

    weighted: a weight and the `placements` of members [m] and non-members [n] of each model; m, n >= 1. The errors are
    correlated, by DeLong et al. (1988). At least half the weight of a recording of the smaller side: where every
    placement is the same, theirs is 0.
    """
    above = np.sum([weight * of_members for weight, of_members, _ in weighted], axis=0)
    below = np.sum([weight * of_nonmembers for weight, _, of_nonmembers in weighted], axis=0)
    least = 0.5 / (min(len(above), len(below)) + 1)
    if min(len(above), len(below)) < 2:
        return least
    return max(least, float(np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))))


def worst_group(differences: Floats, groups: Sequence[str], least: int = LEAST_OF_A_GROUP) -> WorstGroup | None:
    """Return the group whose mean of differences [n] is surely the lowest, None where no group is large enough.

    groups [n]: names, empty for recordings of no known group. Groups of fewer than `least` recordings do not count. The
    intervals hold together (Bonferroni): among many groups one looks bad by chance.
    """
    names, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.bincount(places, minlength=len(names))
    counted = [i for i in range(len(names)) if names[i] and counts[i] >= least]
    if not counted:
        return None
    z = float(ndtri(1 - 0.025 / len(counted)))
    found = []
    for i in counted:
        own = differences[places == i]
        gap = float(own.mean())
        found.append(WorstGroup(str(names[i]), gap, gap + z * paired_error(own), len(own), len(counted)))
    return min(found, key=lambda group: (group.high, group.gap))
