"""KLoM: how far a clip's margins under unlearned networks are from those under retrained ones, over many seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from audio_mu.audit.performance import Floats

BINS, FLOOR, LARGEST_MARGIN = 20, 1e-5, 100.0  # as published
VARIANCE_FLOOR = 1e-4  # as in U-LiRA: networks that agree more closely would turn rounding into certainty
PERCENTILE = 95.0


@dataclass(frozen=True)
class Spread:
    """Mean and 95th percentile over clips."""

    mean: float
    high: float


def klom(unlearned: ArrayLike, retrained: ArrayLike) -> Floats:
    """Return KL(unlearned || retrained) [n], in nats, of each clip's margins under some networks and under others.

    unlearned [m, n], retrained [k, n]: margins, the logit of the true class less the logsumexp of the others. Georgiev
    et al. 2024, "Attribute-to-Delete: machine unlearning via datamodel matching": 20 bins of equal width over the
    range of both, margins cut at 100, an empty bin of the retrained counted as 1e-5. The last bin holds its upper end.
    With fewer networks than bins the value is mostly that of the floor: read it beside `halves`. Raises ValueError for
    shapes that differ in n, and for margins that are not numbers.
    """
    ours, theirs = (np.clip(_margins(side), -LARGEST_MARGIN, LARGEST_MARGIN) for side in (unlearned, retrained))
    low, high = (of(np.concatenate([ours, theirs]), axis=0) for of in (np.min, np.max))
    width = np.where(high > low, (high - low) / BINS, 1.0)
    p, q = (_shares(side, low, width) for side in (ours, theirs))
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log(p / np.maximum(q, FLOOR)), 0.0)
    return np.asarray(parts.sum(axis=0))


def gaussian_klom(unlearned: ArrayLike, retrained: ArrayLike) -> Floats:
    """Return the same divergence [n] between the two normal distributions with each side's mean and variance.

    For fewer networks than a histogram needs; variances have ddof 1 and a floor. Needs two networks a side.
    """
    ours, theirs = _margins(unlearned), _margins(retrained)
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"need two networks on each side for a variance, got {len(ours)} and {len(theirs)}")
    p, q = (np.maximum(side.var(axis=0, ddof=1), VARIANCE_FLOOR) for side in (ours, theirs))
    apart = (ours.mean(axis=0) - theirs.mean(axis=0)) ** 2
    return np.asarray((np.log(q / p) + (p + apart) / q - 1) / 2)


def halves(unlearned: ArrayLike, retrained: ArrayLike) -> Floats:
    """Return KLoM [n] between independent halves: unlearned networks of every second seed, retrained of the others.

    unlearned, retrained [k, n] of the same seeds in one order. The mean of both ways. With retrained networks on both
    sides it is the null, of as many networks and as independent, which the published value of paired seeds lacks.
    Needs two seeds.
    """
    ours, theirs = _margins(unlearned), _margins(retrained)
    if ours.shape != theirs.shape or len(ours) < 2:
        raise ValueError(f"need the same two seeds or more on both sides, got {ours.shape} and {theirs.shape}")
    return np.asarray((klom(ours[::2], theirs[1::2]) + klom(ours[1::2], theirs[::2])) / 2)


def spread(values: ArrayLike) -> Spread:
    """Return what is told of the clips' divergences [n]."""
    clips = np.asarray(values, dtype=np.float64)
    return Spread(float(clips.mean()), float(np.percentile(clips, PERCENTILE)))


def _margins(side: ArrayLike) -> Floats:
    values = np.asarray(side, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"margins must have shape [networks, clips], got {values.shape}")
    if np.isnan(values).any():
        raise ValueError("margins must be numbers")
    return values


def _shares(side: Floats, low: Floats, width: Floats) -> Floats:
    """Share of a side's networks in each bin [BINS, n]."""
    bins = np.minimum(((side - low) / width).astype(np.int64), BINS - 1)
    return np.asarray((bins[None] == np.arange(BINS)[:, None, None]).mean(axis=1))
