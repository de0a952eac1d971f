"""Audits that need several seeds' networks, from the stored logits of one cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from audio_mu.audit.distances import activation_distance, js_divergence
from audio_mu.audit.epsilon import EpsilonBound, epsilon_bound
from audio_mu.audit.many_seeds import MANY_SEEDS, Answers, answers_of, klom_figures, klom_reading, sure_gaps
from audio_mu.audit.one_model import COMPARED
from audio_mu.audit.performance import cross_entropy, logit_scaled_confidence
from audio_mu.audit.population import placements
from audio_mu.audit.references import References
from audio_mu.audit.rmia import halve, rmia_attack
from audio_mu.audit.ulira import ulira
from audio_mu.audit.with_references import ReferenceAudits
from audio_mu.names import FLOOR, NAIVE

SEEDS_OF_RMIA, SEEDS_OF_ULIRA, SEEDS_OF_EPSILON, SEEDS_OF_FLOOR = 2, 3, 2, 2
NONMEMBERS_OF_RMIA, FEW_NONMEMBERS = 2, 50
BY_SEED = ["method", "metric", "seed", "value"]
WHOLE = ["method", "metric", "value", "seeds"]
PER_CLIP = ["method", "clip_id", "rmia", "ulira", "epsilon_bound", "separated", "js", "activation"]
DISTANCES = {"js": js_divergence, "activation": activation_distance}


@dataclass(frozen=True)
class StoredLogits:
    """One network's logits of the forget clips [n, classes] and of the non-members [m, classes]."""

    forget: np.ndarray
    nonmembers: np.ndarray


SetReader = Callable[[str, int, str], tuple[np.ndarray, np.ndarray]]
"""Method, seed, set → logits [n, classes] and labels [n] of the set's clips."""

Networks = Mapping[int, StoredLogits]
"""Seed → logits of a method's network."""


@dataclass(frozen=True)
class AuditInput:
    """A cell's clips, the seeds of every method, and how to read a network's logits.

    `forget_ids`, `forget_labels` have n entries, `nonmember_labels` m; `read(method, seed)` gives the logits in
    that order, `read_set` those of a whole set; `people` names who speaks a set's clips, or the `nonmembers`. Logits
    are read method by method, so that only naive's and one method's are in memory at once. `nonmember_ids` has m
    entries where there are `references`; `kind`: of the request.
    """

    forget_ids: Sequence[str]
    forget_labels: np.ndarray
    nonmember_labels: np.ndarray
    seeds: Mapping[str, Sequence[int]]
    read: Callable[[str, int], StoredLogits]
    read_set: SetReader
    people: Callable[[str], Sequence[str]]
    references: Sequence[References] = ()
    nonmember_ids: Sequence[str] = ()
    kind: str = ""


@dataclass(frozen=True)
class CellAudit:
    """The findings of the audits of a cell.

    `by_seed`: columns method, metric, seed, value, to be averaged over the seeds. `whole`: columns method, metric,
    value, seeds: numbers that take all seeds at once. `per_clip`: the columns of `PER_CLIP`, one row for each method
    and forget clip; empty where an audit was not made. `readings`: a sentence for each method; `notes`: the audits
    that were left out, and why.
    """

    by_seed: pd.DataFrame
    whole: pd.DataFrame
    per_clip: pd.DataFrame
    readings: Mapping[str, str]
    notes: Sequence[str]


NO_AUDIT = CellAudit(pd.DataFrame(columns=BY_SEED), pd.DataFrame(columns=WHOLE), pd.DataFrame(columns=PER_CLIP), {}, ())


def audit_cell(given: AuditInput) -> CellAudit:
    """Make every audit that the cell's seeds allow.

    For each method and seed s RMIA with naive's networks of the other seeds as references, held-out clips halved by s
    into population and negatives; for each method leave-one-seed-out U-LiRA and the bounded epsilon against naive;
    distances of retrained networks to each other as the row `retrain_floor`. With reference models LiRA and online
    RMIA, and where people were asked for the attack on them. Without naive and references nothing is computed.
    """
    audits = _Audits(given)
    audits.add_floor()
    for method, seeds in given.seeds.items():
        if audits.naive or audits.known is not None:
            networks = audits.naive if method == NAIVE else {seed: given.read(method, seed) for seed in seeds}
            audits.add_method(method, networks)
    notes = _left_out(len(audits.naive), len(given.nonmember_labels))
    return audits.found([*notes, *(audits.known.refused() if audits.known is not None else [])])


