"""LiRA, online RMIA and the attack on a person, by reference models of which it is known what they have learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from audio_mu.audit.performance import Floats, Integers
from audio_mu.audit.population import PopulationResult, population_attack
from audio_mu.audit.rmia import rmia_scores
from audio_mu.audit.ulira import VARIANCE_FLOOR

FEW_REFERENCES = 64
"""With fewer, the variance of a recording's confidence is not its own: Carlini et al. 2022, section VI."""
SMALLEST = 1e-300  # of a probability that is divided by


@dataclass(frozen=True)
class Gaussians:
    """Normal distributions of each recording's confidence, over the models that have learnt it and those that have not.

    All float64 [n].
    """

    mean_in: Floats
    mean_out: Floats
    variance_in: Floats
    variance_out: Floats

    def log_ratio(self, phi: ArrayLike, rows: Integers | slice = slice(None)) -> Floats:
        """Return log N(phi; in) - log N(phi; out) of the confidences of the recordings at `rows`: high for a member."""
        values = np.asarray(phi, np.float64)
        densities = [
            -0.5 * (np.log(variance[rows]) + (values - mean[rows]) ** 2 / variance[rows])
            for mean, variance in ((self.mean_in, self.variance_in), (self.mean_out, self.variance_out))
        ]
        return densities[0] - densities[1]


def gaussians(phi: Floats, member: NDArray[np.bool_], shared: bool) -> Gaussians:
    """Fit the confidences phi [references, n], parted by `member` [references, n], which says what each has learnt.

    Mean and variance (ddof 1) of each recording and side, as in algorithm 1 of Carlini et al. 2022, "Membership
    inference attacks from first principles". shared: one variance a side, the mean square deviation from the
    recordings' own means; their code takes the deviation from one mean of all, which counts how recordings differ as
    well. Variances have a floor. Raises ValueError where a recording lacks a side, or a side has no variance.
    """
    sides = []
    for of in (member, ~member):
        n = of.sum(axis=0)
        if not (n >= 1).all() or not (n - 1).any() or not (shared or (n >= 2).all()):
            raise ValueError("every recording needs reference models that have learnt it and others that have not")
        mean = np.where(of, phi, 0.0).sum(axis=0) / n
        squares = np.where(of, (phi - mean) ** 2, 0.0).sum(axis=0)
        variance = np.full(len(n), squares.sum() / (n - 1).sum()) if shared else squares / (n - 1)
        sides.append((mean, np.maximum(variance, VARIANCE_FLOOR)))
    (mean_in, variance_in), (mean_out, variance_out) = sides
    return Gaussians(mean_in, mean_out, variance_in, variance_out)


@dataclass(frozen=True)
class References:
    """What reference models answer on the recordings of their pool.

    by: what halves were drawn of, `clip` or `speaker`. ids, speakers [n] text, a speaker who is not known empty;
    trained [n] bool: on the training side, the others test; phi [references, n] float64: logit-scaled confidence of the
    true class; member [references, n] bool: whether a model has learnt the recording.
    """

    by: str
    ids: NDArray[np.str_]
    speakers: NDArray[np.str_]
    trained: NDArray[np.bool_]
    phi: Floats
    member: NDArray[np.bool_]

    @classmethod
    def of_files(cls, by: str, files: Sequence[Mapping[str, np.ndarray]]) -> References:
        """From each model's arrays clip_id, speaker, trained, phi, member: of the recordings that all of them have, and
        that models of both sides know."""
        common = set.intersection(*(set(file["clip_id"].tolist()) for file in files))
        rows = []
        for file in files:
            place = {id_: i for i, id_ in enumerate(file["clip_id"].tolist())}
            rows.append(np.array([place[id_] for id_ in sorted(common)], dtype=np.int64))
        first, of_first = files[0], rows[0]
        phi, member = (np.stack([f[name][own] for f, own in zip(files, rows)]) for name in ("phi", "member"))
        known = (member.sum(axis=0) >= 2) & ((~member).sum(axis=0) >= 2)
        ids, speakers, trained = (first[name][of_first][known] for name in ("clip_id", "speaker", "trained"))
        return cls(by, ids, speakers, trained, phi[:, known].astype(np.float64), member[:, known])

    @property
    def shared(self) -> bool:
        """Whether the variance is that of all recordings."""
        return len(self.phi) < FEW_REFERENCES

    @cached_property
    def gaussians(self) -> Gaussians:
        """Of all reference models."""
        return gaussians(self.phi, self.member, self.shared)

    @cached_property
    def probability(self) -> Floats:
        """Probability of the true class [n]: the mean of that over the models which have learnt a recording and that
        over the others, p(x) of online RMIA (Zarifzadeh et al. 2024)."""
        probabilities = expit(self.phi)
        sides = [np.where(of, probabilities, 0.0).sum(axis=0) / of.sum(axis=0) for of in (self.member, ~self.member)]
        return np.asarray((sides[0] + sides[1]) / 2)

    def rows(self, ids: Sequence[str]) -> Integers | None:
        """Where these recordings are; None where one of them is not in the pool."""
        place = {id_: i for i, id_ in enumerate(self.ids.tolist())}
        found = [place.get(str(id_), -1) for id_ in ids]
        return None if -1 in found else np.array(found, dtype=np.int64)


