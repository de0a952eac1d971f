"""Audits of one cell that need several seeds' networks, from stored logits; the figures come from the audit package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from audio_mu.audit.distances import activation_distance, js_divergence
from audio_mu.audit.epsilon import EpsilonBound, epsilon_bound
from audio_mu.audit.performance import cross_entropy, logit_scaled_confidence
from audio_mu.audit.rmia import halve, rmia_attack
from audio_mu.audit.ulira import ulira

NAIVE, FLOOR = "naive", "retrain_floor"
SEEDS_OF_RMIA, SEEDS_OF_ULIRA, SEEDS_OF_EPSILON, SEEDS_OF_FLOOR = 2, 3, 2, 2
NONMEMBERS_OF_RMIA, FEW_NONMEMBERS = 2, 50
PER_CLIP = ["method", "clip_id", "rmia", "ulira", "epsilon_bound", "separated", "js", "activation"]


@dataclass(frozen=True)
class StoredLogits:
    """One network's logits of the forget clips [n, classes] and of the non-members [m, classes]."""

    forget: np.ndarray
    nonmembers: np.ndarray


@dataclass(frozen=True)
class Cell:
    """One cell's clips, the seeds of every method, and how to read a network's logits.

    `forget_ids`, `forget_labels` have n entries, `nonmember_labels` m; `read(method, seed)` gives the logits in
    that order. Logits are read method by method, so that only naive's and one method's are in memory at once.
    """

    forget_ids: Sequence[str]
    forget_labels: np.ndarray
    nonmember_labels: np.ndarray
    seeds: Mapping[str, Sequence[int]]
    read: Callable[[str, int], StoredLogits]


@dataclass(frozen=True)
class CellAudit:
    """What the audits of a cell found.

    `by_seed`: columns method, metric, seed, value, to be averaged over the seeds. `whole`: columns method, metric,
    value, seeds: numbers that take all seeds at once. `per_clip`: the columns of `PER_CLIP`, one row for each method
    and forget clip; empty where an audit was not made. `readings`: a sentence for each method; `notes`: what was left
    out and why.
    """

    by_seed: pd.DataFrame
    whole: pd.DataFrame
    per_clip: pd.DataFrame
    readings: Mapping[str, str]
    notes: Sequence[str]


NO_AUDIT = CellAudit(
    pd.DataFrame(columns=["method", "metric", "seed", "value"]),
    pd.DataFrame(columns=["method", "metric", "value", "seeds"]),
    pd.DataFrame(columns=PER_CLIP),
    {},
    (),
)


@dataclass
class _Collected:
    """Rows on the way to a `CellAudit`."""

    by_seed: list[tuple[str, str, int, float]] = field(default_factory=list)
    whole: list[tuple[str, str, float, str]] = field(default_factory=list)
    per_clip: list[pd.DataFrame] = field(default_factory=list)
    readings: dict[str, str] = field(default_factory=dict)

    def add_whole(self, method: str, values: Mapping[str, float], seeds: Sequence[int]) -> None:
        """Numbers of a method that all these seeds make together."""
        named = " ".join(map(str, sorted(seeds)))
        self.whole += [(method, metric, value, named) for metric, value in values.items()]


def audit_cell(cell: Cell) -> CellAudit:
    """Make every audit that the cell's seeds allow.

    For each method and seed s RMIA with naive's networks of the other seeds as references, held-out clips halved by s
    into population and negatives; for each method leave-one-seed-out U-LiRA and the bounded epsilon against naive;
    distances of retrained networks to each other as the row `retrain_floor`. Without naive nothing is computed.
    """
    found = _Collected()
    naive_seeds = list(cell.seeds.get(NAIVE, ()))
    notes = _left_out(cell, naive_seeds)
    if naive_seeds:
        naive = {seed: cell.read(NAIVE, seed) for seed in naive_seeds}
        _floor(found, cell, naive)
        for method, seeds in cell.seeds.items():
            networks = naive if method == NAIVE else {seed: cell.read(method, seed) for seed in seeds}
            _audit_method(found, cell, method, networks, naive)
    return CellAudit(
        pd.DataFrame(found.by_seed, columns=["method", "metric", "seed", "value"]),
        pd.DataFrame(found.whole, columns=["method", "metric", "value", "seeds"]),
        pd.concat([pd.DataFrame(columns=PER_CLIP), *found.per_clip])
        if found.per_clip
        else pd.DataFrame(columns=PER_CLIP),
        found.readings,
        notes,
    )


