"""Offline RMIA: has the audited network raised a clip above others, as measured by reference networks?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audio_mu.audit.performance import Floats
from audio_mu.audit.population import PopulationResult, population_attack
from audio_mu.errors import UserError


def halve(held_out_n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split held-out clips 0..held_out_n - 1 at random into (population z, negatives), both sorted.

    Disjoint, so that no clip is compared with itself. An odd clip goes to the negatives. Raises UserError for
    fewer than two clips.
    """
    if held_out_n < 2:
        raise UserError(
            f"RMIA needs at least 2 held-out clips, this request leaves {held_out_n}; "
            "use a split that keeps test clips of the same distribution"
        )
    order = np.random.default_rng(seed).permutation(held_out_n)
    return np.sort(order[: held_out_n // 2]), np.sort(order[held_out_n // 2 :])


def likelihood_ratio(p_target: ArrayLike, p_references: ArrayLike, a: float = 0.3) -> Floats:
    """Return ratio [n] = p / (((1 + a) mean over references of p_ref + (1 - a)) / 2).

    p_target [n]: probability of the true class under the audited network; p_references [n_references, n]:
    under networks not trained on the clips. The denominator estimates the mean over networks with and without
    the clip from those without it, a being the assumed slope (Zarifzadeh et al. 2024, "Low-cost high-power
    membership inference attacks", offline form). Raises ValueError for shapes that differ and for values
    outside 0..1.
    """
    target, references = np.asarray(p_target, np.float64), np.asarray(p_references, np.float64)
    if target.ndim != 1 or references.shape != (len(references), len(target)) or not len(references):
        raise ValueError(f"need p_target [n], p_references [r, n], got {target.shape}, {references.shape}")
    if not 0 <= a <= 1:
        raise ValueError(f"a must lie in 0..1, got {a}")
    for values in (target, references):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("probabilities must lie in 0..1: pass softmax values of the true class")
    return target / (((1 + a) * references.mean(axis=0) + (1 - a)) / 2)


def rmia_scores(ratios: ArrayLike, population_ratios: ArrayLike, gamma: float = 1.0) -> Floats:
    """Return the score [n] of each clip, the share of population clips with ratio(x) / ratio(z) >= gamma.

    ratios [n] and population_ratios [m] come from `likelihood_ratio`; high scores speak for membership.
    Counted in the sorted population: memory grows with n + m, not with n m. Raises ValueError for m = 0.
    """
    clips, population = np.asarray(ratios, np.float64), np.asarray(population_ratios, np.float64)
    if not len(population):
        raise ValueError("RMIA needs population clips, got none")
    if gamma <= 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    return np.searchsorted(np.sort(gamma * population), clips, side="right") / len(population)


def rmia_attack(
    p_target: ArrayLike,
    p_references: ArrayLike,
    members: ArrayLike,
    p_target_population: ArrayLike,
    p_references_population: ArrayLike,
    *,
    a: float = 0.3,
    gamma: float = 1.0,
) -> tuple[Floats, PopulationResult]:
    """Return (scores [n], how well they tell members from negatives).

    p_target [n], p_references [n_references, n]: probabilities of the true class for the forget clips and the
    negatives; members [n] bool: which are forget clips. p_target_population [m], p_references_population
    [n_references, m]: the same for population clips z. References: the other seeds' retrained networks.
    """
    is_member = np.asarray(members)
    if is_member.dtype != bool or is_member.shape != np.shape(p_target):
        raise ValueError(f"members must be bool like p_target, got {is_member.dtype} {is_member.shape}")
    scores = rmia_scores(
        likelihood_ratio(p_target, p_references, a),
        likelihood_ratio(p_target_population, p_references_population, a),
        gamma,
    )
    # The population attack reads "low is member", as losses are; a score is the opposite.
    return scores, population_attack(-scores[is_member], -scores[~is_member])
