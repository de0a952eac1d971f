"""What recordings there are: identifiers, files, labels, speakers, official parts. Each data set has its own file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.progress import say

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SHOWN = 3  # how many ids a message quotes


@dataclass(frozen=True)
class Recording:
    """One recording: `id` is its POSIX path below the data root; `part` is train, test, validation or empty."""

    id: str
    path: Path
    label: str
    speaker: str
    part: str = ""


@dataclass(frozen=True)
class Catalog:
    """All recordings of a data set, sorted by id, with the speakers' attributes where they are known."""

    recordings: tuple[Recording, ...]
    class_names: tuple[str, ...]
    speakers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class Dataset(Protocol):
    """What a data set must offer."""

    def root(self, config: Config) -> Path:
        """The folder below which ids are paths, made or downloaded on first use."""

    def catalog(self, root: Path, config: Config) -> Catalog:
        """All its recordings. Raises `UserError` where the folder does not hold them."""


def audio_files(root: Path, suffixes: tuple[str, ...] = AUDIO_SUFFIXES) -> Iterator[tuple[str, Path]]:
    """(id, path) of every file below `root` with one of the suffixes, in any case; in no particular order.

    Hidden files and folders are skipped, symbolic links followed. A link to nothing is given too, so that it is
    reported as unreadable instead of being lost. Raises `UserError` where a folder cannot be read, or an id
    cannot be stored as one line of UTF-8.
    """
    return _walk(root, "", suffixes, frozenset())


def _walk(folder: Path, prefix: str, suffixes: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator:
    try:
        stat = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"folder {str(folder)!r} cannot be read ({error.strerror}): make it readable") from None
    identity = (stat.st_dev, stat.st_ino)
    if identity in above:  # a link back up the tree
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", suffixes, above | {identity})
        elif entry.name.lower().endswith(suffixes) and (entry.is_file() or not os.path.exists(entry.path)):
            yield _checked_id(prefix + entry.name), folder / entry.name


def _checked_id(id_: str) -> str:
    try:
        id_.encode()
    except UnicodeEncodeError:
        raise UserError(f"recording {os.fsencode(id_)!r} has a name that is not valid UTF-8: rename it") from None
    if id_.splitlines() != [id_]:
        raise UserError(f"recording {id_!r} has a line break in its name: rename it")
    return id_


def sorted_catalog(
    recordings: list[Recording], root: Path, expected: str, speakers: Mapping[str, Mapping[str, str]] | None = None
) -> Catalog:
    """Sort by id, name the classes; raise `UserError` where there is nothing to learn from."""
    if not recordings:
        raise UserError(f"data_dir={str(root)!r} holds no recordings laid out as {expected}: check data_dir")
    recordings = sorted(recordings, key=lambda recording: recording.id)
    class_names = tuple(sorted({recording.label for recording in recordings}))
    if len(class_names) < 2:
        raise UserError(f"data_dir={str(root)!r} holds only the class {class_names[0]!r}: at least 2 are needed")
    return Catalog(tuple(recordings), class_names, speakers or {})


def say_left_out(ids: list[str], why: str) -> None:
    """Tell in one line which files of the folder are no part of the data set; nothing where there are none."""
    if ids:
        say(f"left out {len(ids)} files {why}: {quoted(ids)}")


def quoted(ids: list[str]) -> str:
    """The first few of the sorted ids, with … where there are more."""
    return ", ".join(sorted(ids)[:SHOWN]) + (", …" if len(ids) > SHOWN else "")