def _left_out(cell: Cell, naive_seeds: Sequence[int]) -> list[str]:
    n = len(naive_seeds)
    if not n:
        return ["audits against retrained networks (floor, RMIA, U-LiRA, bound) are left out: there is no naive model"]
    needed = {
        "the retrain-against-retrain floor": SEEDS_OF_FLOOR,
        "RMIA (the other seeds' naive models are its references)": SEEDS_OF_RMIA,
        "the bound": SEEDS_OF_EPSILON,
        "U-LiRA": SEEDS_OF_ULIRA,
    }
    notes = [f"{what} left out: needs {least} seeds with naive, has {n}" for what, least in needed.items() if n < least]
    if n >= SEEDS_OF_RMIA and len(cell.nonmember_labels) < NONMEMBERS_OF_RMIA:
        notes.append(f"RMIA left out: needs {NONMEMBERS_OF_RMIA} non-members, has {len(cell.nonmember_labels)}")
    elif n >= SEEDS_OF_RMIA and (m := len(cell.nonmember_labels)) < FEW_NONMEMBERS:
        notes.append(f"RMIA rests on {m - m // 2} non-members and {m // 2} for its population: its AUC is coarse")
    return notes


def _floor(found: _Collected, cell: Cell, naive: Mapping[int, StoredLogits]) -> None:
    """Distances between naive's networks of different seeds, over all pairs: the yardstick of a method's distances."""
    pairs = list(combinations(naive, 2))
    if not pairs:
        return
    per_clip = {
        name: np.mean([distance(naive[s].forget, naive[t].forget) for s, t in pairs], axis=0)
        for name, distance in (("js", js_divergence), ("activation", activation_distance))
    }
    found.add_whole(FLOOR, {f"distance/{name}": float(values.mean()) for name, values in per_clip.items()}, list(naive))
    found.per_clip.append(pd.DataFrame({"method": FLOOR, "clip_id": list(cell.forget_ids), **per_clip}))


def _audit_method(
    found: _Collected,
    cell: Cell,
    method: str,
    networks: Mapping[int, StoredLogits],
    naive: Mapping[int, StoredLogits],
) -> None:
    columns: dict[str, np.ndarray] = {}
    readings = []
    scores = _rmia(found, cell, method, networks, naive)
    if scores is not None:
        columns["rmia"] = scores
        aucs = [value for of, metric, _, value in found.by_seed if of == method and metric == "audit/rmia_auc"]
        readings.append(f"RMIA AUC {np.mean(aucs):.3f} over {len(aucs)} seeds (0.5: no membership seen)")
    common = sorted(set(networks) & set(naive))
    if method != NAIVE and common:
        columns |= {
            name: np.mean([distance(networks[s].forget, naive[s].forget) for s in common], axis=0)
            for name, distance in (("js", js_divergence), ("activation", activation_distance))
        }
        if len(common) >= SEEDS_OF_ULIRA:
            columns["ulira"] = _ulira(found, cell, method, networks, naive, readings)
        if len(common) >= SEEDS_OF_EPSILON:
            bound = _epsilon(found, cell, method, networks, naive, common)
            columns["epsilon_bound"] = np.where(bound.separated, np.nan, bound.bounds)
            columns["separated"] = bound.separated
            readings.append(bound.reading)
    if readings:
        found.readings[method] = "; ".join(readings)
    if columns:
        found.per_clip.append(pd.DataFrame({"method": method, "clip_id": list(cell.forget_ids), **columns}))


