"""The data sets by the names that the parameter `dataset` takes."""

from __future__ import annotations

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
