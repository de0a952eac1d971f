"""What a figure depends on beside its data: the source of the numeric code, the network, the machine, the weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import audio_mu
from audio_mu.compute.cores import threads_and_workers
from audio_mu.compute.jobs import TrainJob
from audio_mu.compute.problem import Problem
from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.names import WEIGHTS
from audio_mu.own_code import digest_of, is_reference, load, own_code
from audio_mu.seeding import settings_kept
from audio_mu.system.hashing import file_sha256, hash_of, sha256
from audio_mu.training import OptimizerSettings, pick_device

TRAINING_SOURCE = ("seeding.py", "optimizer.py", "training.py", "sharding.py", "data", "models", "compute")
UNLEARNING_SOURCE = (*TRAINING_SOURCE, "unlearning", "requests")
MEASURED_SOURCE = (*UNLEARNING_SOURCE, "audit")
"""Packages and modules whose source is part of a step's fingerprint."""
NOT_NUMERIC = ("search.py", "trials.py")  # settings, not figures, come from a search


def network_source(config: Config) -> str:
    """Hash of the file of the user's own network and of what it starts from, empty for the package's."""
    reference = config.training.architecture
    if not is_reference(reference):
        return ""
    started_from = getattr(load(reference), "started_from", None)
    if not callable(started_from):
        return digest_of(reference)
    with (
        settings_kept(),
        own_code(lambda about: f"architecture={reference!r}: started_from() fails ({about}): mend it"),
    ):
        return hash_of([digest_of(reference), started_from()])


def network_identity(config: Config) -> str:
    """What tells networks of one name apart: the name, and of the user's own the file's hash."""
    source = network_source(config)
    return f"{config.training.network}@{source}" if source else config.training.network


@cache
def source_hash(parts: tuple[str, ...]) -> str:
    """Hash of the source of numeric modules: figures of other code are other figures."""
    root = Path(audio_mu.__file__).parent
    files = sorted(
        path for part in parts for path in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))
        if path.name not in NOT_NUMERIC
    )  # fmt: skip
    return hash_of([[path.relative_to(root).as_posix(), file_sha256(path)] for path in files])


def machine(config: Config) -> list[Any]:
    """What of the machine a figure depends on."""
    threads, _ = threads_and_workers(config.machine)
    return [threads, pick_device(config.machine.device).type, torch.__version__]


def problem(config: Config, clips: Clips) -> Problem:
    """What every job shares."""
    threads, _ = threads_and_workers(config.machine)
    return Problem(
        clips.features_file,
        clips.labels.numpy(),
        config.training.architecture,
        len(clips.class_names),
        config.machine.device,
        threads,
        config.training.shards,
    )


def optimizer_settings(config: Config) -> OptimizerSettings:
    """The recipe's optimiser at its rate, with all that goes with it."""
    training = config.training
    return OptimizerSettings(
        training.optimizer,
        training.learning_rate,
        config.data.recipe.momentum,
        training.weight_decay,
        training.clip_gradient,
        training.schedule,
        training.warmup,
        training.accumulate,
    )


def training_job(
    config: Config, clips: Clips, seed: int, train: np.ndarray, sets: Mapping[str, np.ndarray],
    shard_of: np.ndarray | None = None, best_on: str | None = None,
) -> TrainJob:  # fmt: skip
    """The training of a network of the recipe on some clips; see `TrainJob`."""
    training = config.training
    return TrainJob(
        problem=problem(config, clips),
        seed=seed,
        train=train,
        sets=sets,
        optimizer=optimizer_settings(config),
        batch_size=training.batch_size,
        n_epochs=training.n_epochs,
        best_on=best_on,
        precision=training.precision,
        class_weights=training.class_weights,
        shard_of=shard_of,
    )


def state_hash(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of weights: their names, types, shapes and numbers, whatever the file that held them."""
    return sha256(*(part for name, value in sorted(state.items()) for part in (name, *_parts(value))))


def _parts(value: np.ndarray) -> tuple[str, str, memoryview]:
    return str(value.dtype), str(value.shape), value.reshape(-1).view(np.uint8).data


def weights_tags(state: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The tags `WEIGHTS` by which the weights of a model are known in any file that has them."""
    kept_as = dict(zip(WEIGHTS, (None, torch.float16, torch.bfloat16)))
    return {tag: _numbers_hash(state, dtype) for tag, dtype in kept_as.items()}


def weights_hash(state: Mapping[str, np.ndarray]) -> str:
    """The one of `WEIGHTS` that a model with these weights has, whether they were kept in 16 bits meanwhile or not."""
    return _numbers_hash(state, None)


def _numbers_hash(state: Mapping[str, np.ndarray], kept_as: torch.dtype | None) -> str:
    """SHA-256 of the tensors' types, shapes and numbers, after having been of a type; their names may change."""

    def kept(value: np.ndarray) -> np.ndarray:
        if kept_as is None or not np.issubdtype(value.dtype, np.floating):
            return value
        own = torch.from_numpy(value)
        return own.to(kept_as).to(own.dtype).numpy()

    return sha256(*sorted(sha256(*_parts(kept(value))) for value in state.values()))