def _rmia(
    found: _Collected,
    cell: Cell,
    method: str,
    networks: Mapping[int, StoredLogits],
    naive: Mapping[int, StoredLogits],
) -> np.ndarray | None:
    """RMIA of every seed that has references; the forget clips' mean score [n], None where it cannot be made."""
    n_forget, n_nonmembers = len(cell.forget_labels), len(cell.nonmember_labels)
    if n_nonmembers < NONMEMBERS_OF_RMIA:
        return None
    own = {seed: _probabilities(cell, logits) for seed, logits in networks.items()}
    references = own if method == NAIVE else {seed: _probabilities(cell, logits) for seed, logits in naive.items()}
    scores = []
    for seed, (forget, nonmembers) in own.items():
        others = [other for other in references if other != seed]
        if not others:
            continue
        population, negatives = halve(n_nonmembers, seed)
        clip_scores, result = rmia_attack(
            np.concatenate([forget, nonmembers[negatives]]),
            np.stack([np.concatenate([references[o][0], references[o][1][negatives]]) for o in others]),
            np.arange(n_forget + len(negatives)) < n_forget,
            nonmembers[population],
            np.stack([references[o][1][population] for o in others]),
        )
        scores.append(clip_scores[:n_forget])
        kept = {"auc": result.auc, "tpr_at_fpr_1pct": result.tpr_at_fpr_1pct.value}
        found.by_seed += [(method, f"audit/rmia_{k}", seed, value) for k, value in kept.items() if value is not None]
    return np.mean(scores, axis=0) if scores else None


def _probabilities(cell: Cell, logits: StoredLogits) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the true class of forget clips [n] and non-members [m]."""
    return (
        np.exp(-cross_entropy(logits.forget, cell.forget_labels)),
        np.exp(-cross_entropy(logits.nonmembers, cell.nonmember_labels)),
    )


def _ulira(
    found: _Collected,
    cell: Cell,
    method: str,
    networks: Mapping[int, StoredLogits],
    naive: Mapping[int, StoredLogits],
    readings: list[str],
) -> np.ndarray:
    """U-LiRA of every left-out seed; the forget clips' mean log-likelihood ratio [n] under the unlearned networks."""
    result = ulira(
        {seed: logits.forget for seed, logits in networks.items()},
        {seed: logits.forget for seed, logits in naive.items()},
        cell.forget_labels,
    )
    for seed, auc, accuracy in zip(result.seeds, result.auc, result.accuracy, strict=True):
        found.by_seed += [
            (method, "audit/ulira_auc", seed, float(auc)),
            (method, "audit/ulira_accuracy", seed, float(accuracy)),
        ]
    interval = result.auc_over_seeds()
    readings.append(
        f"U-LiRA AUC {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] over {interval.n} left-out seeds "
        "(0.5: not told from retrained networks)"
    )
    return result.scores_unlearned.mean(axis=0)


def _epsilon(
    found: _Collected,
    cell: Cell,
    method: str,
    networks: Mapping[int, StoredLogits],
    naive: Mapping[int, StoredLogits],
    common: Sequence[int],
) -> EpsilonBound:
    """The bounded epsilon from the confidence of the forget clips under the seeds that both have."""
    unlearned, retrained = (
        np.stack([logit_scaled_confidence(side[seed].forget, cell.forget_labels) for seed in common])
        for side in (networks, naive)
    )
    bound = epsilon_bound(unlearned, retrained)
    values = {
        "epsilon_bound": bound.mean_bound,
        "epsilon_null_relabelled": bound.independent.mean_bound,
        "epsilon_p_relabelled": bound.independent.mean_bound_p,
        "epsilon_null_paired": bound.paired.mean_bound,
        "epsilon_p_paired": bound.paired.mean_bound_p,
        "epsilon_separated_share": bound.separated_share,
        "epsilon_separated_by_chance": bound.separated_by_chance,
        "epsilon_undecided_share": bound.undecided_share,
    }
    found.add_whole(method, {f"audit/{name}": value for name, value in values.items()}, common)
    return bound
