"""The run of a stage, and what it says of the base models it is about: nothing here needs the numeric modules."""

from __future__ import annotations

from collections.abc import Mapping

from audio_mu.config import Config
from audio_mu.own_code import digest_of, is_reference
from audio_mu.store.runs import Run, Store

BASE_FIELDS = ("n_epochs", "batch_size", "optimizer", "learning_rate", "checkpoint", "split", "split_seed",
               "clip_seconds")  # fmt: skip
"""What a base model was trained with; attack and unlearn take these from its version."""


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
    # Under any name of the data set `erase` finds what was made from a folder by its path.
    folder = {"data_dir": str(config.data_dir.resolve())} if config.data_dir is not None else {}
    all_tags = {**base_tags(config), **folder, **(tags or {})}
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
