"""Probable copies of requested or answered recordings among all others: found by the waveform, kept beside the cache.

Descriptions and finds lie in the folder of the clips' feature cache, so that whatever removes that removes them too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from audio_mu.config import RequestParameters
from audio_mu.data import audio, copies, descriptions
from audio_mu.data.audio import BadRecording, read_recording
from audio_mu.data.clips import Clips
from audio_mu.data.copies import TAU, find_copies
from audio_mu.data.descriptions import LONGEST, Descriptions, described
from audio_mu.data.segments import parted
from audio_mu.errors import UserError, first_of
from audio_mu.progress import say
from audio_mu.system.hashing import file_sha256, hash_of, sha256
from audio_mu.system.writing import atomic_folder, locked, write_atomic

SHOWN = 3
NOT_SOUGHT = "copies were looked for by hash alone; copies in another format, level, rate or length were not looked for"


class CopiesFoundError(UserError):
    """Probable copies would stay, and the user is asked what to do with them."""


@dataclass(frozen=True)
class Copies:
    """What a search has found. `of`: place of a clip → place of the recording that it is a probable copy of.

    `searched` says in words what was compared; `file` lists the finds, with columns clip_id, copy_of and peak.
    """

    of: dict[int, int]
    searched: str
    file: Path

    def first(self, i: int) -> int:
        """The recording at the end of the line where a clip is a copy of a copy."""
        while i in self.of:
            i = self.of[i]
        return i

    def told(self, clips: Clips) -> str:
        """The first of the finds."""
        return first_of([f"{clips.ids[i]} (of {clips.ids[j]})" for i, j in sorted(self.of.items())], SHOWN)


NO_COPIES = Copies({}, NOT_SOUGHT, Path())
Seek = Callable[[np.ndarray, np.ndarray], Copies]
"""(places of what was asked for, places of what would stay) → the copies that are to be forgotten too."""


def seek_for(config: RequestParameters, clips: Clips) -> Seek | None:
    """The search that `copies` asks for; None where there is to be none.

    With `ask` it raises `CopiesFoundError`, with the list and the ways on, where it finds something.
    """
    if config.copies == "exact":
        return None

    def seek(asked: np.ndarray, others: np.ndarray) -> Copies:
        found = probable_copies(clips, asked, others)
        if found.of and config.copies == "ask":
            raise CopiesFoundError(
                f"forget={config.forget!r}: {len(found.of)} of the {len(others):,} other recordings would stay as "
                f"probable copies of requested ones: {found.told(clips)}; all of them: {found.file}; give "
                "copies=probable to forget them too, or copies=exact to leave them in knowingly"
            )
        return replace(found, searched=f"{found.searched}, and forgotten too") if found.of else found

    return seek


def probable_copies(clips: Clips, asked: np.ndarray, others: np.ndarray) -> Copies:
    """The clips of `others` that are probable copies of one of `asked`, or of such a copy. Places are sorted.

    A search is made once for the same recordings. Raises `UserError` where a recording cannot be read any more.
    """
    folder = _folder(clips)
    if not os.access(folder.parent, os.W_OK):  # a cache that is only read
        with TemporaryDirectory() as temporary:
            return _found(clips, asked, others, Path(temporary) / folder.name)
    return _found(clips, asked, others, folder)


def _found(clips: Clips, asked: np.ndarray, others: np.ndarray, folder: Path) -> Copies:
    both = [[[clips.ids[i], clips.sources[i]] for i in rows.tolist()] for rows in (asked, others)]
    file = folder.with_name(f"copies-{hash_of([_code(), both])[:16]}.csv")
    with locked(folder):
        known = _descriptions(clips, folder)
        if (pairs := _kept(file)) is None:
            say(f"looking for probable copies of {len(asked):,} recordings among {len(others):,} others")
            rows = [(clips.ids[i], clips.ids[j], f"{peak:.4f}") for i, j, peak in _search(known, asked, others)]
            pairs = _keep(file, pd.DataFrame(rows, columns=["clip_id", "copy_of", "peak"]))
    place = {id_: i for i, id_ in enumerate(clips.ids)}
    of = {place[row.clip_id]: place[row.copy_of] for row in pairs.itertuples()}
    silent = int(known.featureless[asked].sum())
    searched = f"{len(asked):,} recordings were compared with {len(others):,} others by the waveform (tau {TAU})"
    if silent:
        searched += f", but for {silent} without a sound of their own"
    return Copies(of, f"{searched}: {len(of)} probable copies found", file)


def _search(known: Descriptions, asked: np.ndarray, others: np.ndarray) -> list[tuple[int, int, float]]:
    """(copy, original, peak), the nearest original of each; copies of copies are found by further rounds."""
    found: list[tuple[int, int, float]] = []
    while len(asked) and len(others):
        nearest: dict[int, tuple[float, int]] = {}
        for copy in find_copies(known.take(asked), known.take(others)):
            i, j = int(others[copy.other]), int(asked[copy.requested])
            nearest[i] = max(nearest.get(i, (0.0, j)), (copy.peak, j))
        found += [(i, j, peak) for i, (peak, j) in sorted(nearest.items())]
        asked = np.array(sorted(nearest), dtype=np.int64)
        others = np.setdiff1d(others, asked)
    return sorted(found)


def _keep(file: Path, pairs: pd.DataFrame) -> pd.DataFrame:
    text = pairs.to_csv(index=False)
    write_atomic(file, text)
    write_atomic(file.with_suffix(".sha256"), sha256(text))
    return pairs


def _kept(file: Path) -> pd.DataFrame | None:
    """The pairs that an earlier search has found; None where they are not whole: a lost one would stay."""
    try:
        text = file.read_text()
        if sha256(text) != file.with_suffix(".sha256").read_text():
            return None
    except (OSError, ValueError):
        return None
    return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)


def _folder(clips: Clips) -> Path:
    return clips.features_file.parent / f"descriptions-{_code()[:8]}"


@cache
def _code() -> str:
    """Hash of what descriptions and finds depend on beside the recordings."""
    return hash_of([file_sha256(Path(str(module.__file__))) for module in (audio, copies, descriptions)])


def _descriptions(clips: Clips, folder: Path) -> Descriptions:
    """Of all clips in their order: from the folder, or made from their files where no earlier folder has them."""
    keys = tuple(f"{source} {id_}" for source, id_ in zip(clips.sources, clips.ids))
    if (known := _loaded(folder)) is not None and known.keys == keys:
        return known

    def read(i: int) -> np.ndarray:
        try:
            recording, span = parted(clips.ids[i])
            return read_recording(clips.root / recording, LONGEST, span)
        except BadRecording as bad:
            raise UserError(f"recording {clips.ids[i]!r} {bad}: mend it, copies are looked for in all") from None

    beside = sorted(folder.parent.parent.glob(f"*/{folder.name}"), key=lambda path: path.stat().st_mtime_ns)
    made = described(keys, read, next(filter(None, map(_loaded, reversed(beside))), None))
    with atomic_folder(folder) as temporary:
        descriptions.save(made, temporary)
    return made


def _loaded(folder: Path) -> Descriptions | None:
    """What a folder holds, if it is there and whole."""
    try:
        return descriptions.load(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
