"""The score of a trial in a rehearsal of a request: how near it comes to a retrained network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import ndtri

WORST = 2.0


@dataclass(frozen=True)
class Score:
    """What a network answers on the forget set and on the validation part.

    `confidence`: mean probability of the true class of the forget clips, the mean of exp(-loss), with its standard
    error over them; accuracies as fractions; `forget_loss` in nats.
    """

    confidence: float
    forget_accuracy: float
    forget_loss: float
    validation_accuracy: float
    confidence_error: float = math.nan

    def against(self, reference: Score) -> float:
        """|confidence on the forget set - the reference's| + what the validation accuracy lacks to the reference's.

        0 is as good as retraining, 2 the worst; a diverged network, whose figures are not finite, has 2.
        """
        lacking = max(0.0, reference.validation_accuracy - self.validation_accuracy)
        distance = abs(self.confidence - reference.confidence) + lacking
        return distance if math.isfinite(distance) else WORST

    def as_metrics(self) -> dict[str, float]:
        """The figures under the names of the store."""
        return {
            "forget/confidence": self.confidence,
            "forget/accuracy": self.forget_accuracy,
            "forget/loss": self.forget_loss,
            "validation/accuracy": self.validation_accuracy,
            "forget/confidence_error": self.confidence_error,
        }

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float], prefix: str = "") -> Score:
        """The reverse of `as_metrics`, of metrics whose names begin with `prefix`."""
        names = (
            "forget/confidence",
            "forget/accuracy",
            "forget/loss",
            "validation/accuracy",
            "forget/confidence_error",
        )
        return cls(*(metrics[prefix + name] for name in names))


def told_apart(base: Score, reference: Score) -> bool:
    """Whether a network that nothing was done to surely answers the forget clips otherwise than a retrained one."""
    error = math.hypot(base.confidence_error, reference.confidence_error)
    return abs(base.confidence - reference.confidence) > _z(1) * error


def surely_better(trial: Score, base: Score, reference: Score, tried: int) -> bool:
    """Whether a trial is surely better than doing nothing, as the best of so many that were tried.

    Its score is the lower one, and its confidence is nearer to the reference's than to the base's by more than the
    sampling of the forget clips explains. The errors are taken as independent, which is the cautious side: the three
    networks find the same clips hard.
    """
    if not trial.against(reference) < base.against(reference):
        return False
    side = math.copysign(1.0, base.confidence - reference.confidence)
    beyond = side * (trial.confidence - (base.confidence + reference.confidence) / 2)
    error = math.hypot(trial.confidence_error, base.confidence_error / 2, reference.confidence_error / 2)
    return beyond + _z(tried) * error < 0


def _z(tried: int) -> float:
    return float(ndtri(1 - 0.025 / tried))
