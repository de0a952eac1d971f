"""Catalogs: the recordings of a data set, with ids, files, labels, speakers and official parts."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from audio_mu.config import DataParameters
from audio_mu.data.segments import Heard, Span, recording_of
from audio_mu.errors import UserError, counted, first_of
from audio_mu.printable import OBEYED
from audio_mu.progress import say_once

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SHOWN = 3  # how many ids a message quotes
MAX_DEPTH = 50  # folders above a recording
MAX_FOLDERS = 200_000  # links to siblings can make 2**n paths of n folders
LONGEST_NAMES = 50_000  # characters of all class names as JSON; a tag of the registry takes 100,000
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # category Cc, and the two separators that end a line


@dataclass(frozen=True)
class Recording:
    """One recording: `id` is its POSIX path below the data root; `part` is train, test, validation or empty.

    A part of a recording has its `span`, and an id such as `path#12.0-14.0` (`segments.named`). `fault`: why it cannot
    be read, where that is known before.
    """

    id: str
    path: Path
    label: str
    speaker: str
    part: str = ""
    fault: str = ""
    span: Span | None = None


@dataclass(frozen=True)
class Catalog:
    """All recordings of a data set, sorted by id, and the names of its classes."""

    recordings: tuple[Recording, ...]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Barred:
    """Recordings that may not be read again, by id, by audio or source hash, by speaker (`composed`), by class.

    `labels` name classes that keep their place. `absent`: recordings that a table may name though their files are gone.
    """

    ids: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    speakers: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    absent: Barred | None = None

    @cached_property
    def _heard(self) -> Heard:
        return Heard(self.ids)

    def bars(self, recording: Recording) -> bool:
        """Whether a recording may not be read, as far as its file's place tells."""
        return (
            recording.id in self._heard
            or composed(recording.speaker) in self.speakers
            or recording.label in self.classes
            or (bool(recording.fault) and self.absent is not None and self.absent.bars(recording))
        )


NOTHING_BARRED = Barred()


class Dataset(Protocol):
    """The interface of a data set."""

    def root(self, config: DataParameters) -> Path:
        """The folder below which ids are paths, made or downloaded on first use."""

    def kept(self) -> Path | None:
        """The folder of the cache that it is kept in once it is made or downloaded; None for a user's own."""

    def catalog(self, root: Path, config: DataParameters) -> Catalog:
        """All its recordings. Raises `UserError` where the folder does not hold them."""


def audio_files(root: Path, suffixes: tuple[str, ...] = AUDIO_SUFFIXES) -> Iterator[tuple[str, Path]]:
    """(id, path) of every file below `root` with one of the suffixes, in any case; in no particular order.

    Hidden files and folders are skipped, symbolic links followed. Links to nothing or to themselves, pipes and
    devices are given too, so that they are reported as unreadable instead of being lost. Raises
    `UserError` where a folder cannot be read, folders are nested or linked without end, or an id cannot be stored
    as one line of UTF-8.
    """
    folders = 0
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(root, "", frozenset())]
    while waiting:
        folder, prefix, above = waiting.pop()
        folders += 1
        if len(above) > MAX_DEPTH or folders > MAX_FOLDERS:
            raise UserError(
                f"data_dir={str(root)!r} has folders nested deeper than {MAX_DEPTH} or more than {MAX_FOLDERS:,} of "
                f"them, such as {_shortened(prefix)!r}: remove symbolic links between folders"
            )
        identity, entries = _entries(folder)
        if identity in above:  # a link back up the tree
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                waiting.append((folder / entry.name, f"{prefix}{entry.name}/", above | {identity}))
            elif entry.name.lower().endswith(suffixes):
                yield _checked_id(prefix + entry.name), folder / entry.name


