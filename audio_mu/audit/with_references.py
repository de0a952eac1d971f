"""The attacks that know reference models, on the networks of one cell: figures, sentences and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from audio_mu.audit.performance import Floats, Integers, logit_scaled_confidence
from audio_mu.audit.population import RATES, PopulationResult
from audio_mu.audit.references import (
    PersonResult,
    References,
    lira_attack,
    online_rmia_attack,
    people_of,
    person_attack,
    unseen_statistics,
)
from audio_mu.audit.rmia import halve
from audio_mu.config.parsers import BY_SPEAKER

OF_PEOPLE = ("speaker", "list")  # requests that may ask for all that somebody says
FEWEST_NONMEMBERS = 2
LEFT_OUT = ("_auc_low", "_auc_high")  # one network's; the interval over seeds is the table's


class ReferenceAudits:
    """The attacks of one cell.

    known: the reference models of each kind of halves that there are. forget_ids, forget_labels, forget_speakers [n],
    nonmember_ids, nonmember_labels [m]: the cell's recordings. kind: of its request.
    """

    def __init__(
        self, known: Sequence[References], forget: tuple[Sequence[str], np.ndarray, Sequence[str]],
        nonmembers: tuple[Sequence[str], np.ndarray], kind: str,
    ) -> None:  # fmt: skip
        (self._ids, self._labels, self._speakers), (_, self._other_labels) = forget, nonmembers
        self._kind = kind
        self.notes: list[str] = []
        by = {of.by: of for of in known}
        self._people = by.get(BY_SPEAKER)
        fitting = next((of for of in known if (of.by == BY_SPEAKER) == (kind == BY_SPEAKER)), next(iter(known), None))
        self._rows: Integers | None = None
        if fitting is not None:
            self._clips = fitting
            self._rows = self._located(fitting, [*self._ids, *nonmembers[0]])
        if self._rows is not None and len(nonmembers[0]) < FEWEST_NONMEMBERS:
            self.notes.append(f"LiRA and online RMIA left out: they need non-members, there are {len(nonmembers[0])}")
            self._rows = None
        if self._rows is not None and fitting is not None:
            self.notes.append(_rests_on(fitting))
        self._by_seed: dict[str, dict[int, tuple[PopulationResult, PopulationResult]]] = {}
        self._of_people: dict[str, dict[int, PersonResult]] = {}

    def _located(self, references: References, ids: Sequence[str]) -> Integers | None:
        rows = references.rows(ids)
        if rows is None:
            self.notes.append(
                f"the reference models (by {references.by}) do not know all recordings of this request: attacks with "
                "them are left out; ask for them again with attack"
            )
        return rows

    @cached_property
    def _asked(self) -> Mapping[str, Integers]:
        """Person → where the references have the recordings that were asked for, of those of whom no other was trained
        on: of the people of a copy there are others."""
        if self._people is None or self._kind not in OF_PEOPLE or not len(self._ids):
            return {}
        rows, names = self._located(self._people, self._ids), np.array(self._speakers)
        if rows is None:
            return {}
        left = {*np.delete(self._people.speakers, rows)[np.delete(self._people.trained, rows)].tolist()}
        return {name: rows[names == name] for name in sorted({*self._speakers} - {"", *left})}

    @cached_property
    def _unseen(self) -> tuple[Floats, int]:
        """Statistics of people under models that had not seen them, and how many people they are of."""
        assert self._people is not None  # whoever asks for people
        people = people_of(self._people, self._asked)
        return unseen_statistics(self._people, people), len(people)

    def figures(
        self, method: str, seed: int, forget: np.ndarray, nonmembers: np.ndarray
    ) -> tuple[dict[str, float], Floats | None]:
        """Return the figures of a network and LiRA's scores of the forget clips [n], None without them.

        forget [n, classes], nonmembers [m, classes]: its logits.
        """
        phi = logit_scaled_confidence(forget, self._labels)
        values: dict[str, float] = {}
        scores = None
        if self._rows is not None:
            n = len(phi)
            every = np.concatenate([phi, logit_scaled_confidence(nonmembers, self._other_labels)])
            scores, lira = lira_attack(self._clips, every, self._rows, n)
            population, _ = halve(len(nonmembers), seed)
            _, rmia = online_rmia_attack(self._clips, every, self._rows, n, population)
            self._by_seed.setdefault(method, {})[seed] = lira, rmia
            for name, result in (("lira", lira), ("rmia_online", rmia)):
                values |= {f"audit/{name}_{key}": value for key, value in result.as_metrics().items()}
        if self._asked:
            values |= self._person(method, seed, phi)
        kept = {name: value for name, value in values.items() if not name.endswith(LEFT_OUT)}
        return kept, None if scores is None else scores[: len(phi)]

    def _person(self, method: str, seed: int, phi: Floats) -> dict[str, float]:
        """The attack on the people who were asked for: of several the smallest p-value, times their number."""
        assert self._people is not None
        names, (unseen, n_people) = np.array(self._speakers), self._unseen
        if not len(unseen):
            return {}
        own = {name: phi[names == name] for name in self._asked}
        result = person_attack(self._people, own, self._asked, unseen, n_people)
        self._of_people.setdefault(method, {})[seed] = result
        values = {
            "statistic": float(result.statistics.mean()),
            "p": min(1.0, float(result.p_values.min()) * len(result.p_values)),
            "p_smallest": min(1.0, result.smallest * len(result.p_values)),
        }
        if result.found is not None:
            values |= result.found.as_metrics()
        return {f"audit/person_{name}": value for name, value in values.items()}

    def readings(self, method: str) -> list[str]:
        """Sentences about a method, after its figures."""
        said = []
        for i, name in enumerate(("LiRA", "online RMIA")):
            results = [pair[i] for pair in self._by_seed.get(method, {}).values()]
            aucs = [result.auc for result in results if result.auc is not None]
            if aucs:
                rates = [f", {_rate(results, at)}" for at in RATES if _rate(results, at)]
                said.append(f"{name} AUC {np.mean(aucs):.3f} over {len(aucs)} seeds{''.join(rates)}")
        if people := list(self._of_people.get(method, {}).values()):
            said.append(_of_person(people))
        return said

    def refused(self) -> list[str]:
        """The rates that have too few negatives, once for all networks."""
        first = next((pair for of in self._by_seed.values() for pair in of.values()), None)
        notes = [
            f"{name}'s true-positive rate at {at} false positives refused: {rate.note}"
            for name, result in zip(("LiRA", "online RMIA"), first or ())
            for at, field in RATES.items()
            if (rate := getattr(result, field)).value is None
        ]
        if self._kind == BY_SPEAKER and self._people is None and self._rows is not None:
            notes.append("the attack on a person left out: it needs reference models with references_by=speaker")
        return [*self.notes, *notes]


def _rests_on(references: References) -> str:
    """What reference models of clips the attacks have."""
    half = int(references.member.sum(axis=1).mean().round())
    of = "people" if references.by == BY_SPEAKER else "recordings"
    variance = ", one variance of all recordings a side, as there are fewer than 64" if references.shared else ""
    return (
        f"LiRA and online RMIA: {len(references.phi)} reference models, each trained on a random half of the {of} "
        f"(about {half} of {len(references.ids)} recordings, fewer than the audited models have learnt){variance}"
    )


def _rate(results: Sequence[PopulationResult], at: str) -> str:
    """Mean true-positive rate over seeds with the mean ends of its intervals; empty where it is refused."""
    rates = [getattr(result, RATES[at]) for result in results]
    if any(rate.value is None for rate in rates):
        return ""
    value, low, high = (np.mean([getattr(rate, part) for rate in rates]) for part in ("value", "low", "high"))
    return f"TPR {value:.3f} [{low:.3f}, {high:.3f}] at {at} FPR"


def _of_person(results: Sequence[PersonResult]) -> str:
    """The p-values of each seed, with the smallest that was possible."""
    first, n = results[0], len(results[0].p_values)
    smallest = sorted(min(1.0, float(result.p_values.min()) * n) for result in results)
    spread = f"{smallest[0]:.3g}" + (f" to {smallest[-1]:.3g} over {len(results)} seeds" if len(results) > 1 else "")
    whose = "the person is in the model" if n == 1 else f"any of the {n} people is in the model (p times {n})"
    return (
        f"attack on {_people(n)}: p {spread} against a model that has not seen them; "
        f"smaller than {min(1.0, first.smallest * n):.3g} is impossible with {first.negatives} negatives "
        f"({_people(first.n_people)} under reference models without them); small: {whose}"
    )


def _people(n: int) -> str:
    return "1 person" if n == 1 else f"{n:,} people"
