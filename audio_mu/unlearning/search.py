"""Where hyper-parameters may lie, and the ranges from which `tune` draws, in a small declarative form.

A method declares them with `@method(limits={name: limits}, search={name: range})`. The names are its own keyword
arguments; of ranges also the repair settings that it reads (`REPAIR_FIELDS`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

IMPAIR_STEP = frozenset({"n_epoch_impair", "impair_learning_rate"})
REPAIR_STEP = frozenset({"n_epoch_repair", "repair_learning_rate"})
BOTH_STEPS = IMPAIR_STEP | REPAIR_STEP
"""The settings of the study's two steps."""
LARGEST = 1_000_000_000
DIGITS = 3


@dataclass(frozen=True)
class Limits:
    """The values that a hyper-parameter may have: from `low`, or above it, to `high`."""

    low: float
    high: float = LARGEST
    above: bool = False
    whole: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value is a number within these limits; NaN never is."""
        if not isinstance(value, int if self.whole else int | float) or isinstance(value, bool):
            return False
        return bool(self.low <= value <= self.high and not (self.above and value == self.low))

    def __str__(self) -> str:
        start = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        end = f" to {self.high:g}" if self.high < LARGEST else ""
        return f"a {'whole ' if self.whole else ''}number {start}{end or ('' if self.above else ' on')}"


EPOCHS, COUNT = Limits(1, whole=True), Limits(0, whole=True)
RATE, WEIGHT, SHARE = Limits(0, above=True), Limits(0), Limits(0, 1)


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