def _left_out(n_naive: int, n_nonmembers: int) -> list[str]:
    if not n_naive:
        return ["audits against retrained networks (floor, RMIA, U-LiRA, bound) are left out: there is no naive model"]
    needed = {
        "the retrain-against-retrain floor": SEEDS_OF_FLOOR,
        "RMIA (the other seeds' naive models are its references)": SEEDS_OF_RMIA,
        "the bound": SEEDS_OF_EPSILON,
        "U-LiRA": SEEDS_OF_ULIRA,
    }
    notes = [
        f"{audit} left out: needs {least} seeds with naive, has {n_naive}"
        for audit, least in needed.items()
        if n_naive < least
    ]
    if n_naive >= SEEDS_OF_RMIA and n_nonmembers < NONMEMBERS_OF_RMIA:
        notes.append(f"RMIA left out: needs {NONMEMBERS_OF_RMIA} non-members, has {n_nonmembers}")
    elif n_naive >= SEEDS_OF_RMIA and n_nonmembers < FEW_NONMEMBERS:
        notes.append(
            f"RMIA rests on {n_nonmembers - n_nonmembers // 2} non-members and {n_nonmembers // 2} for its "
            "population: its AUC is coarse"
        )
    return notes


def _mean_distances(pairs: Sequence[tuple[StoredLogits, StoredLogits]]) -> dict[str, np.ndarray]:
    """Distance → its mean over pairs of networks, of every forget clip [n]."""
    return {
        name: np.mean([distance(a.forget, b.forget) for a, b in pairs], axis=0) for name, distance in DISTANCES.items()
    }


