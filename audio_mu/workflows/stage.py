"""The run of a stage, and what it says of the base models it is about: nothing here needs the numeric modules."""

from __future__ import annotations

from collections.abc import Mapping

from audio_mu.config import Config
from audio_mu.config.reads import OF_BASES, in_force
from audio_mu.store.handle import Store
from audio_mu.store.runs import Run, child_run, open_run


def base_tags(config: Config) -> dict[str, str]:
    """The tags that say which family of base models a run belongs to."""
    return {
        "dataset": config.data.dataset,
        "dataset_name": config.data.label,
        "pipeline": config.data.pipeline,
        "architecture": config.training.network,
    }


def base_params(config: Config) -> dict[str, str]:
    """The parameters that say of which recordings a model was trained, and how."""
    return config.as_text(OF_BASES)


def stage_run(
    store: Store, parent: Run | None, stage: str, config: Config, tags: Mapping[str, str] | None = None
) -> Run:
    """The run of a stage: the entry point's own, or a child of `main`'s. It logs the parameters in force there."""
    name = f"{stage} {config.data.label} {config.data.pipeline} {config.training.network}"
    # Under any name of the data set `erase` finds what was made from a folder by its path.
    folder = {"data_dir": str(config.data.data_dir.resolve())} if config.data.data_dir is not None else {}
    all_tags = {**base_tags(config), **folder, **(tags or {})}
    params = in_force(config, stage)
    if parent is None:
        return open_run(store, stage, name, all_tags, params, config.as_text())
    return child_run(store, parent, stage, "parent", name, all_tags, params)
