"""Folders in the layouts of the data sets, without sound, and their catalogs."""

from __future__ import annotations

from pathlib import Path

from audio_mu.config import Config, DataParameters
from audio_mu.data.catalog import Catalog
from audio_mu.data.datasets import DATASETS


def config_of(dataset: str, folder: Path, **values: str) -> DataParameters:
    return Config.from_text({"dataset": dataset, "data_dir": str(folder), **values}).data


def catalog_of(config: DataParameters) -> Catalog:
    dataset = DATASETS[config.dataset]
    return dataset.catalog(dataset.root(config), config)


def touch(folder: Path, *ids: str) -> None:
    for id_ in ids:
        (folder / id_).parent.mkdir(parents=True, exist_ok=True)
        (folder / id_).touch()