class _Audits:
    """The audits of one cell: naive's networks, the reference models, and the rows that were found so far."""

    def __init__(self, given: AuditInput) -> None:
        self.given = given
        self.naive: Networks = {seed: given.read(NAIVE, seed) for seed in given.seeds.get(NAIVE, ())}
        self.by_seed: list[tuple[str, str, int, float]] = []
        self.whole: list[tuple[str, str, float, str]] = []
        self.per_clip: list[pd.DataFrame] = []
        self.readings: dict[str, str] = {}
        self._of_naive: dict[tuple[int, ...], dict[str, Answers]] = {}
        self.known: ReferenceAudits | None = None
        if given.references:
            forget = given.forget_ids, given.forget_labels, given.people("forget")
            nonmembers = given.nonmember_ids, given.nonmember_labels
            self.known = ReferenceAudits(given.references, forget, nonmembers, given.kind)

    def found(self, notes: Sequence[str]) -> CellAudit:
        """The rows as tables."""
        return CellAudit(
            pd.DataFrame(self.by_seed, columns=BY_SEED),
            pd.DataFrame(self.whole, columns=WHOLE),
            pd.concat([pd.DataFrame(columns=PER_CLIP), *self.per_clip]),
            self.readings,
            notes,
        )

    def add_floor(self) -> None:
        """Distances between naive's networks over all pairs of seeds: the yardstick of a method's distances."""
        pairs = [(self.naive[s], self.naive[t]) for s, t in combinations(self.naive, 2)]
        if pairs:
            per_clip = _mean_distances(pairs)
            means = {f"distance/{name}": float(values.mean()) for name, values in per_clip.items()}
            self._add_whole(FLOOR, means, list(self.naive))
            self._add_clips(FLOOR, per_clip)

    def add_method(self, method: str, networks: Networks) -> None:
        """Every audit of a method that its seeds allow."""
        columns: dict[str, np.ndarray] = {}
        readings = []
        if (scores := self._with_references(method, networks)) is not None:
            columns["lira"] = scores
        scores = self._rmia(method, networks)
        if scores is not None:
            columns["rmia"] = scores
            aucs = [value for of, metric, _, value in self.by_seed if of == method and metric == "audit/rmia_auc"]
            readings.append(f"RMIA AUC {np.mean(aucs):.3f} over {len(aucs)} seeds (0.5: no membership seen)")
        common = sorted(set(networks) & set(self.naive))
        if method != NAIVE and common:
            columns |= _mean_distances([(networks[seed], self.naive[seed]) for seed in common])
            if len(common) >= SEEDS_OF_ULIRA:
                columns["ulira"], reading = self._ulira(method, networks)
                readings.append(reading)
            if len(common) >= SEEDS_OF_EPSILON:
                bound = self._epsilon(method, networks, common)
                columns["epsilon_bound"] = np.where(bound.separated, np.nan, bound.bounds)
                columns["separated"] = bound.separated
                readings.append(bound.reading)
        if len(common) >= MANY_SEEDS:
            own, naive = (self._answers(of, tuple(common)) for of in (method, NAIVE))
            values = klom_figures(own, naive, is_null=method == NAIVE)
            readings.append(klom_reading(values))
            if method != NAIVE:
                values |= sure_gaps(own, naive, self._placed(networks, common), self.given.people)
            self._add_whole(method, values, common)
        readings += self.known.readings(method) if self.known is not None else []
        if readings:
            self.readings[method] = "; ".join(readings)
        if columns:
            self._add_clips(method, columns)

    def _add_whole(self, method: str, values: Mapping[str, float], seeds: Sequence[int]) -> None:
        """Numbers of a method that all these seeds make together."""
        named = " ".join(map(str, sorted(seeds)))
        self.whole += [(method, metric, value, named) for metric, value in values.items()]

    def _add_clips(self, method: str, columns: Mapping[str, np.ndarray]) -> None:
        self.per_clip.append(pd.DataFrame({"method": method, "clip_id": list(self.given.forget_ids), **columns}))

    def _probabilities(self, networks: Networks) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Seed → probability of the true class of the forget clips [n] and of the non-members [m]."""
        return {
            seed: (
                np.exp(-cross_entropy(logits.forget, self.given.forget_labels)),
                np.exp(-cross_entropy(logits.nonmembers, self.given.nonmember_labels)),
            )
            for seed, logits in networks.items()
        }

    @cached_property
    def _references(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return self._probabilities(self.naive)

    def _rmia(self, method: str, networks: Networks) -> np.ndarray | None:
        """RMIA of every seed that has references; the forget clips' mean score [n], None where it cannot be made."""
        n_forget, n_nonmembers = len(self.given.forget_labels), len(self.given.nonmember_labels)
        if n_nonmembers < NONMEMBERS_OF_RMIA:
            return None
        references = self._references
        scores = []
        for seed, (forget, nonmembers) in (references if method == NAIVE else self._probabilities(networks)).items():
            others = [known for other, known in references.items() if other != seed]
            if not others:
                continue
            population, negatives = halve(n_nonmembers, seed)
            clip_scores, result = rmia_attack(
                np.concatenate([forget, nonmembers[negatives]]),
                np.stack([np.concatenate([known[0], known[1][negatives]]) for known in others]),
                np.arange(n_forget + len(negatives)) < n_forget,
                nonmembers[population],
                np.stack([known[1][population] for known in others]),
            )
            scores.append(clip_scores[:n_forget])
            kept = {"auc": result.auc, "tpr_at_fpr_1pct": result.tpr_at_fpr_1pct.value}
            self.by_seed += [(method, f"audit/rmia_{k}", seed, value) for k, value in kept.items() if value is not None]
        return np.mean(scores, axis=0) if scores else None

    def _with_references(self, method: str, networks: Networks) -> np.ndarray | None:
        """The attacks that know reference models; LiRA's mean score of the forget clips [n], None without it."""
        if self.known is None:
            return None
        found = []
        for seed, logits in networks.items():
            values, scores = self.known.figures(method, seed, logits.forget, logits.nonmembers)
            self.by_seed += [(method, metric, seed, value) for metric, value in values.items()]
            found += [] if scores is None else [scores]
        return np.mean(found, axis=0) if found else None

    def _answers(self, method: str, seeds: tuple[int, ...]) -> dict[str, Answers]:
        """What a method's networks answer on each set; naive's are kept, every other method asks for them."""
        if method == NAIVE and seeds in self._of_naive:
            return self._of_naive[seeds]
        found = {name: answers_of([self.given.read_set(method, seed, name) for seed in seeds]) for name in COMPARED}
        if method == NAIVE:
            self._of_naive[seeds] = found
        return found

    def _placed(self, networks: Networks, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
        """Differences from naive of the placements of the forget clips [seeds, n] and of the non-members [seeds, m].

        None where a side has no two.
        """
        labels = self.given.forget_labels, self.given.nonmember_labels
        if min(map(len, labels)) < 2:
            return None

        def placed(logits: StoredLogits) -> tuple[np.ndarray, np.ndarray]:
            return placements(cross_entropy(logits.forget, labels[0]), cross_entropy(logits.nonmembers, labels[1]))

        pairs = [(placed(networks[seed]), placed(self.naive[seed])) for seed in seeds]
        forget, nonmembers = (np.stack([own[side] - naive[side] for own, naive in pairs]) for side in (0, 1))
        return forget, nonmembers

    def _ulira(self, method: str, networks: Networks) -> tuple[np.ndarray, str]:
        """U-LiRA of every left-out seed.

        Returns the forget clips' mean log-likelihood ratio [n] under the unlearned networks, and a sentence.
        """
        result = ulira(
            {seed: logits.forget for seed, logits in networks.items()},
            {seed: logits.forget for seed, logits in self.naive.items()},
            self.given.forget_labels,
        )
        for seed, auc, accuracy in zip(result.seeds, result.auc, result.accuracy, strict=True):
            self.by_seed += [
                (method, "audit/ulira_auc", seed, float(auc)),
                (method, "audit/ulira_accuracy", seed, float(accuracy)),
            ]
        interval = result.auc_over_seeds()
        return result.scores_unlearned.mean(axis=0), (
            f"U-LiRA AUC {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] over {interval.n} left-out "
            "seeds (0.5: not told from retrained networks)"
        )

    def _epsilon(self, method: str, networks: Networks, common: Sequence[int]) -> EpsilonBound:
        """The bounded epsilon from the confidence of the forget clips under the seeds that both have."""
        unlearned, retrained = (
            np.stack([logit_scaled_confidence(side[seed].forget, self.given.forget_labels) for seed in common])
            for side in (networks, self.naive)
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
        self._add_whole(method, {f"audit/{name}": value for name, value in values.items()}, common)
        return bound
