"""A table of labels: which recordings of a folder are used, and the class, speaker and side of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from audio_mu.config import DataParameters
from audio_mu.data.catalog import Recording, as_id, composed, is_one_line, say_left_out
from audio_mu.data.tables import Row, read_table
from audio_mu.errors import UserError, typed
from audio_mu.progress import say_once

NEEDED = ("label",)
SPEAKER, SPLIT = "speaker", "split"
SIDES = ("train", "test", "validation")
DECIDED = ("label", SPEAKER, SPLIT)
"""Columns in which two rows of one recording must agree."""


def labelled(config: DataParameters, root: Path, files: Mapping[str, Path]) -> tuple[list[Recording], bool]:
    """The recordings of the table, with their classes, speakers and parts, and whether it names the speakers.

    `files`: id → file of every recording of the folder; those that no row names are told and left out. A row whose file
    is not there is a recording with a fault: whether that is refused is `bad_files`, and one of an answered request may
    be gone. Raises `UserError` for a row that cannot be meant, with its line and value.
    """
    assert config.labels is not None
    shown = typed("labels", str(config.labels))
    header, rows = read_table(config.labels, shown, NEEDED)
    if not rows:
        raise UserError(f"{shown} names no recordings: give a row for each")
    if SPEAKER in header and config.speaker_pattern:
        raise UserError(f"{shown} has a column speaker and speaker_pattern was given: leave one of them out")
    if SPLIT in header and config.split != "official":
        say_once(f"note: split={config.split!r} was given: the column split of {config.labels.name} decides nothing")
    ids = {composed(id_): id_ for id_ in files} | {id_: id_ for id_ in files}
    found: dict[str, Row] = {}
    recordings: dict[str, Recording] = {}
    for line, row in rows:
        where = f"{shown}, line {line}"
        id_ = _id(row["id"], (root, root.resolve()), where)
        id_ = ids.get(id_) or ids.get(composed(id_)) or id_
        _refuse_odd(row, where)
        first, known = found.setdefault(id_, (line, row))
        if differing := [column for column in DECIDED if known.get(column) != row.get(column)]:
            column = differing[0]
            raise UserError(
                f"{where}: {id_!r} has {column} {row[column]!r}, and {known[column]!r} in line {first}: keep one"
            )
        fault = "" if id_ in files else f"is no recording below data_dir (line {line} of {config.labels.name})"
        path = files.get(id_, root.joinpath(id_))
        recordings[id_] = Recording(id_, path, row["label"], row.get(SPEAKER, ""), row.get(SPLIT, ""), fault)
    say_left_out([id_ for id_ in files if id_ not in recordings], f"not in {config.labels.name}")
    return list(recordings.values()), SPEAKER in header


def _id(entry: str, roots: tuple[Path, ...], where: str) -> str:
    """The id that a path of the table means. Raises `UserError` where it leads out of the folder."""
    id_ = as_id(entry, roots)
    parts = PurePosixPath(id_).parts
    if not entry or not is_one_line(id_) or id_.startswith("/") or ".." in parts:
        raise UserError(f"{where}: path {entry[:200]!r} is no path below data_dir={str(roots[0])!r}: mend it")
    return PurePosixPath(*parts).as_posix()


def _refuse_odd(row: Mapping[str, str], where: str) -> None:
    """Raise `UserError` where a row has no label, or one that cannot be shown, or an unknown side."""
    if not row["label"] or not is_one_line(row["label"]):
        raise UserError(f"{where}: {row['id']!r} has the label {row['label'][:80]!r}: give it a name of one line")
    if SPLIT in row and row[SPLIT] not in SIDES:
        raise UserError(f"{where}: {row['id']!r} has split {row[SPLIT][:80]!r}: give one of {', '.join(SIDES)}")
