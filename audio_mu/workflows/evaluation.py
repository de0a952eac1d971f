"""Metrics of one unlearned model, put together from logits: every figure comes from the audit package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from audio_mu.audit.attack_models import Attack
from audio_mu.audit.distances import distances, tug_of_war
from audio_mu.audit.performance import cross_entropy, performance
from audio_mu.audit.population import population_attack
from audio_mu.request import Request

Logits = Mapping[str, np.ndarray]
RECOVERY_TOLERANCE = 0.1
COMPARED = ("forget", "remain", "test")


@dataclass(frozen=True)
class Evaluator:
    """What all models of a request are measured with."""

    request: Request
    labels: np.ndarray
    attack: Attack

    def alone(self, logits: Logits, seed: int) -> dict[str, float]:
        """Figures that need no other model: performance on every set, and what membership attacks see."""
        sets = self.request.sets()
        metrics = {
            f"{name}/{key}": value
            for name, indices in sets.items()
            for key, value in performance(logits[name], self.labels[indices]).items()
        }
        losses = {name: cross_entropy(logits[name], self.labels[indices]) for name, indices in sets.items()}
        called = {name: float(self.attack.called_nonmember(values, seed).mean()) for name, values in losses.items()}
        metrics["mia/score"] = called["forget"]
        metrics["mia/remain_called_nonmember"] = called["remain"]
        metrics["mia/test_called_nonmember"] = called["test"]
        against = "held_out" if self.request.kind in ("class", "speaker") else "test"
        if against in sets:
            fair = np.isin(sets[against], self.request.nonmembers)
            population = population_attack(losses["forget"], losses[against][fair])
            metrics |= {f"mia/{key}": value for key, value in population.as_metrics().items()}
        return metrics

    def against_naive(self, metrics: Mapping[str, float], logits: Logits, naive: Mapping[str, float],
                      naive_logits: Logits) -> dict[str, float]:  # fmt: skip
        """Gaps and distances to the retrained model of the same seed, and how much faster the method was.

        `metrics` and `naive` hold the two models' own figures.
        """
        result = {
            f"distance/{name}": value for name, value in distances(logits["forget"], naive_logits["forget"]).items()
        }
        accuracy = {name: metrics[f"{name}/accuracy"] for name in COMPARED}
        reference = {name: naive[f"{name}/accuracy"] for name in COMPARED}
        result |= {f"gap/{name}_accuracy": accuracy[name] - reference[name] for name in COMPARED}
        result["gap/mia_score"] = metrics["mia/score"] - naive["mia/score"]
        if "mia/auc" in metrics and "mia/auc" in naive:
            result["gap/mia_auc"] = metrics["mia/auc"] - naive["mia/auc"]
        tow = tug_of_war(accuracy, reference)
        if tow is not None:
            result["gap/tow"] = tow
        if metrics.get("time/total_s"):
            result["time/speedup"] = naive["time/total_s"] / metrics["time/total_s"]
        return result


def not_recovered(metrics: Mapping[str, float], naive: Mapping[str, float]) -> bool:
    """Whether the accuracy on the remain set is more than 0.1 below naive's."""
    return metrics["remain/accuracy"] < naive["remain/accuracy"] - RECOVERY_TOLERANCE
