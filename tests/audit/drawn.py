"""Confidences of models that are drawn, so that it is known what each of them has learnt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audio_mu.audit.references import References


@dataclass(frozen=True)
class Drawn:
    """Recordings of own difficulty, how much learning one raises its confidence, and how it scatters."""

    hard: np.ndarray
    gap: np.ndarray
    scatter: np.ndarray
    member: np.ndarray
    phi: np.ndarray
    draw: np.random.Generator

    def target(self, learnt: np.ndarray) -> np.ndarray:
        """Confidences under one more model, which has learnt these recordings [n]."""
        return self.hard + self.gap * learnt + self.scatter * self.draw.normal(size=len(learnt))

    def references(self, people: int | None = None) -> References:
        n = len(self.hard)
        names = np.array([f"p{i % people}" if people else "" for i in range(n)])
        ids = np.array([f"{i:05d}.wav" for i in range(n)])
        return References("speaker" if people else "clip", ids, names, np.ones(n, bool), self.phi, self.member)


def drawn(n: int, models: int, seed: int, people: int | None = None, gap: float = 1.0) -> Drawn:
    """Pairs of complementary halves of the recordings, or of people who have every so many of them."""
    draw = np.random.default_rng(seed)
    units = np.arange(n) % (people or n)
    member = np.zeros((models, n), dtype=bool)
    for model in range(0, models, 2):
        half = (draw.permutation(people or n) < (people or n) // 2)[units]
        member[model], member[model + 1] = half, ~half
    hard, raised, scatter = draw.normal(2, 1.5, n), np.abs(draw.normal(gap, gap, n)), draw.uniform(0.5, 1.5, n)
    return Drawn(hard, raised, scatter, member, hard + raised * member + scatter * draw.normal(size=(models, n)), draw)
