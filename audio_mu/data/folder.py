"""A user's own recordings: one folder for each class."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from audio_mu.config import DataParameters
from audio_mu.data.audio import BadRecording, seconds_of
from audio_mu.data.catalog import (
    Catalog,
    Recording,
    as_id,
    audio_files,
    is_one_line,
    quoted,
    say_left_out,
    sorted_catalog,
)
from audio_mu.data.labels import labelled
from audio_mu.data.segments import Span, named, recording_of, windows
from audio_mu.data.tables import read_table
from audio_mu.errors import UserError, counted, typed
from audio_mu.progress import say_once

LAYOUT = "class/…/recording.wav (or .flac, .ogg, .mp3)"
SPEAKERS = "speakers.csv"
PATIENCE = 30  # seconds for a pattern on all ids
SEARCH = """
import json, re, sys
text, ids = json.load(sys.stdin)
found = map(re.compile(text).search, ids)
json.dump([match[1] if match else None for match in found], sys.stdout)
"""


@dataclass(frozen=True)
class Folder:
    """Recordings laid out as `class/…/name.wav`, `.flac`, `.ogg` or `.mp3`; the first folder names the class.

    With `labels` classes, and speakers and sides where it has the columns, come from that table; else speakers from the
    parameter `speaker_pattern`, a regular expression searched in the id (the path below
    `data_dir`) whose group 1 is the speaker, or else from `speakers.csv` in `data_dir` with the columns id (or
    path) and speaker. A recording that neither mentions has no known speaker; how many there are is said. With `window`
    recordings, or their segments, are cut into clips.
    """

    def root(self, config: DataParameters) -> Path:
        """`data_dir`: a folder has no download."""
        assert config.data_dir is not None  # Config refuses dataset=folder without it
        return config.data_dir

    def kept(self) -> Path | None:
        """None: nothing of it is kept in the cache."""
        return None

    def catalog(self, root: Path, config: DataParameters) -> Catalog:
        """All recordings. Raises `UserError` where there are none, or their speakers cannot be found as asked."""
        files = dict(audio_files(root))
        if config.labels is not None:
            recordings, has_speakers = labelled(config, root, files)
        else:
            say_left_out([id_ for id_ in files if "/" not in id_], "in no class's folder")
            recordings = [Recording(id_, path, id_.split("/")[0], "") for id_, path in files.items() if "/" in id_]
            has_speakers = False
        ids = sorted({recording_of(recording.id) for recording in recordings})
        speakers: Mapping[str, str] = {}
        if has_speakers:
            speakers = {own.id: own.speaker for own in recordings}
        elif config.speaker_pattern:
            speakers = _by_pattern(config.speaker_pattern, ids)
        elif (root / SPEAKERS).is_file():
            speakers = _by_table(root / SPEAKERS, root, ids)
        odd = next((speaker for speaker in speakers.values() if not is_one_line(speaker)), None)
        if odd is not None:
            raise UserError(f"speaker {odd[:80]!r} has a line break or control character in its name: rename it")
        if not has_speakers:
            recordings = [replace(own, speaker=speakers.get(recording_of(own.id), "")) for own in recordings]
        nameless = sorted(recording.id for recording in recordings if not recording.speaker)
        if 0 < len(nameless) < len(recordings):
            say_once(f"no speaker is known for {len(nameless)} of {len(recordings)} recordings: {quoted(nameless)}")
        if config.window is not None and config.hop is not None:
            recordings = list(_cut(recordings, config.window, config.hop))
        return sorted_catalog(recordings, root, LAYOUT)


def _cut(recordings: Iterable[Recording], window: float, hop: float) -> Iterator[Recording]:
    """The windows of recordings, or of their segments; one that cannot be opened stays, with its fault."""
    for recording in recordings:
        if recording.fault:
            yield recording
            continue
        try:
            span = recording.span or Span(0.0, seconds_of(recording.path))
        except BadRecording as bad:
            yield replace(recording, fault=str(bad))
            continue
        for own in windows(span, window, hop):
            yield replace(recording, id=named(recording_of(recording.id), own), span=own)


def _by_pattern(text: str, ids: list[str]) -> dict[str, str]:
    shown = typed("speaker_pattern", text)
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{shown} is no regular expression ({error}): mend it") from None
    if pattern.groups < 1:
        raise UserError(f"{shown} has no group: put the part that is the speaker in parentheses, as in ([0-9]+)_")
    speakers = {id_: speaker for id_, speaker in zip(ids, _searched(text, ids, shown), strict=True) if speaker}
    if ids and not speakers:
        raise UserError(
            f"{shown} finds a speaker in none of the {counted(len(ids), 'id')}, such as {ids[0]!r}: mend it"
        )
    return speakers


def _searched(text: str, ids: list[str], shown: str) -> list[str | None]:
    """Group 1 of each id, found in a process of its own: nested repetitions can take for ever on one long name."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", SEARCH],
            input=json.dumps([text, ids]), capture_output=True, text=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{shown} takes more than {PATIENCE} seconds on the {len(ids)} ids: leave out repetitions of repetitions"
        ) from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1:]
        raise UserError(f"{shown} cannot be searched in the {len(ids)} ids ({reason}): mend it") from None
    return json.loads(done.stdout)


def _by_table(path: Path, root: Path, ids: list[str]) -> dict[str, str]:
    shown = f"{path.name} in {str(root)!r}"
    known, unknown = set(ids), []
    speakers: dict[str, str] = {}
    for line, row in read_table(path, shown, ("speaker",))[1]:
        entry, speaker = row["id"], row["speaker"]
        id_ = as_id(entry, (root,))
        if id_ not in known:
            unknown.append(entry)
        elif speakers.setdefault(id_, speaker) != speaker:
            raise UserError(f"{shown} gives {id_!r} two speakers (again in line {line}): keep one")
    if not speakers:
        raise UserError(f"{shown} names none of the {len(ids)} recordings: give paths such as {ids[:1]} as ids")
    if unknown:
        say_once(f"{path.name} names {counted(len(unknown), 'recording')} not in the folder: {quoted(unknown)}")
    return speakers
