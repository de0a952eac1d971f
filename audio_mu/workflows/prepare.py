"""What the workflows share: the data of a configuration, fingerprints, and base models found by their alias."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import audio_mu
from audio_mu.config import Config, defaults, load_recipe
from audio_mu.data.clips import Clips, load_clips
from audio_mu.data.splits import Split, split_clips
from audio_mu.errors import UserError
from audio_mu.files import file_sha256, hash_of
from audio_mu.own_code import digest_of, is_reference
from audio_mu.store import registry
from audio_mu.store.registry import Version
from audio_mu.store.runs import Run, Store
from audio_mu.training import OptimizerSettings, pick_device
from audio_mu.workflows.engine import threads_and_workers
from audio_mu.workflows.jobs import Problem

BASE_FIELDS = ("n_epochs", "batch_size", "optimizer", "learning_rate", "checkpoint", "split", "split_seed",
               "clip_seconds")  # fmt: skip
"""What a base model was trained with; attack and unlearn take these from its version."""

TRAINING_SOURCE = ("seeding.py", "training.py", "data/audio.py", "data/features.py", "data/splits.py", "models")
UNLEARNING_SOURCE = (*TRAINING_SOURCE, "unlearning", "request.py")
NOT_NUMERIC = "search.py"  # the ranges that a search draws from: settings, not figures, come from there


@dataclass(frozen=True)
class Data:
    """The clips of a configuration and their split."""

    clips: Clips
    split: Split


def load_data(config: Config) -> Data:
    """Clips and split of a resolved configuration. Raises `UserError` where there are none."""
    clips = load_clips(config)
    assert config.split is not None  # resolved
    return Data(clips, split_clips(config.split, config.split_seed, clips.parts, clips.speakers, clips.hashes))


@cache
def source_hash(parts: tuple[str, ...]) -> str:
    """Hash of the source of numeric modules: figures of other code are other figures."""
    root = Path(audio_mu.__file__).parent
    files = sorted(
        path for part in parts for path in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))
        if path.name != NOT_NUMERIC
    )  # fmt: skip
    return hash_of([[path.relative_to(root).as_posix(), file_sha256(path)] for path in files])


def machine(config: Config) -> list[Any]:
    """What of the machine a figure depends on."""
    threads, _ = threads_and_workers(config)
    return [threads, pick_device(config.device).type, torch.__version__]


def problem(config: Config, clips: Clips) -> Problem:
    """What every job shares."""
    threads, _ = threads_and_workers(config)
    return Problem(
        clips.features_file, clips.labels.numpy(), config.architecture, len(clips.class_names), config.device, threads
    )


def optimizer_settings(config: Config) -> OptimizerSettings:
    """The recipe's optimiser at its rate."""
    assert config.optimizer is not None and config.learning_rate is not None  # resolved
    return OptimizerSettings(config.optimizer, config.learning_rate, load_recipe(config.dataset).momentum)


def base_tags(config: Config) -> dict[str, str]:
    """The tags that say which family of base models a run belongs to."""
    assert config.pipeline is not None  # resolved
    return {
        "dataset": config.dataset,
        "dataset_name": config.name,
        "pipeline": config.pipeline,
        "architecture": config.network,
    }


def stage_run(
    store: Store, parent: Run | None, stage: str, config: Config, tags: Mapping[str, str] | None = None
) -> Run:
    """The run of a stage: the entry point's own, or a child of `main`'s."""
    name = f"{stage} {config.name} {config.pipeline} {config.network}"
    all_tags = {**base_tags(config), **(tags or {})}
    params = config.as_text()
    if parent is None:
        return store.open_run(stage, name, all_tags, params)
    return store.child_run(parent, stage, "parent", name, all_tags, params)


def network_source(config: Config) -> str:
    """Hash of the file of the user's own network, empty for the package's."""
    return digest_of(config.architecture) if is_reference(config.architecture) else ""


def network_identity(config: Config) -> str:
    """What tells networks of one name apart: the name, and of the user's own the file's hash."""
    source = network_source(config)
    return f"{config.network}@{source}" if source else config.network


def recipe_of(config: Config) -> dict[str, str]:
    """The settings that make a base model, as text."""
    return {name: config.as_text()[name] for name in BASE_FIELDS}


@dataclass(frozen=True)
class Bases:
    """The base models of a configuration: per seed the version behind its alias, all of one recipe."""

    config: Config
    versions: Mapping[int, Version]

    def fingerprints(self) -> dict[int, str]:
        """Per seed the fingerprint of the base's training."""
        return {seed: version.tags["fingerprint"] for seed, version in self.versions.items()}


def find_bases(store: Store, config: Config) -> Bases:
    """Find the base models of every seed, and take the recipe that they were trained with.

    Raises `UserError` where one is missing (with the command that makes it), where the seeds were trained
    differently, or where a parameter that was given contradicts the recipe.
    """
    resolved = config.resolved()
    name = resolved.registered_model
    versions = {seed: registry.by_alias(store, name, f"seed-{seed}") for seed in config.seeds}
    missing = [seed for seed, version in versions.items() if version is None]
    if missing:
        listed = ",".join(map(str, missing))
        raise UserError(
            f"no base model {name} for seeds={listed} in this store: run `mlflow run . -e train` first, "
            "with the same dataset, pipeline and architecture"
        )
    found = {seed: version for seed, version in versions.items() if version is not None}
    edited = [seed for seed, v in found.items() if v.tags.get("network_source", "") != network_source(config)]
    if edited:
        raise UserError(
            f"architecture={config.architecture!r} has been edited since seeds={','.join(map(str, edited))} of {name} "
            "were trained: run `mlflow run . -e train` again"
        )
    recipes = {seed: json.loads(version.tags["recipe"]) for seed, version in found.items()}
    first_seed, recipe = next(iter(recipes.items()))
    for seed, other in recipes.items():
        differing = [key for key in BASE_FIELDS if other[key] != recipe[key]]
        if differing:
            key = differing[0]
            raise UserError(
                f"the base models of {name} were trained differently: {key}={recipe[key]} for seed {first_seed} but "
                f"{other[key]} for seed {seed}: train them again with one setting"
            )
    given = config.as_text()
    for key in BASE_FIELDS:
        if given[key] not in (defaults()[key], recipe[key]):
            raise UserError(
                f"{key}={given[key]} contradicts the base models of {name}, trained with {key}={recipe[key]}: "
                f"leave {key} out, or train again with it"
            )
    parsed = Config.from_text({**given, **recipe}).resolved()
    return Bases(dataclasses.replace(parsed, data_dir=config.data_dir), found)


def check_digest(bases: Bases, clips: Clips) -> None:
    """Raise `UserError` where the recordings are not those that the base models were trained on."""
    for seed, version in bases.versions.items():
        if version.tags["clips_digest"] != clips.digest:
            raise UserError(
                f"the recordings have changed since {version.name} seed {seed} was trained (digest "
                f"{version.tags['clips_digest'][:8]} then, {clips.digest[:8]} now): train again, or give the "
                "data_dir that was trained on"
            )
