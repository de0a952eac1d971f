"""A table of labels: which recordings of a folder are used, and the class, speaker and side of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from audio_mu.config import DataParameters
from audio_mu.data.audio import BadRecording, seconds_of
from audio_mu.data.catalog import Recording, as_id, composed, is_one_line, say_left_out
from audio_mu.data.segments import Span, named, recording_of
from audio_mu.data.tables import Row, read_table
from audio_mu.errors import UserError, typed
from audio_mu.progress import say_once

NEEDED = ("label",)
SPEAKER, SPLIT, START, END = "speaker", "split", "start", "end"
SIDES = ("train", "test", "validation")
DECIDED = ("label", SPEAKER, SPLIT)
"""Columns in which two rows of one recording, or of one segment of it, must agree."""
WHOLE = Span(0.0, math.inf)
LEAST = 1e-4  # seconds of a segment: a sample or two
BEYOND = 0.01  # seconds that a rounded end may lie behind the file's


def labelled(config: DataParameters, root: Path, files: Mapping[str, Path]) -> tuple[list[Recording], bool]:
    """The recordings of the table, or the segments of them, with their classes, speakers and parts, and whether it
    names the speakers.

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
    _refuse_half(header, shown)
    found: dict[str, Row] = {}
    recordings: dict[str, Recording] = {}
    for line, row in rows:
        where = f"{shown}, line {line}"
        of = _id(row["id"], (root, root.resolve()), where)
        of = ids.get(of) or ids.get(composed(of)) or of
        _refuse_odd(row, where)
        path = files.get(of, root.joinpath(of))
        fault = "" if of in files else f"is no recording below data_dir (line {line} of {config.labels.name})"
        span, bad = _span(row, path, fault, f"{where}: {of!r}")
        id_ = named(of, span)
        first, known = found.setdefault(id_, (line, row))
        if differing := [column for column in DECIDED if known.get(column) != row.get(column)]:
            column = differing[0]
            raise UserError(
                f"{where}: {id_!r} has {column} {row[column]!r}, and {known[column]!r} in line {first}: keep one"
            )
        recordings[id_] = Recording(id_, path, row["label"], row.get(SPEAKER, ""), row.get(SPLIT, ""), bad, span)
    _refuse_crossed(recordings, {id_: line for id_, (line, _) in found.items()}, shown, config.split == "official")
    say_left_out([*{*files} - {recording_of(id_) for id_ in recordings}], f"not in {config.labels.name}")
    return list(recordings.values()), SPEAKER in header


def _refuse_half(header: Sequence[str], shown: str) -> None:
    """Raise `UserError` where segments have a beginning and no end, or an end alone."""
    for one, other in ((START, END), (END, START)):
        if one in header and other not in header:
            raise UserError(f"{shown} has a column {one} and no column {other}: give both, in seconds")


def _span(row: Mapping[str, str], path: Path, fault: str, where: str) -> tuple[Span | None, str]:
    """The segment that a row names, None for the whole recording, and why the recording cannot be read.

    Raises `UserError` for a segment that is none, with the row's value.
    """
    given = {column: row.get(column, "") for column in (START, END)}
    if not any(given.values()):
        return None, fault
    for column, text in given.items():
        if not _is_seconds(text):
            way, pointed = "give both start and end, in seconds from 0 on", text.replace(",", ".", 1)
            if _is_seconds(pointed):  # a spreadsheet of Germany or France writes so
                way = f"give a point, {pointed}"
            raise UserError(f"{where} has {column} {text[:80]!r}: {way}")
    span = Span(float(given[START]) + 0.0, float(given[END]))  # -0 is 0
    if span.end - span.start < LEAST:
        raise UserError(f"{where} has start {given[START]} and end {given[END]}: the end must come after the start")
    if fault:
        return span, fault
    try:
        seconds = seconds_of(path)
    except BadRecording as bad:
        return span, str(bad)
    if span.end > seconds + BEYOND:
        raise UserError(f"{where} has end {given[END]}, but the recording has {seconds:.3f} s: give an end within it")
    return span, ""


def _is_seconds(text: str) -> bool:
    try:
        return math.isfinite(value := float(text)) and value >= 0
    except ValueError:
        return False


def _refuse_crossed(recordings: Mapping[str, Recording], lines: Mapping[str, int], shown: str, sides: bool) -> None:
    """Raise `UserError` where a recording has two labels at once, or, where the table has the sides, parts on two."""
    by_file: dict[str, list[Recording]] = {}
    for recording in recordings.values():
        by_file.setdefault(recording_of(recording.id), []).append(recording)
    for parts in by_file.values():
        parts.sort(key=lambda part: part.span or WHOLE)
        for i, part in enumerate(parts):
            where = f"{shown}, line {lines[part.id]}: {part.id!r}"
            if sides and part.part != parts[0].part:
                raise UserError(
                    f"{where} has split {part.part!r}, and {parts[0].id!r} {parts[0].part!r} in line "
                    f"{lines[parts[0].id]}: a recording is on one side"
                )
            for other in parts[i + 1 :]:
                if (other.span or WHOLE).start >= (part.span or WHOLE).end:
                    break
                if other.label != part.label:
                    raise UserError(
                        f"{where} has label {part.label!r}, and {other.id!r} in line {lines[other.id]}, which "
                        f"overlaps, {other.label!r}: a clip has one label, mend one of them"
                    )


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
