"""How well one model's differences from others are known: standard errors over recordings, and the worst group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from audio_mu.audit.performance import Floats, Integers

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


def paired_error(differences: ArrayLike, recordings: ArrayLike | None = None) -> float:
    """Return the standard error of the mean of differences [n] on the same clips, n >= 1.

    As Agresti and Min (2005) have it for right and wrong answers: half a recording is added to each of the four ways in
    which two models may answer, sqrt(sum of squares + 1) / (n + 2). Never 0: models that agree on all of a few
    recordings may differ on the next. recordings [n]: the number of each clip's recording, whose clips stand or fall
    together; without it each clip is one.
    """
    values = np.asarray(differences, dtype=np.float64)
    sums = _of_recordings(values - values.mean(), recordings) * _n_recordings(values, recordings) / len(values)
    return float(np.sqrt((sums**2).sum() + 1) / (len(sums) + 2))


def _of_recordings(deviations: Floats, recordings: ArrayLike | None) -> Floats:
    """The sums of deviations [n] over the clips of each recording."""
    if recordings is None:
        return deviations
    return np.asarray(np.bincount(np.unique(recordings, return_inverse=True)[1], weights=deviations), dtype=np.float64)


def _n_recordings(values: Floats, recordings: ArrayLike | None) -> int:
    return len(values) if recordings is None else len(np.unique(recordings))


def squared_sum_error(deviations: Floats, units: ArrayLike | None) -> float:
    """Return the variance of the sum of deviations [n], of which those of one unit [n] stand or fall together."""
    sums = _of_recordings(deviations, units)
    return float((sums**2).sum() * len(sums) / (len(sums) - 1))


def _squared_error(values: Floats, recordings: ArrayLike | None) -> float:
    """The variance of a mean of values [n], of which those of one recording stand or fall together."""
    return squared_sum_error(values - values.mean(), recordings) / len(values) ** 2


def auc_error(
    weighted: Sequence[tuple[float, Floats, Floats]],
    recordings: tuple[ArrayLike, ArrayLike] | tuple[None, None] = (None, None),
) -> float:
    """Return the standard error of a weighted sum of AUCs of several models on the same recordings.

    weighted: a weight and the `placements` of members [m] and non-members [n] of each model; m, n >= 1. The errors are
    correlated, by DeLong et al. (1988). At least half the weight of a recording of the smaller side: where every
    placement is the same, theirs is 0. recordings: of members [m] and non-members [n] the numbers of their recordings,
    whose clips stand or fall together (Obuchowski 1997); without them each clip is one.
    """
    above = np.sum([weight * of_members for weight, of_members, _ in weighted], axis=0)
    below = np.sum([weight * of_nonmembers for weight, _, of_nonmembers in weighted], axis=0)
    smaller = min(_n_recordings(side, of) for side, of in zip((above, below), recordings))
    least = 0.5 / (smaller + 1)
    if smaller < 2:
        return least
    squared = sum(_squared_error(side, of) for side, of in zip((above, below), recordings))
    return max(least, float(np.sqrt(squared)))


def worst_group(
    differences: Floats, groups: Sequence[str], least: int = LEAST_OF_A_GROUP, recordings: Integers | None = None
) -> WorstGroup | None:
    """Return the group whose mean of differences [n] is surely the lowest, None where no group is large enough.

    groups [n]: names, empty for recordings of no known group; recordings [n] as in `paired_error`. Groups of fewer than
    `least` recordings do not count. The
    intervals hold together (Bonferroni): among many groups one looks bad by chance.
    """
    names, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    of = np.arange(len(differences)) if recordings is None else recordings
    counts = [len(np.unique(of[places == i])) for i in range(len(names))]
    counted = [i for i in range(len(names)) if names[i] and counts[i] >= least]
    if not counted:
        return None
    z = float(ndtri(1 - 0.025 / len(counted)))
    found = []
    for i in counted:
        own = differences[places == i]
        gap, error = float(own.mean()), paired_error(own, of[places == i])
        found.append(WorstGroup(str(names[i]), gap, gap + z * error, counts[i], len(counted)))
    return min(found, key=lambda group: (group.high, group.gap))
