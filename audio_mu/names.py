"""Names that the store, the tables and the reports share; reading them needs none of the methods' code."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAIVE = "naive"
ORIGINAL = "original"
FLOOR = "retrain_floor"
"""The retrained model, the untouched one, and the distances of retrained models to each other."""

STUDY = (
    NAIVE, "gradient_ascent", "stochastic_teacher", "omp", "cosine", "pop", "amnesiac", "label_smoothing", "fine_tune",
)  # fmt: skip
"""The study's eight methods in its order, and the fine-tuning that it ran beside them."""

EXACT_SHARDS = "exact_shards"
EXACT = (NAIVE, EXACT_SHARDS)
"""The methods that are retraining themselves, and need no measure."""
SHARDS, RETRAINED = "shards/all", "shards/retrained_"
"""The method that retrains single shards, and its figures: how many shards there are, and of each that was retrained,
by its number, the recordings that it was retrained on."""

NONE, BEST = "none", "best"
"""What the parameter `register` takes beside a method's name."""

UNLEARNED = "unlearned"
"""The alias of the unlearned model in service; that of one seed is `unlearned-seed-NN`."""


ADOPTED, ADOPTED_FROM, RECIPE_KNOWN = "adopted", "adopted_from", "recipe_known"
"""Tags of a base model that was trained elsewhere: the hash of its weights, the place that they were read from, and
whether the recipe is that of its training ("true"), so that naive can be retrained, or this data set's ("false")."""

ADOPTED_RUN = "adopted_run_id"
"""Tag of a base model whose weights were read from this store: the run that made them, of which it descends."""

WEIGHTS = ("weights", "weights_float16", "weights_bfloat16")
"""Tags of a run that has logged a network: hashes of its weights, as they are and as files of 16 bits keep them."""


def file_name(text: str) -> str:
    """A name as a part of a path: letters, digits, `.`, `+`, `-` and `_`, which stands for all others."""
    return re.sub(r"[^\w.+-]+", "_", text).lstrip(".") or "_"


def in_order(methods: Iterable[str]) -> list[str]:
    """The order of tables: the original, the study's methods, then every other method by name."""
    present = set(methods)
    study = [method for method in (ORIGINAL, *STUDY) if method in present]
    return study + sorted(present.difference(study))
