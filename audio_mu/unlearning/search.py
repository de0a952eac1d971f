"""Ranges of hyper-parameters from which `tune` draws, in a small declarative form.

A method declares its ranges with `@method(search={name: range})`. The names are its own keyword arguments, or the
four repair settings that all methods share (`REPAIR_FIELDS`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

IMPAIRS = frozenset({"n_epoch_impair", "impair_learning_rate"})
DIGITS = 3


class Range(Protocol):
    """Where a hyper-parameter's value may lie."""

    def draw(self, generator: np.random.Generator, recipe_rate: float) -> Any:
        """One value; `recipe_rate` is the learning rate of the base recipe."""


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely."""

    values: tuple[Any, ...]

    def draw(self, generator: np.random.Generator, recipe_rate: float) -> Any:
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True)
class LogUniform:
    """A number between two positive ones, its logarithm uniform; to three digits.

    With `of_recipe` both are multiples of the recipe's learning rate.
    """

    low: float
    high: float
    of_recipe: bool = False

    def draw(self, generator: np.random.Generator, recipe_rate: float) -> float:
        value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return _rounded(value * recipe_rate if self.of_recipe else value)


def choice(*values: Any) -> Choice:
    """One of the values."""
    return Choice(values)


def log_uniform(low: float, high: float) -> LogUniform:
    """A number whose logarithm is uniform, for rates, penalties and other scales."""
    return LogUniform(low, high)


def of_recipe_rate(low: float, high: float) -> LogUniform:
    """A learning rate from `low` to `high` times the recipe's, its logarithm uniform: for settings that are exact."""
    return LogUniform(low, high, of_recipe=True)


IMPAIR: dict[str, Range] = {"impair_learning_rate": of_recipe_rate(0.03, 10), "n_epoch_impair": choice(1, 2, 3)}
REPAIR: dict[str, Range] = {"repair_learning_rate": of_recipe_rate(0.1, 3)}
"""Ranges for methods with the two steps of the study."""
