"""Unlearning methods: importing this package fills the registry from every module in it."""

from importlib import import_module
from pkgutil import iter_modules

from audio_mu.unlearning.registry import METHODS, Method, choose, method, own_method
from audio_mu.unlearning.search import choice, log_uniform, of_recipe_rate
from audio_mu.unlearning.task import Settings, Task, UndeclaredSet, Unlearned, run_method

__all__ = [
    "METHODS", "Method", "Settings", "Task", "UndeclaredSet", "Unlearned", "choice", "choose", "log_uniform",
    "method", "of_recipe_rate", "own_method", "run_method",
]  # fmt: skip

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