def recording_below(root: Path, id_: str) -> Path | None:
    """The file that an id is of, or a part of, in a data set's folder, None where `audio_files` gives none of it.

    The one way from an id that a store has to a path: whoever writes a store could name `../x` or `/home/x`.
    """
    id_ = recording_of(id_)
    parts = id_.split("/")
    if any(not part or part.startswith(".") or "\0" in part for part in parts):  # hidden ones and `..` among them
        return None
    path = root.joinpath(*parts)
    try:
        return path if id_.lower().endswith(AUDIO_SUFFIXES) and path.is_file() else None
    except OSError:  # a name that no file system could hold
        return None


def _entries(folder: Path) -> tuple[tuple[int, int], list[os.DirEntry[str]]]:
    """The identity of a folder, whatever its name, and its entries."""
    try:
        stat = folder.stat()
        with os.scandir(folder) as entries:
            return (stat.st_dev, stat.st_ino), list(entries)
    except OSError as error:
        raise UserError(
            f"folder {_shortened(str(folder))!r} cannot be read ({error.strerror}): make it readable"
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _shortened(name: str) -> str:
    return name if len(name) <= 200 else name[:100] + "…" + name[-100:]


def _checked_id(id_: str) -> str:
    try:
        id_.encode()
    except UnicodeEncodeError:
        raise UserError(f"recording {os.fsencode(id_)!r} has a name that is not valid UTF-8: rename it") from None
    if not is_one_line(id_):
        raise UserError(f"recording {id_!r} has a line break or control character in its name: rename it")
    return id_


def is_one_line(text: str) -> bool:
    """Whether a text can be printed and listed: no line breaks, nothing that a terminal takes for a command."""
    return CONTROL.search(text) is None


def sorted_catalog(recordings: list[Recording], root: Path, expected: str) -> Catalog:
    """Sort by id, name the classes; raise `UserError` where there is nothing to learn from."""
    if not recordings:
        raise UserError(f"data_dir={str(root)!r} holds no recordings laid out as {expected}: check data_dir")
    recordings = sorted(recordings, key=lambda recording: recording.id)
    class_names = tuple(sorted({recording.label for recording in recordings}))
    if len(class_names) < 2:
        raise UserError(f"data_dir={str(root)!r} holds only the class {class_names[0]!r}: at least 2 are needed")
    if len(json.dumps(class_names)) > LONGEST_NAMES:
        raise UserError(
            f"data_dir={str(root)!r} holds {len(class_names)} classes whose names take more than {LONGEST_NAMES:,} "
            "characters: shorten them"
        )
    _tell_alike("classes", class_names)
    _tell_alike("speakers", {recording.speaker for recording in recordings} - {""})
    return Catalog(tuple(recordings), class_names)


def _tell_alike(what: str, names: Iterable[str]) -> None:
    """Print the names that look alike, which a reader may take for the same class or person."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(looks(name), []).append(name)
    alike = [" and ".join(map(ascii, group)) for group in groups.values() if len(group) > 1]
    if alike:
        say_once(
            f"note: the {what} {quoted(alike)} differ only in case or in how accents are encoded, "
            "in blanks or in zeros at the start"
        )


def composed(name: str) -> str:
    """A name with every accent as one character with its letter, as it may be written or not."""
    return unicodedata.normalize("NFC", name)


def looks(name: str) -> str:
    """The same text for names that look alike: whatever their case, blanks, encoding of accents, zeros at the start.

    What cannot be seen has no part in it.
    """
    seen = OBEYED.sub("", unicodedata.normalize("NFKC", name))
    folded = " ".join(seen.casefold().split())
    return folded.lstrip("0") or folded


def say_left_out(ids: list[str], why: str) -> None:
    """Print, in a line, the files of the folder that are no part of the data set, if there are any."""
    if ids:
        say_once(f"left out {counted(len(ids), 'file')} {why}: {quoted(ids)}")


def quoted(ids: list[str]) -> str:
    """The first few of the ids in their order, and a sign that there are more."""
    return first_of(sorted(ids), SHOWN)


def as_id(entry: str, roots: tuple[Path, ...]) -> str:
    """The clip id that an entry of a list means: a path below one of the roots, or an id in another spelling."""
    path = Path(entry)
    for root in roots:
        if path.is_absolute() and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return entry.replace("\\", "/").removeprefix("./")
