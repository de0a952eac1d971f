"""What `tune` may try: ranges of the methods' hyper-parameters, in a small declarative form.

The names are a method's own keyword arguments, or the four repair settings that every method shares
(`REPAIR_FIELDS`). No figure depends on this file: it is no part of a step's fingerprint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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


_IMPAIR = {"impair_learning_rate": of_recipe_rate(0.03, 10), "n_epoch_impair": choice(1, 2, 3)}
_REPAIR = {"repair_learning_rate": of_recipe_rate(0.1, 3)}

RANGES: Mapping[str, Mapping[str, Range]] = {
    "gradient_ascent": _IMPAIR | _REPAIR,
    "stochastic_teacher": _IMPAIR | _REPAIR,
    "amnesiac": _IMPAIR | _REPAIR,
    "label_smoothing": _IMPAIR | _REPAIR,
    "omp": {"prune_rate": choice(0.5, 0.7, 0.8, 0.9, 0.95, 0.98)} | _REPAIR,
    "cosine": _REPAIR,
    "pop": _REPAIR,
    "orthogonal": _REPAIR,
    "cosine_thesis": _REPAIR,
    "pop_thesis": _REPAIR,
    "fine_tune": _REPAIR,
    "cf_k": {"epochs": choice(3, 5, 10, 20), "learning_rate": log_uniform(0.001, 0.1)},
    "eu_k": {"epochs": choice(5, 10, 20, 30), "learning_rate": log_uniform(0.001, 0.1)},
    "neggrad_plus": {
        "remain_weight": choice(0.8, 0.9, 0.95, 0.99, 0.999),
        "epochs": choice(3, 5, 10),
        "learning_rate": log_uniform(0.001, 0.05),
    },
    "msg": {
        "share": choice(0.1, 0.2, 0.3, 0.5, 0.7),
        "learning_rate": log_uniform(0.0003, 0.03),
        "kept_update": choice(0.03, 0.1, 0.3, 1.0),
    },
    "salun": {
        "mask_share": choice(0.1, 0.3, 0.5, 0.7),
        "epochs": choice(1, 3, 5, 10),
        "learning_rate": log_uniform(0.0001, 0.03),
    },
    "scrub": {
        "msteps": choice(1, 2, 3, 5),
        "alpha": log_uniform(0.05, 5),
        "epochs": choice(3, 5, 10),
        "learning_rate": log_uniform(0.0005, 0.05),
    },
    "ssd": {"alpha": log_uniform(0.5, 20), "dampening": log_uniform(0.1, 1)},
    "bad_teacher": {
        "remain_share": choice(0.1, 0.3, 0.6, 1.0),
        "epochs": choice(1, 2, 3, 5),
        "learning_rate": log_uniform(0.00003, 0.003),
    },
    "l1_sparse": {
        "penalty": log_uniform(0.00001, 0.005),
        "epochs": choice(3, 5, 10),
        "learning_rate": log_uniform(0.001, 0.1),
    },
    "delete": {"epochs": choice(1, 2, 3, 5), "learning_rate": log_uniform(0.0001, 0.03)},
}
"""Method → what to search. A method that is not named here declares its ranges with itself, or has none."""
