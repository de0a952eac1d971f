"""Speech Commands v0.02 (Warden 2018): one-second words by thousands of speakers, with published test lists."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from audio_mu.config import DataParameters
from audio_mu.data.catalog import Catalog, Recording, audio_files, quoted, say_left_out, sorted_catalog
from audio_mu.data.download import Archive, fetch
from audio_mu.errors import UserError, counted
from audio_mu.progress import say_once
from audio_mu.system.reading import read_text
from audio_mu.system.writing import cache_root

LAYOUT = "word/8hex_nohash_N.wav"
FILE = re.compile(r"(?P<word>[^/_][^/]*)/(?P<speaker>[0-9A-Fa-f]{8})_nohash_[0-9]+\.wav")
LISTS = {"test": "testing_list.txt", "validation": "validation_list.txt"}

ARCHIVE = Archive(
    name="Speech Commands v0.02",
    url="http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    url_variable="AUDIO_MU_SPEECH_COMMANDS_URL",
    sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)


@dataclass(frozen=True)
class SpeechCommands:
    """Words in the layout `word/8hex_nohash_N.wav`; the eight hexadecimal digits are the speaker.

    Folders whose name starts with `_` (`_background_noise_`) are no words. `testing_list.txt` and
    `validation_list.txt` name the parts, every other recording is of the part train. Without `data_dir` the
    archive is downloaded; the environment variable `AUDIO_MU_SPEECH_COMMANDS_URL` names a mirror of it, for which
    the same checksum holds.
    """

    archive: Archive = ARCHIVE

    def root(self, config: DataParameters) -> Path:
        """The folder of the words' folders and the lists."""
        return config.data_dir or fetch(self.archive, self.kept())

    def kept(self) -> Path:
        """The folder of the unpacked archive."""
        return cache_root() / "data" / "SpeechCommands-v0.02"

    def catalog(self, root: Path, config: DataParameters) -> Catalog:
        """All recordings of words.

        Entries of the lists that are not there, as after a person's deletion, are left out and told. Raises `UserError`
        where the official split is asked for and a list is missing, names nothing that is there, or a recording that
        the other list names too. Other splits do without the parts then.
        """
        recordings, others = [], []
        for id_, path in audio_files(root, (".wav",)):
            match = FILE.fullmatch(id_)
            if match:
                recordings.append(Recording(id_, path, match["word"], match["speaker"].lower()))
            elif not id_.startswith("_"):
                others.append(id_)
        say_left_out(others, f"not named {LAYOUT}")
        found = sorted_catalog(recordings, root, LAYOUT)
        try:
            parts = _parts(root, {recording.id for recording in found.recordings})
        except UserError:
            if config.split == "official":
                raise
            return found
        placed = tuple(replace(recording, part=parts.get(recording.id, "train")) for recording in found.recordings)
        return replace(found, recordings=placed)


def _parts(root: Path, ids: set[str]) -> dict[str, str]:
    way_out = "restore the data set or give -P split=random or split=speaker"
    parts: dict[str, str] = {}
    absent: list[str] = []
    for part, name in LISTS.items():
        lines = _lines(root / name, way_out)
        listed = [id_ for id_ in lines if id_ in ids]
        if lines and not listed:
            raise UserError(
                f"{name} in {str(root)!r} names {counted(len(lines), 'recording')}, none of which is there "
                f"({quoted(lines)}): {way_out}"
            )
        absent += [id_ for id_ in lines if id_ not in ids]
        twice = [id_ for id_ in listed if id_ in parts]
        if twice:
            raise UserError(f"{name} in {str(root)!r} names {len(twice)} of the test list ({quoted(twice)}): {way_out}")
        parts.update(dict.fromkeys(listed, part))
    if absent:
        say_once(f"left out {counted(len(absent), 'entry')} of the lists, not in the folder: {quoted(absent)}")
    return parts


def _lines(path: Path, way_out: str) -> list[str]:
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise UserError(f"{path.name} is missing in {str(path.parent)!r}: {way_out}") from None
    except (OSError, ValueError):
        raise UserError(f"{path.name} in {str(path.parent)!r} cannot be read as text: {way_out}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
