"""The data sets by the names that the parameter `dataset` takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from audio_mu.config import DataParameters
from audio_mu.data.audiomnist import AudioMNIST, SyntheticDigits
from audio_mu.data.catalog import Dataset
from audio_mu.data.folder import Folder
from audio_mu.data.speech_commands import SpeechCommands
from audio_mu.system.writing import cache_root

DATASETS: dict[str, Dataset] = {
    "SyntheticDigits": SyntheticDigits(),
    "audioMNIST": AudioMNIST(),
    "SpeechCommands": SpeechCommands(),
    "folder": Folder(),
}


def check_folder(config: DataParameters) -> None:
    """Raise `UserError` where a given `data_dir` does not hold the data set's recordings."""
    if config.data_dir is not None:
        dataset = DATASETS[config.dataset]
        dataset.catalog(dataset.root(config), config)


def root_at_hand(config: DataParameters, recorded_folder: str) -> Path | None:
    """The data set's folder if it is on this machine; nothing is downloaded or generated for it."""
    folder = config.data_dir or (Path(recorded_folder) if recorded_folder else None)
    places = [place for place in (cache_root(), cache_root() / "data") if place.is_dir()]
    name = config.dataset.lower()  # the archive's own spelling differs
    cached = [path for place in places for path in place.iterdir() if path.name.lower().startswith(name)]
    if folder is None and not cached:
        return None
    if folder is not None and not folder.is_dir():
        return None
    return DATASETS[config.dataset].root(dataclasses.replace(config, data_dir=folder))
