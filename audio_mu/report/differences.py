"""A method's differences from naive, and how sure they are: over its seeds, and over the recordings at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import hypot

from audio_mu.audit.statistics import pooled
from audio_mu.report.facts import Estimate, Figures


@dataclass(frozen=True)
class Difference:
    """A difference between two models, averaged over the seeds.

    mean, half: with the half-width of its interval, None where nothing says it. typical: size of one model's
    difference: the mean, with the scatter between models where the sampling of recordings surely does not explain it.
    sampling: what the recordings alone contribute to `half`, None where it is not known. by_seed: seed → (difference,
    half-width of its interval from the recordings).
    """

    mean: float
    half: float | None
    typical: float
    sampling: float | None = None
    by_seed: Mapping[int, tuple[float, float]] = field(default_factory=dict)


def from_naive(figures: Figures, figure: str, confidence: float = 0.95) -> Difference | None:
    """A method's difference from naive in a figure (`forget_accuracy`, `mia_auc`), None where it has none."""
    gap = figures.get(f"gap/{figure}")
    return None if gap is None else _difference(gap, figures.get(f"error/{figure}"), confidence)


def from_half_way(figures: Figures, original: Figures, figure: str, confidence: float = 0.95) -> Difference | None:
    """A method's difference from the middle between naive and the original: below 0 it is nearer to naive.

    None where one of them has no difference from naive.
    """
    own, before = figures.get(f"gap/{figure}"), original.get(f"gap/{figure}")
    if own is None or before is None:
        return None
    common = own.by_seed.keys() & before.by_seed.keys()
    if common:
        by_seed = {seed: own.by_seed[seed] - before.by_seed[seed] / 2 for seed in common}
        mean = sum(by_seed.values()) / len(by_seed)
        gap = Estimate(mean, None, None, len(by_seed), by_seed)
        return _difference(gap, figures.get(f"error/half_{figure}"), confidence)
    halves = [_half(own), _half(before)]
    half = hypot(halves[0], halves[1] / 2) if halves[0] is not None and halves[1] is not None else None
    return Difference(own.mean - before.mean / 2, half, abs(own.mean - before.mean / 2))


def _difference(gap: Estimate, error: Estimate | None, confidence: float) -> Difference:
    if not gap.by_seed:
        return Difference(gap.mean, _half(gap), abs(gap.mean))
    errors = (
        [error.by_seed[seed] for seed in gap.by_seed] if error and gap.by_seed.keys() <= error.by_seed.keys() else None
    )
    found = pooled(list(gap.by_seed.values()), errors, confidence)
    by_seed = {}
    if errors is not None:
        each = [pooled([value], [own], confidence) for value, own in zip(gap.by_seed.values(), errors, strict=True)]
        by_seed = {seed: (one.mean, one.half or 0.0) for seed, one in zip(gap.by_seed, each)}
    typical = hypot(found.mean, found.between**0.5 if found.scattered else 0.0)
    return Difference(found.mean, found.half, typical, found.sampling, by_seed)


def _half(estimate: Estimate) -> float | None:
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2
