"""Is a method equivalent to retraining? Two one-sided tests over many seeds, recordings and people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from audio_mu.audit.certainty import squared_sum_error
from audio_mu.audit.performance import Floats

LEAST_PEOPLE = 10
"""People below which another draw of people is not what is asked: their recordings count one by one."""


@dataclass(frozen=True)
class Gap:
    """A method's mean difference from naive, with its standard error and the degrees of freedom behind that."""

    mean: float
    error: float
    degrees: int


def mean_gap(differences: ArrayLike, people: Sequence[str]) -> Gap:
    """Return the mean of differences [seeds, n] of a method and naive on the same n recordings, and how sure it is.

    people [n]: who speaks each recording; an empty name is nobody else's. Two sources of chance are added: the seeds,
    and the people with all their recordings, as other seeds and other people would differ. Their common part is counted
    twice, so that the error is never too small (Owen 2007, "The pigeonhole bootstrap"). Of fewer than ten people the
    recordings are what would differ: a request for one person is about no other. Two seeds and two recordings are
    needed, ValueError below.
    """
    values = np.asarray(differences, dtype=np.float64)
    degrees = _degrees(values, people)
    weights = values.mean(axis=0) / values.shape[1]
    squared = _of_seeds(values.mean(axis=1)) + squared_sum_error(weights - weights.mean(), _names(people))
    return Gap(float(values.mean()), _error(squared, values.size), degrees)


def auc_gap(members: ArrayLike, nonmembers: ArrayLike, people: Sequence[str], others: Sequence[str]) -> Gap:
    """Return the mean difference of the attack's AUC from naive's, and how sure it is.

    members [seeds, m], nonmembers [seeds, n]: differences of their `placements` (DeLong et al. 1988), the shares of the
    other side that lie above or below each; their means are the AUC's difference. people [m], others [n]: who speaks
    them. Chance as in `mean_gap`, with the people of both sides.
    """
    above, below = np.asarray(members, dtype=np.float64), np.asarray(nonmembers, dtype=np.float64)
    degrees = min(_degrees(above, people), _degrees(below, others))
    each = np.concatenate([above.mean(axis=0) / above.shape[1], below.mean(axis=0) / below.shape[1]])
    # A side's own mean is taken off, else whoever speaks more recordings would seem to differ.
    sizes = [above.shape[1], below.shape[1]]
    centres = np.repeat([above.mean() / sizes[0], below.mean() / sizes[1]], sizes)
    units = [*_names(people), *_names(others, len(people))]  # a person on both sides is one, a recording on none
    squared = _of_seeds(above.mean(axis=1)) + squared_sum_error(each - centres, units)
    return Gap(float(above.mean()), _error(squared, min(above.size, below.size)), degrees)


def p_within(gap: Gap, low: float, high: float) -> float:
    """Return the p value of the null that the true difference lies outside of low..high (Schuirmann 1987).

    The larger of two one-sided t tests; low may be -inf, or high inf, for a limit on one side.
    """
    below, above = (gap.mean - low) / gap.error, (high - gap.mean) / gap.error
    return float(max(scipy.stats.t.sf(below, gap.degrees), scipy.stats.t.sf(above, gap.degrees)))


def p_beyond(gap: Gap, low: float, high: float) -> float:
    """Return the p value of the null that the true difference lies within low..high: of the nearer end, doubled."""
    below, above = (low - gap.mean) / gap.error, (gap.mean - high) / gap.error
    return float(min(1.0, 2 * min(scipy.stats.t.sf(below, gap.degrees), scipy.stats.t.sf(above, gap.degrees))))


def _of_seeds(means: Floats) -> float:
    return float(means.var(ddof=1) / len(means))


def _error(squared: float, answers: int) -> float:
    """Never 0: networks that agree on all that was asked may differ on the next answer."""
    return float(np.sqrt(max(squared, 0.0) + (1 / (answers + 2)) ** 2))


def _degrees(values: Floats, people: Sequence[str]) -> int:
    n = min(len(values), len({*_names(people)}))
    if n < 2:
        raise ValueError(f"need two seeds and two recordings, got {len(values)} and {values.shape[1]}")
    return n - 1


def _names(people: Sequence[str], first: int = 0) -> list[str]:
    """Who or what another draw would replace: people, or recordings where few people or none are known.

    `first`: the number of the first recording.
    """
    few = len({*people} - {""}) < LEAST_PEOPLE
    return [str(place) if few or not name else f"person {name}" for place, name in enumerate(people, first)]
