"""The score of a trial in a rehearsal of a request: how near it comes to a retrained network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

WORST = 2.0


@dataclass(frozen=True)
class Score:
    """What a network answers on the forget set and on the validation part.

    `confidence`: mean probability of the true class of the forget clips, the mean of exp(-loss); accuracies as
    fractions; `forget_loss` in nats.
    """

    confidence: float
    forget_accuracy: float
    forget_loss: float
    validation_accuracy: float

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
        }

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> Score:
        """The reverse of `as_metrics`."""
        names = ("forget/confidence", "forget/accuracy", "forget/loss", "validation/accuracy")
        return cls(*(metrics[name] for name in names))
