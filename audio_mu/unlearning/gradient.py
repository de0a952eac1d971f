"""Methods that follow a gradient away from the forget set."""

from __future__ import annotations

from torch import Tensor, nn

from audio_mu.training import Batch, cross_entropy, normalisations
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import BOTH_STEPS, EPOCHS, IMPAIR, RATE, REPAIR, SHARE, choice, log_uniform
from audio_mu.unlearning.task import PUBLISHED_RATE, Task


def bounded_rate(task: Task) -> float:
    """0.01 · min(1, b / |F|): the study's rate for steps that push away, without its growth on small requests."""
    return PUBLISHED_RATE * min(1.0, task.settings.clips_of_step / task.n_forget)


@method(reads={"forget", "remain"}, raises_forget_loss=True, settings=BOTH_STEPS, search=IMPAIR | REPAIR)
def gradient_ascent(task: Task) -> nn.Module:
    """Ascend the cross-entropy of the forget set for an epoch, then repair (Graves et al. 2021, as in the study).

    Impair: minimise -CE over the forget set at rate 0.01 · min(1, b / |F|).
    """

    def ascend(network: nn.Module, batch: Batch) -> Tensor:
        return -cross_entropy(network, batch)

    network = task.impair(task.base(), ascend, published_rate=bounded_rate(task))
    return task.repair(network)


@method(
    reads={"forget", "remain"},
    raises_forget_loss=True,
    settings={"impair_learning_rate"},
    limits={"remain_weight": SHARE, "epochs": EPOCHS, "learning_rate": RATE},
    search={
        "remain_weight": choice(0.8, 0.9, 0.95, 0.99, 0.999),
        "epochs": choice(3, 5, 10),
        "learning_rate": log_uniform(0.001, 0.05),
    },
)
def neggrad_plus(
    task: Task, *, remain_weight: float = 0.95, epochs: int = 10, learning_rate: float = 0.01
) -> nn.Module:
    """Descend on the remain set while ascending on the forget set, in every step (Kurmanji et al. 2023).

    Per batch of the remain set: a · CE(remain) - (1 - a) · CE(forget), a = 0.95, the forget set's batches repeated
    without end. Statistics of batch normalisation stay as they are.
    """
    pushed = task.endless("forget", "pushed")

    def contrast(network: nn.Module, batch: Batch) -> Tensor:
        kept, left = task.remain_loss(network, batch), cross_entropy(network, next(pushed))
        return remain_weight * kept - (1 - remain_weight) * left

    network = task.base()
    optimizer = task.optimizer(network, learning_rate, task.settings.impair_learning_rate)
    at_rest = normalisations(network)
    return task.fit(
        network, "remain", contrast, epochs=epochs, optimizer=optimizer, purpose="contrast", at_rest=at_rest
    )