def references_of(files: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> list[References]:
    """The reference models of each kind of halves that there are files of."""
    return [References.of_files(by, of) for by, of in files.items() if of]


def lira_attack(
    references: References, phi: ArrayLike, rows: Integers, n_members: int
) -> tuple[Floats, PopulationResult]:
    """Return (score [n] of each recording, how well the scores tell members from the others), LiRA online.

    phi [n]: confidences under the audited network of the recordings at `rows` of the references, members first.
    """
    scores = references.gaussians.log_ratio(phi, rows)
    return scores, population_attack(-scores[:n_members], -scores[n_members:])


def online_rmia_attack(
    references: References, phi: ArrayLike, rows: Integers, n_members: int, population: Integers
) -> tuple[Floats, PopulationResult]:
    """Return (score [n_members + negatives], how well the scores tell members from negatives), online RMIA.

    phi [n], rows: as for LiRA. population: which of the recordings after the members make the population z; the others
    are the negatives. A score is the share of z with ratio(x) / ratio(z) >= 1, where ratio(x) = p(x) under the audited
    network divided by its mean over the references.
    """
    ratios = expit(np.asarray(phi, np.float64)) / np.maximum(references.probability[rows], SMALLEST)
    is_population = np.zeros(len(ratios), dtype=bool)
    is_population[n_members + population] = True
    scores = rmia_scores(ratios[~is_population], ratios[is_population])
    return scores, population_attack(-scores[:n_members], -scores[n_members:])


def people_of(references: References, asked: Mapping[str, Integers]) -> dict[str, Integers]:
    """Person → rows of the recordings that a statistic sums over.

    Of the people of `asked` the given ones; of the others those of the training side, as of the asked, or where there
    are none all.
    """
    found: dict[str, Integers] = {}
    for person in sorted({*references.speakers.tolist()} - {"", *asked}):
        own = np.flatnonzero(references.speakers == person)
        trained = own[references.trained[own]]
        found[person] = trained if len(trained) else own
    return {**asked, **found}


def unseen_statistics(references: References, people: Mapping[str, Integers]) -> Floats:
    """Return the statistics [negatives] of people under reference models that have learnt none of their recordings.

    A statistic is the sum of the log-likelihood ratios of the person's recordings. The model that gives the confidences
    is left out of the Gaussians.
    """
    found: list[float] = []
    everyone = np.arange(len(references.phi))
    for model in everyone:
        unseen = [rows for rows in people.values() if not references.member[model, rows].any()]
        if not unseen:
            continue
        others = everyone != model
        left = gaussians(references.phi[others], references.member[others], references.shared)
        ratios = left.log_ratio(references.phi[model])
        found += [float(ratios[rows].sum()) for rows in unseen]
    return np.array(found)


@dataclass(frozen=True)
class PersonResult:
    """The attack on people: a statistic and a p-value of each.

    negatives: how many statistics of people under models that had not seen them p-values count; of n_people. found: how
    well the statistics of several people are told from the negatives; None for one person.
    """

    statistics: Floats
    p_values: Floats
    negatives: int
    n_people: int
    found: PopulationResult | None

    @property
    def smallest(self) -> float:
        """The smallest p-value that so many negatives allow."""
        return 1 / (self.negatives + 1)


def person_attack(
    references: References, phi: Mapping[str, ArrayLike], asked: Mapping[str, Integers], unseen: Floats, n_people: int
) -> PersonResult:
    """Ask whether each of these people is in an audited network.

    phi, asked: person → confidences under it, and rows, of the person's recordings. unseen: `unseen_statistics` of
    n_people. The p-value is the share, the person's own counted, of statistics at least as large.
    """
    statistics = np.array([references.gaussians.log_ratio(phi[name], rows).sum() for name, rows in asked.items()])
    above = (unseen[None] >= statistics[:, None]).sum(axis=1)
    found = population_attack(-statistics, -unseen) if len(asked) > 1 else None
    return PersonResult(statistics, (1 + above) / (1 + len(unseen)), len(unseen), n_people, found)
