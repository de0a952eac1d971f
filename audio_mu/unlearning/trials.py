"""Configurations of a method that `tune` tries: drawn from the ranges that the method declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from audio_mu.seeding import derive
from audio_mu.system.hashing import canonical_json
from audio_mu.unlearning.search import Range

ATTEMPTS = 20  # draws for each trial before a search space counts as exhausted

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One configuration of a method. Number 0 is the method as it comes; `values` holds what differs from that."""

    method: str
    number: int
    values: Values

    @property
    def key(self) -> str:
        """The same for equal configurations of a method."""
        return canonical_json([self.method, dict(self.values)])


def draw_trials(method: str, ranges: Mapping[str, Range], n: int, recipe_rate: float, seed: int) -> list[Trial]:
    """The method as it comes, then n - 1 different draws, fewer where the ranges hold no more.

    The draws depend on the seed, the method and their number alone: a longer search goes on where a shorter ended.
    """
    trials, seen = [Trial(method, 0, {})], {canonical_json({})}
    generator = np.random.default_rng(derive(seed, "tune", method))
    for _ in range(ATTEMPTS * n):
        if len(trials) >= n:
            break
        values = {name: value_range.draw(generator, recipe_rate) for name, value_range in ranges.items()}
        key = canonical_json(values)
        if key not in seen:
            seen.add(key)
            trials.append(Trial(method, len(trials), values))
    return trials
