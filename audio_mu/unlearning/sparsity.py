"""Fine-tuning under a penalty that makes weights sparse."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audio_mu.training import Batch, trained_parameters
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import EPOCHS, RATE, WEIGHT, choice, log_uniform
from audio_mu.unlearning.task import Task


@method(
    reads={"remain"},
    settings={"repair_learning_rate"},
    limits={"penalty": WEIGHT, "epochs": EPOCHS, "learning_rate": RATE},
    search={
        "penalty": log_uniform(0.00001, 0.005),
        "epochs": choice(3, 5, 10),
        "learning_rate": log_uniform(0.001, 0.1),
    },
)
def l1_sparse(task: Task, *, penalty: float = 0.0005, epochs: int = 10, learning_rate: float = 0.01) -> nn.Module:
    """Fine-tune on the remain set under an L1 penalty that fades linearly (Jia et al. 2023).

    Epoch t of T, from 0: CE + a · (1 - t / T) · Σ|θ| over the parameters that are not frozen, a = 0.0005.
    """
    strength = penalty

    def fade(epoch: int) -> None:
        nonlocal strength
        strength = penalty * (1 - epoch / epochs)

    def sparse(network: nn.Module, batch: Batch) -> Tensor:
        magnitude = torch.stack([parameter.abs().sum() for parameter in trained_parameters(network)]).sum()
        return task.remain_loss(network, batch) + strength * magnitude

    return task.repair(task.base(), sparse, epochs=epochs, published_rate=learning_rate, before_epoch=fade)
