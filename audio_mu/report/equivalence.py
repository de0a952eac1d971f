"""Which methods are equivalent to retraining, and which are surely not: the rule's limits as tests, with many seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from audio_mu.audit.equivalence import Gap, p_beyond, p_within
from audio_mu.audit.statistics import holm
from audio_mu.report.facts import Figures
from audio_mu.report.limits import Limit

LEVEL = 0.05
PARTS = [part.name for part in fields(Gap)]
COLUMNS = ["method", "figure", "difference", "error", "degrees", "low", "high", "p_within", "p_beyond"]


@dataclass(frozen=True)
class Equivalence:
    """Tests of one method's differences from naive against the limits, adjusted for the methods beside it.

    p_equivalent: of the null that some figure lies beyond its limit; p_beyond: of the null that all lie within.
    rows: the unadjusted tests of each figure, as `COLUMNS` without the method.
    """

    p_equivalent: float
    p_beyond: float
    rows: tuple[tuple[str, float, float, int, float, float, float, float], ...] = ()

    @property
    def words(self) -> str:
        """The outcome of the tests."""
        if self.p_equivalent < LEVEL:
            return "equivalent to retraining"
        return "surely beyond a limit" if self.p_beyond < LEVEL else "not settled"


def equivalence(figures: Figures, limits: Mapping[str, Limit]) -> Equivalence | None:
    """The tests of one method by itself; None with fewer seeds than they are made for.

    Every figure has to lie within (intersection-union: the largest p value counts, unadjusted); any one beyond is
    enough for the opposite (the smallest, times the number of figures).
    """
    rows = []
    for name, limit in limits.items():
        known = [figures[key].mean for part in PARTS if (key := f"sure/{name}_{part}") in figures]
        if len(known) == len(PARTS):
            gap = Gap(known[0], known[1], int(known[2]))
            low, high = -limit.allowed, np.inf if limit.one_sided else limit.allowed
            tests = p_within(gap, low, high), p_beyond(gap, low, high)
            rows.append((name, gap.mean, gap.error, gap.degrees, low, high, *tests))
        elif f"gap/{name}" in figures:  # a figure of the rule that is not tested: nothing follows of the others
            return None
    if not rows:
        return None
    return Equivalence(max(row[-2] for row in rows), min(1.0, len(rows) * min(row[-1] for row in rows)), tuple(rows))


def of_many(alone: Equivalence, compared: int) -> Equivalence:
    """The tests of the method that was chosen among so many, by figures that are not at hand (Bonferroni)."""
    return Equivalence(min(1.0, compared * alone.p_equivalent), min(1.0, compared * alone.p_beyond), alone.rows)


def adjusted(found: Mapping[str, Equivalence]) -> dict[str, Equivalence]:
    """The tests of several methods, each question's p values adjusted for all of them (Holm 1979)."""
    equivalent = holm([own.p_equivalent for own in found.values()])
    beyond = holm([own.p_beyond for own in found.values()])
    return {
        method: Equivalence(float(one), float(other), own.rows)
        for (method, own), one, other in zip(found.items(), equivalent, beyond, strict=True)
    }


def tested_table(found: Mapping[str, Equivalence]) -> pd.DataFrame:
    """One row for each method and figure, with the method's adjusted p values and what follows."""
    rows = [
        (method, *row, own.p_equivalent, own.p_beyond, own.words) for method, own in found.items() for row in own.rows
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "p_equivalent_holm", "p_beyond_holm", "outcome"])
