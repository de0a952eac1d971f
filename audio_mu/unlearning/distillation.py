"""Methods in which a teacher says what to answer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from audio_mu.training import Batch, Objective
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.task import Task


def divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) of the softened distributions, mean over the batch; [b, classes] each."""
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, log_target=True, reduction="batchmean")


def imitate(task: Task, teacher: nn.Module, name: str) -> Objective:
    """Match a frozen teacher on a set. It answers each clip once: in evaluation mode its answer never changes."""
    answers = task.logits(teacher, name)

    def match(network: nn.Module, batch: Batch) -> Tensor:
        return divergence(network(batch.features), answers[batch.rows])

    return match


@method(reads={"forget", "remain"}, raises_forget_loss=True)
def stochastic_teacher(task: Task) -> nn.Module:
    """Learn from a random teacher on the forget set, then from the original on the remain set (Zhang et al. 2022).

    Both steps minimise KL(teacher ‖ student) at temperature 1, batch mean, rate 0.01.
    """
    network = task.impair(task.base(), imitate(task, task.fresh("teacher"), "forget"))
    with task.repairing():
        recall = imitate(task, task.original, "remain")
    return task.repair(network, recall)
