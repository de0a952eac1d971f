"""Unlearning methods: importing this package fills the registry with every family."""

from audio_mu.unlearning import (  # noqa: F401
    distillation,
    gradient,
    pruning,
    relabelling,
    retraining,
    saliency,
    sparsity,
)
from audio_mu.unlearning.registry import METHODS, Method, choose, method, own_method
from audio_mu.unlearning.search import choice, log_uniform, of_recipe_rate
from audio_mu.unlearning.task import Outcome, Settings, Task, UndeclaredSet, run_method

__all__ = [
    "METHODS", "Method", "Outcome", "Settings", "Task", "UndeclaredSet", "choice", "choose", "log_uniform",
    "method", "of_recipe_rate", "own_method", "run_method",
]  # fmt: skip
