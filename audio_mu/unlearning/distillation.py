"""Methods in which the network learns the answers of a teacher."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import MultiStepLR

from audio_mu.training import Batch, Objective, OptimizerSettings
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import (
    BOTH_STEPS,
    COUNT,
    EPOCHS,
    IMPAIR,
    RATE,
    REPAIR,
    SHARE,
    WEIGHT,
    choice,
    log_uniform,
)
from audio_mu.unlearning.task import Task


def divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) of the softened distributions, mean over the batch; [b, classes] each."""
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, log_target=True, reduction="batchmean")


def imitate(task: Task, teacher: nn.Module, name: str, temperature: float = 1.0) -> Objective:
    """Match a frozen teacher on a set. It answers each clip once: in evaluation mode its answer never changes."""
    answers = task.logits(teacher, name)

    def match(network: nn.Module, batch: Batch) -> Tensor:
        return divergence(network(batch.features), answers[batch.rows], temperature)

    return match


@method(reads={"forget", "remain"}, raises_forget_loss=True, settings=BOTH_STEPS, search=IMPAIR | REPAIR)
def stochastic_teacher(task: Task) -> nn.Module:
    """Learn from a random teacher on the forget set, then from the original on the remain set (Zhang et al. 2023).

    Both steps minimise KL(teacher ‖ student) at temperature 1, batch mean, rate 0.01.
    """
    network = task.impair(task.base(), imitate(task, task.fresh("teacher"), "forget"))
    with task.repairing():
        recall = imitate(task, task.original, "remain")
    return task.repair(network, recall)


RATE_DROPS = (3, 5, 9)
"""Epochs, counted from 0, at whose start SCRUB's rate falls to a tenth."""


@method(
    reads={"forget", "remain"},
    raises_forget_loss=True,
    settings={"impair_learning_rate"},
    limits={
        "msteps": COUNT,
        "gamma": WEIGHT,
        "alpha": WEIGHT,
        "temperature": RATE,
        "epochs": EPOCHS,
        "learning_rate": RATE,
        "batch_size": EPOCHS,
    },
    search={
        "msteps": choice(1, 2, 3, 5),
        "alpha": log_uniform(0.05, 5),
        "epochs": choice(3, 5, 10),
        "learning_rate": log_uniform(0.0005, 0.05),
    },
)
def scrub(
    task: Task,
    *,
    msteps: int = 3,
    gamma: float = 1.0,
    alpha: float = 0.5,
    temperature: float = 4.0,
    epochs: int = 10,
    learning_rate: float = 0.0005,
    batch_size: int = 64,
) -> nn.Module:
    """Leave the original on the forget set while staying with it on the remain set (Kurmanji et al. 2023).

    In each of the first `msteps` epochs a pass over the forget set maximises T² · KL(original ‖ student); every epoch
    a pass over the remain set minimises γ · CE + α · T² · KL. One optimiser, its rate × 0.1 at epochs 3, 5 and 9.
    """
    network = task.base()
    optimizer = task.optimizer(network, learning_rate, task.settings.impair_learning_rate)
    rates = MultiStepLR(optimizer, RATE_DROPS, gamma=0.1)
    away = imitate(task, task.original, "forget", temperature)
    with task.repairing():
        towards = imitate(task, task.original, "remain", temperature)

    def leave(network: nn.Module, batch: Batch) -> Tensor:
        return -(temperature**2) * away(network, batch)

    def stay(network: nn.Module, batch: Batch) -> Tensor:
        return gamma * task.remain_loss(network, batch) + alpha * temperature**2 * towards(network, batch)

    common: dict[str, Any] = {"epochs": 1, "optimizer": optimizer, "batch_size": batch_size}
    for epoch in range(epochs):
        if epoch < msteps:
            task.fit(network, "forget", leave, purpose=f"forget {epoch}", **common)
        with task.repairing():
            task.fit(network, "remain", stay, purpose=f"remain {epoch}", **common)
        rates.step()
    return network


@method(
    reads={"forget", "remain"},
    raises_forget_loss=True,
    settings={"impair_learning_rate"},
    limits={"remain_share": SHARE, "epochs": EPOCHS, "learning_rate": RATE},
    search={
        "remain_share": choice(0.1, 0.3, 0.6, 1.0),
        "epochs": choice(1, 2, 3, 5),
        "learning_rate": log_uniform(0.00003, 0.003),
    },
)
def bad_teacher(task: Task, *, remain_share: float = 0.3, epochs: int = 1, learning_rate: float = 0.0001) -> nn.Module:
    """Learn from a random teacher on the forget set and from the original elsewhere (Chundawat et al. 2023).

    Mixed batches of the forget set and a random 30 % of the remain set; KL(teacher ‖ student) at temperature 1 to the
    teacher of each clip. Adam at its own rate 0.0001, whatever the recipe.
    """
    forget, remain = task.examples("forget"), task.examples("remain")
    n_shown = math.ceil(remain_share * len(remain))
    shown = torch.randperm(len(remain), generator=task.draw("shown"))[:n_shown].to(remain.indices.device)
    remain = replace(remain, indices=remain.indices[shown])
    answers = torch.cat([task.logits(task.fresh("teacher"), forget), task.logits(task.original, remain)])

    def match(network: nn.Module, batch: Batch) -> Tensor:
        return divergence(network(batch.features), answers[batch.rows])

    network = task.base()
    rate = task.settings.impair_learning_rate
    optimizer = OptimizerSettings("adam", learning_rate if rate is None else rate).build(network.parameters())
    return task.fit(network, forget.joined(remain), match, epochs=epochs, optimizer=optimizer, purpose="match")


@method(
    reads={"forget"},
    raises_forget_loss=True,
    settings={"impair_learning_rate"},
    limits={"epochs": EPOCHS, "learning_rate": RATE},
    search={"epochs": choice(1, 2, 3, 5), "learning_rate": log_uniform(0.0001, 0.03)},
)
def delete(task: Task, *, epochs: int = 1, learning_rate: float = 0.001) -> nn.Module:
    """Keep the original's answers on the forget set but for the true class (Zhou et al. 2025).

    Target: softmax of the frozen original's logits with the true class at -∞; KL(target ‖ student), batch mean. Nothing
    but the forget set is read and nothing is repaired. The paper sets its rates per network.
    """
    forget = task.examples("forget")
    logits = task.logits(task.original, forget)
    true_class = forget.labels[forget.indices].unsqueeze(1)
    target = logits.scatter(1, true_class, -math.inf).softmax(dim=1)

    def match(network: nn.Module, batch: Batch) -> Tensor:
        # Not `divergence`: the logarithm of the true class's probability, 0, would make 0 · -∞ = NaN.
        student = functional.log_softmax(network(batch.features), dim=1)
        return functional.kl_div(student, target[batch.rows], reduction="batchmean")

    return task.impair(task.base(), match, epochs=epochs, published_rate=learning_rate)
