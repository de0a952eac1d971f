"""The data sets by the names that the parameter `dataset` takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from audio_mu.config import DataParameters
from audio_mu.data.audiomnist import AudioMNIST, SyntheticDigits
from audio_mu.data.catalog import Dataset
from audio_mu.data.folder import Folder
from audio_mu.data.speech_commands import SpeechCommands

DATASETS: dict[str, Dataset] = {
    "SyntheticDigits": SyntheticDigits(),
    "audioMNIST": AudioMNIST(),
    "SpeechCommands": SpeechCommands(),
    "folder": Folder(),
}


def check_folder(config: DataParameters) -> int | None:
    """How many classes a given `data_dir` has, None without one. Raises `UserError` where it lacks the recordings."""
    if config.data_dir is None:
        return None
    dataset = DATASETS[config.dataset]
    return len(dataset.catalog(dataset.root(config), config).class_names)


def root_at_hand(config: DataParameters, recorded_folder: str) -> Path | None:
    """The data set's folder if it is on this machine; nothing is downloaded, resumed or generated for it."""
    dataset = DATASETS.get(config.dataset)
    if dataset is None:  # of another version, or one of the user's own
        return None
    folder = config.data_dir or (Path(recorded_folder) if recorded_folder else dataset.kept())
    if folder is None or not folder.is_dir():
        return None
    return dataset.root(dataclasses.replace(config, data_dir=folder))
