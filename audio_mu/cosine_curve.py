"""The curve c(r) of a pruned network's likeness to itself, and the rates at which the study cuts it."""

from __future__ import annotations

import numpy as np

RATES = np.arange(101) / 100
"""The rates r at which a curve [101] is known."""


def cosine_cut(cosine: np.ndarray) -> float:
    """The rate whose point (r, c(r)) is nearest to the utopia point (1, 1)."""
    return float(RATES[np.argmin(np.hypot(RATES - 1, cosine - 1))])


def orthogonal_cut(cosine: np.ndarray) -> float:
    """The rate whose point (r, c(r)) is farthest from (0, 0)."""
    return float(RATES[np.argmax(np.hypot(RATES, cosine))])


def post_optimal_cut(cosine: np.ndarray) -> float:
    """The rate whose point (r, c(r)) is farthest from (-1, 0)."""
    return float(RATES[np.argmax(np.hypot(RATES + 1, cosine))])


CUTS = {"cosine": cosine_cut, "orthogonal": orthogonal_cut, "post_optimal": post_optimal_cut}
