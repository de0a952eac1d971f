"""The recipe of a data set: its training settings, which decide where a parameter is `auto`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from audio_mu.config.parsers import FLOAT32


@dataclass(frozen=True)
class Recipe:
    """The content of a recipe file. `logmel_shift` and `logmel_scale` are the fixed constants of logmel."""

    pipeline: str
    split: str
    optimizer: str
    learning_rate: float
    momentum: float
    batch_size: int
    n_epochs: int
    n_epoch_repair: int
    logmel_shift: float
    logmel_scale: float


DECIDES = ("pipeline", "split", "optimizer", "learning_rate", "batch_size", "n_epochs", "n_epoch_repair")
"""Parameters whose `auto` the recipe fills in."""
OLDER = {
    "precision": FLOAT32, "weight_decay": "0", "schedule": "constant", "warmup": "0", "clip_gradient": "0",
    "class_weights": "none", "accumulate": "1", "window": "none", "hop": "none", "shards": "1",
}  # fmt: skip
"""Values of a base model's parameters that older runs and versions do not tell: those of a CPU, and the defaults."""


@cache
def load_recipe(dataset: str) -> Recipe:
    """The recipe of a data set, from the package's YAML file of its name."""
    return Recipe(**yaml.safe_load((Path(__file__).parent / "recipes" / f"{dataset}.yaml").read_text()))
