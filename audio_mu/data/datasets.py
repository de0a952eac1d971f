"""The data sets by the names that the parameter `dataset` takes."""

from __future__ import annotations

from audio_mu.config import Config
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


def check_folder(config: Config) -> None:
    """Raise `UserError` where a given `data_dir` does not hold the data set's recordings."""
    if config.data_dir is not None:
        dataset = DATASETS[config.dataset]
        dataset.catalog(dataset.root(config), config)
