"""Metrics of one unlearned model, put together from logits: every figure comes from the audit package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from audio_mu.audit.by_class import ByClass, by_class
from audio_mu.audit.certainty import WorstGroup, auc_error, majority_share, paired_error, worst_group
from audio_mu.audit.distances import activation_distance, distances, js_divergence, tug_of_war
from audio_mu.audit.performance import as_logits, cross_entropy, performance
from audio_mu.audit.population import PopulationResult, Rate, placements, population_attack

if TYPE_CHECKING:
    from audio_mu.audit.attack_models import Attack
    from audio_mu.requests.request import Earlier, Request

Logits = Mapping[str, np.ndarray]
RECOVERY_TOLERANCE = 0.1
COMPARED = ("forget", "remain", "test")
FEW_CLIPS = 10
SHARE = "request/majority_share"
"""The share of the largest class of the training set, forgotten recordings included."""
CONFOUNDED = (
    "speaker-confounded: the non-members are not known to be of the same speakers, so that the attack may tell voices "
    "apart and not membership"
)


@dataclass(frozen=True)
class Evaluator:
    """What all models of a request are measured with.

    class_names, speakers: by label, and of every clip; where they are not given no group is looked at by itself.
    recordings: the number of every clip's recording; without it each clip is one.
    """

    request: Request
    labels: np.ndarray
    attack: Attack
    earlier: Mapping[str, Earlier] = dataclasses.field(default_factory=dict)
    class_names: Sequence[str] = ()
    speakers: Sequence[str] = ()
    recordings: np.ndarray | None = None

    def _of(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of the recordings that clips are of."""
        return rows if self.recordings is None else self.recordings[rows]

    def alone(self, logits: Logits, seed: int) -> dict[str, float]:
        """Figures that need no other model: performance on every set, and what membership attacks see."""
        sets = self.request.sets()
        metrics = {
            f"{name}/{key}": value
            for name, indices in sets.items()
            for key, value in performance(logits[name], self.labels[indices], self._of(indices)).items()
        }
        losses = {name: cross_entropy(logits[name], self.labels[indices]) for name, indices in sets.items()}
        called = {name: float(self.attack.called_nonmember(values, seed).mean()) for name, values in losses.items()}
        metrics["mia/score"] = called["forget"]
        metrics["mia/remain_called_nonmember"] = called["remain"]
        metrics["mia/test_called_nonmember"] = called["test"]
        metrics |= {f"mia/{key}": value for key, value in self.population(logits).as_metrics().items()}
        trained = np.concatenate([self.request.forget, self.request.remain])
        metrics[SHARE] = majority_share(self.labels[trained])
        return metrics | self._on_earlier(logits)

    def _on_earlier(self, logits: Logits) -> dict[str, float]:
        """Performance on the clips of the requests before, and the AUC of the population attack on them."""
        metrics: dict[str, float] = {}
        for name, earlier in self.earlier.items():
            if name not in logits:
                continue
            labels = self.labels[earlier.clips]
            figures = performance(logits[name], labels, self._of(earlier.clips))
            metrics |= {f"{name}/{key}": value for key, value in figures.items()}
            # Of both parts of the test set: without those that this request sets aside, the attack would see a class.
            parts = [part for part in ("test", "held_out") if part in logits]
            indices, first = np.unique(np.concatenate([self.request.sets()[p] for p in parts]), return_index=True)
            fair = np.isin(indices, earlier.nonmembers)
            unseen = cross_entropy(np.concatenate([logits[p] for p in parts])[first[fair]], self.labels[indices[fair]])
            auc = population_attack(cross_entropy(logits[name], labels), unseen).auc
            metrics |= {} if auc is None else {f"{name}/auc": auc}
        return metrics

    def by_class(self, logits: Logits) -> ByClass:
        """What the model answers on every set, class by class."""
        rows = self.request.sets() | {name: earlier.clips for name, earlier in self.earlier.items()}
        return by_class({name: (own, self.labels[rows[name]]) for name, own in logits.items()}, self.class_names)

    def population(self, logits: Logits) -> PopulationResult:
        """The population attack of the forget set against the request's non-members; empty where it has none."""
        return population_attack(*self._attacked(logits))

    def _nonmembers(self, logits: Logits) -> tuple[np.ndarray, np.ndarray]:
        """The request's non-members: their indices [m] and logits [m, classes]."""
        indices = self.request.sets().get(self.request.nonmember_set, np.zeros(0, dtype=np.int64))
        fair = np.isin(indices, self.request.nonmembers)
        if not fair.any():
            return indices[:0], logits["forget"][:0]
        return indices[fair], logits[self.request.nonmember_set][fair]

    def against_naive(self, metrics: Mapping[str, float], logits: Logits, naive: Mapping[str, float],
                      naive_logits: Logits) -> dict[str, float]:  # fmt: skip
        """Gaps and distances to the retrained model of the same seed, and how much faster the method was.

        `metrics` and `naive` hold the two models' own figures; a gap is the method's minus naive's.
        """
        result = {
            f"distance/{name}": value for name, value in distances(logits["forget"], naive_logits["forget"]).items()
        }
        accuracy = {name: metrics[f"{name}/accuracy"] for name in COMPARED}
        reference = {name: naive[f"{name}/accuracy"] for name in COMPARED}
        compared = [f"{name}/{figure}" for name in COMPARED for figure in ("accuracy", "loss", "ece")]
        compared += [f"{name}/{figure}" for name in self.earlier for figure in ("accuracy", "loss", "auc")]
        for metric in (*compared, "mia/score", "mia/auc"):
            if metric in metrics and metric in naive:
                result[f"gap/{metric.replace('/', '_')}"] = metrics[metric] - naive[metric]
        tow = tug_of_war(accuracy, reference)
        if tow is not None:
            result["gap/tow"] = tow
        if metrics.get("time/total_s"):
            result["time/speedup"] = naive["time/total_s"] / metrics["time/total_s"]
        return result

    def certainty(self, logits: Logits, naive: Logits, original: Logits | None = None) -> dict[str, float]:
        """How well the gaps to naive are known from these recordings: standard errors of differences clip by clip.

        `error/<figure>` is of `gap/<figure>`; `error/half_<figure>` of that less half of the original's gap, which says
        whether a model is nearer to naive than to the original.
        """
        of = {name: self._of(rows) for name, rows in self.request.sets().items()}
        metrics = {
            f"error/{name}_accuracy": paired_error(self._right(logits, name) - self._right(naive, name), of[name])
            for name in COMPARED
        }
        differences: list[tuple[str, list[tuple[float, Logits]]]] = [("", [(1.0, logits), (-1.0, naive)])]
        if original is not None:
            differences.append(("half_", [(1.0, logits), (-0.5, naive), (-0.5, original)]))
            contrast = sum(weight * self._right(model, "forget") for weight, model in differences[1][1])
            metrics["error/half_forget_accuracy"] = paired_error(contrast, of["forget"])
        if len(unseen := self._nonmembers(logits)[0]):
            for name, weighted in differences:
                placed = [(w, *placements(*self._attacked(model))) for w, model in weighted]
                metrics[f"error/{name}mia_auc"] = auc_error(placed, (of["forget"], self._of(unseen)))
        return metrics

    def worst(self, logits: Logits, naive: Logits) -> dict[str, WorstGroup]:
        """The class and the other speaker whose remaining recordings, trained on or not, have surely lost the most.

        Whom and what the request is about as a whole does not count.
        """
        request, test = self.request, np.isin(self.request.test, self.request.held_out, invert=True)
        rows = np.concatenate([request.remain, request.test[test]])
        own, target = (
            np.concatenate([self._right(of, "remain"), self._right(of, "test")[test]]) for of in (logits, naive)
        )
        groups = {
            "class": [self.class_names[i] for i in self.labels[rows]] if self.class_names else [],
            "speaker": [self.speakers[i] for i in rows] if self.speakers else [],
        }
        asked = {"class": {*request.classes}, "speaker": {*request.people}}
        found: dict[str, WorstGroup] = {}
        for kind, names in groups.items():
            others = ["" if name in asked[kind] else name for name in names]
            worst = worst_group(own - target, others, recordings=self._of(rows)) if others else None
            found |= {kind: worst} if worst else {}
        return found

    def _right(self, logits: Logits, name: str) -> np.ndarray:
        """1 for each clip of a set that is answered rightly, 0 for the others [n]."""
        answers = as_logits(logits[name]).argmax(axis=1)
        return (answers == self.labels[self.request.sets()[name]]).astype(np.float64)

    def _attacked(self, logits: Logits) -> tuple[np.ndarray, np.ndarray]:
        """The losses that the population attack compares: of the forget set, of the non-members."""
        indices, nonmember_logits = self._nonmembers(logits)
        members = cross_entropy(logits["forget"], self.labels[self.request.forget])
        return members, cross_entropy(nonmember_logits, self.labels[indices])

    def per_clip(
        self, ids: tuple[str, ...], logits: Logits, seed: int, naive_logits: Logits | None = None
    ) -> pd.DataFrame:
        """One row for each forget clip and each non-member.

        Columns: clip_id, role (forget, nonmember), loss (nats), called_nonmember (share of the attack models), and
        for forget clips js (nats) and activation, the distances to naive, empty without it.
        """
        indices, nonmember_logits = self._nonmembers(logits)
        frames = []
        for role, rows, values in (
            ("forget", self.request.forget, logits["forget"]),
            ("nonmember", indices, nonmember_logits),
        ):
            losses = cross_entropy(values, self.labels[rows])
            called = self.attack.called_nonmember(losses, seed) if len(losses) else losses
            frame = pd.DataFrame({"clip_id": [ids[i] for i in rows], "role": role})
            frames.append(frame.assign(loss=losses, called_nonmember=called))
        if naive_logits is not None:
            frames[0]["js"] = js_divergence(logits["forget"], naive_logits["forget"])
            frames[0]["activation"] = activation_distance(logits["forget"], naive_logits["forget"])
        columns = ["clip_id", "role", "loss", "called_nonmember", "js", "activation"]
        return pd.concat(frames, ignore_index=True).reindex(columns=columns)

    def evidence(self, logits: Logits, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What the model's own figures say, in words and numbers; a number below its power is refused in words."""
        request, population = self.request, self.population(logits)
        return {
            "request": {
                "name": request.name,
                "kind": request.kind,
                "hash": request.hash,
                "clips_hash": request.clips_hash,
                "n_forget": len(request.forget),
                "n_requested": request.n_requested,
                "n_duplicates_added": request.n_duplicates_added,
            },
            "nonmembers": {
                "are": request.nonmembers_are,
                "n": len(request.nonmembers),
                "set": request.nonmember_set,
                "speaker_confounded": request.speaker_confounded,
            },
            "population_attack": dataclasses.asdict(population),
            "readings": self._readings(population, metrics),
        }

    def _readings(self, population: PopulationResult, metrics: Mapping[str, float]) -> list[str]:
        request = self.request
        readings = [
            f"request {request.name}: {len(request.forget)} recordings, {request.n_requested} asked for and "
            f"{request.n_duplicates_added} copies of them added{few_clips(len(request.forget))}",
            f"non-members: {request.nonmembers_are}",
        ]
        if population.auc is None:
            readings.append("population attack left out: without non-members it would measure speaker or class")
        else:
            readings.append(f"population attack: {population.reading}")
            readings += [CONFOUNDED] if request.speaker_confounded else []
            rates = {"1 %": population.tpr_at_fpr_1pct, "0.1 %": population.tpr_at_fpr_01pct}
            readings += [f"true-positive rate at {at} false positives: {_in_words(rate)}" for at, rate in rates.items()]
        readings.append(
            f"attack models: {metrics['mia/score']:.1%} of the forget recordings called non-member, "
            f"{metrics['mia/remain_called_nonmember']:.1%} of the remain set, "
            f"{metrics['mia/test_called_nonmember']:.1%} of the test set (the target is naive's value, not 100 %)"
        )
        return readings


def few_clips(n_forget: int) -> str:
    """A warning about figures of a handful of recordings, to be appended; empty where there are enough."""
    return "" if n_forget >= FEW_CLIPS else f"; {n_forget} are too few for a share or an AUC of them to say much"


def _in_words(rate: Rate) -> str:
    if rate.value is None:
        return f"refused, {rate.note}"
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}] of {rate.n}, {rate.note}"


def not_recovered(metrics: Mapping[str, float], naive: Mapping[str, float]) -> bool:
    """Whether the accuracy on the remain set is more than 0.1 below naive's."""
    return metrics["remain/accuracy"] < naive["remain/accuracy"] - RECOVERY_TOLERANCE
