"""AudioMNIST (Becker et al. 2018) and the synthetic digits in its layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audio_mu.config import DataParameters
from audio_mu.data import synthetic
from audio_mu.data.catalog import Catalog, Recording, audio_files, say_left_out, sorted_catalog
from audio_mu.data.download import Archive, fetch
from audio_mu.progress import bar
from audio_mu.system.writing import cache_root

LAYOUT = "NN/D_NN_T.wav"
FILE = re.compile(r"(?P<folder>[0-9A-Za-z]+)/(?P<digit>[0-9])_(?P<speaker>[0-9A-Za-z]+)_[0-9]+\.wav")
COMMIT = "ce04129aaa56d47d11a8d9cc1247bac2cafac9b7"


def holds(n_clips: int, n_speakers: int) -> Callable[[Path], str]:
    """A check for `Archive.verify`: the folder must hold so many clips of so many speakers."""

    def verify(folder: Path) -> str:
        ids = (id_ for id_, _ in audio_files(data_folder(folder), (".wav",)))
        found = [match for match in map(FILE.fullmatch, ids) if match]
        speakers = {match["speaker"] for match in found if match["speaker"] == match["folder"]}
        if (len(found), len(speakers)) == (n_clips, n_speakers):
            return ""
        return f"it holds {len(found)} clips of {len(speakers)} speakers, not {n_clips} of {n_speakers}"

    return verify


ARCHIVE = Archive(
    name="AudioMNIST",
    url=f"https://github.com/soerenab/AudioMNIST/archive/{COMMIT}.tar.gz",
    url_variable="AUDIO_MU_AUDIOMNIST_URL",
    sha256=None,  # archives made of a commit are packed anew now and then: they are judged by what they hold
    verify=holds(30_000, 60),
)


@dataclass(frozen=True)
class AudioMNIST:
    """Spoken digits in the layout `NN/D_NN_T.wav` (speaker, digit, take).

    `data_dir` may be the repository, its `data` folder, or any folder of that layout with any number of
    speakers. Without it the repository's archive is downloaded; the environment variable
    `AUDIO_MU_AUDIOMNIST_URL` names a mirror of it.
    """

    archive: Archive = ARCHIVE

    def root(self, config: DataParameters) -> Path:
        """The folder of the speakers' folders."""
        return data_folder(config.data_dir or fetch(self.archive, self.kept()))

    def kept(self) -> Path:
        """The folder of the unpacked archive."""
        return cache_root() / "data" / f"AudioMNIST-{COMMIT[:8]}"

    def catalog(self, root: Path, config: DataParameters) -> Catalog:
        """All recordings."""
        return read_catalog(root)


@dataclass(frozen=True)
class SyntheticDigits:
    """Digits spoken by eSpeak NG voices, made on first use, in AudioMNIST's layout."""

    def root(self, config: DataParameters) -> Path:
        """`data_dir`, or the generated folder in the cache."""
        return config.data_dir or synthetic.generate(self.kept(), progress=bar, rebuild=True)

    def kept(self) -> Path:
        """The generated folder."""
        return synthetic.default_root(cache_root())

    def catalog(self, root: Path, config: DataParameters) -> Catalog:
        """All recordings."""
        return read_catalog(root)


def data_folder(folder: Path) -> Path:
    """Where below `folder` the speakers' folders are: here, in `data`, or in `data` of an unpacked archive's folder."""
    candidates = (folder, folder / "data", *sorted(folder.glob("*/data")))
    return next((place for place in candidates if any(place.glob("*/[0-9]_*_*.wav"))), folder)


def read_catalog(root: Path) -> Catalog:
    """The recordings of a folder in AudioMNIST's layout.

    Files with other names, or in another speaker's folder, are left out and counted. Raises `UserError` where
    there are none.
    """
    recordings, others = [], []
    for id_, path in audio_files(root, (".wav",)):
        match = FILE.fullmatch(id_)
        if match and match["speaker"] == match["folder"]:
            recordings.append(Recording(id_, path, match["digit"], match["speaker"]))
        else:
            others.append(id_)
    say_left_out(others, f"not named {LAYOUT}")
    return sorted_catalog(recordings, root, LAYOUT)
