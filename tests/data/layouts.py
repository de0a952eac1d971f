"""Folders in the layouts of the data sets, without sound, and their catalogs."""

from __future__ import annotations

from pathlib import Path

import torch

from audio_mu.config import Config, DataParameters
from audio_mu.data.catalog import Catalog
from audio_mu.data.clips import Clips
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


def clips_of(sources: list[str], labels: list[int] | None = None, **fields: tuple[str, ...]) -> Clips:
    """Clips without sound, with ids in their order; all of one class where nothing else is said."""
    n = len(sources)
    nothing, labels = ("",) * n, labels or [0] * n
    ids = fields.get("ids", tuple(f"{i:04d}.wav" for i in range(n)))
    names = tuple(map(str, range(max(labels) + 1)))
    parts, speakers, hashes = (fields.get(name, nothing) for name in ("parts", "speakers", "hashes"))
    hashes = tuple(sources) if hashes is nothing else hashes
    return Clips(
        torch.zeros(n), Path(), torch.tensor(labels), ids, speakers, hashes, tuple(sources), parts, names, (), (),
        Path(), "",
    )  # fmt: skip
