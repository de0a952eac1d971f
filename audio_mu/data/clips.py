"""Clips: all features of a data set in one tensor, with labels, ids, speakers and hashes; cached on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch

from audio_mu.config import DataParameters
from audio_mu.data import audio, features, segments
from audio_mu.data.audio import BadRecording, Prepared, read_clip, source_hash
from audio_mu.data.catalog import NOTHING_BARRED, Barred, Catalog, Recording, quoted
from audio_mu.data.datasets import DATASETS
from audio_mu.data.features import Frontend
from audio_mu.data.segments import Heard, named, recording_of
from audio_mu.errors import UserError, counted
from audio_mu.progress import bar, say, say_once
from audio_mu.system.cores import cores_at_hand
from audio_mu.system.hashing import checksum, file_sha256, hash_of
from audio_mu.system.reading import read_array
from audio_mu.system.writing import atomic_folder, cache_root, locked

Kept = tuple[Recording, str, str, str, float]  # its hashes, see `Clips`, and the seconds of its file
BATCH = 64  # what the transform holds of so many clips stays in a core's cache


@dataclass(frozen=True)
class Unread:
    """A recording of the folder that is barred. `hashes`: those of its audio and source that bar it; none where its
    id, speaker or class does, and it was not opened."""

    id: str
    speaker: str
    hashes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Clips:
    """A data set ready for training.

    `features` is float32 [n, 1, frequency, frames], or [n, 1, samples] of waveforms, mapped from the file
    `features_file`; every other field has n entries in the order of the sorted ids. `hashes` are SHA-256 of the
    prepared waveforms, so that copies are found whatever their file names or headers; `sources` are those of the files'
    samples, a recording's identity. Of a silent or constant clip, one of `constant`, they cover the id too: silence is
    nobody's copy. `within` of a part of a recording is named by the source hash of the whole, as in `hash#12.0-14.0`;
    empty for whole ones. `seconds` are those of the file. `digest` identifies ids, labels, speakers, parts and audio.
    `skipped` lists (id, reason) of unreadable recordings. `unread` are no clips: what is barred and still there.
    """

    features: torch.Tensor
    features_file: Path
    labels: torch.Tensor
    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    hashes: tuple[str, ...]
    sources: tuple[str, ...]
    parts: tuple[str, ...]
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    constant: tuple[str, ...]
    root: Path
    digest: str
    unread: tuple[Unread, ...] = ()
    within: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def identity(self) -> list[list[str]]:
        """id, label, speaker, part, audio hash, source hash and `within` of every clip."""
        labels = [self.class_names[label] for label in self.labels.tolist()]
        columns = (self.ids, labels, self.speakers, self.parts, self.hashes, self.sources)
        return [list(row) for row in zip(*columns, self.within or [""] * len(self), strict=True)]

    @cached_property
    def contents(self) -> tuple[str, ...]:
        """What each clip is named by its sound: the source hash of a recording, or the part of it."""
        return tuple(within or source for within, source in zip(self.within, self.sources)) or self.sources

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The source hash of the whole recording that each clip is, or is a part of."""
        return tuple(map(recording_of, self.contents))

    @cached_property
    def recordings(self) -> np.ndarray:
        """The number of each clip's recording, int64 [n]: several clips of one have the same."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(recording_of(id_), len(numbers)) for id_ in self.ids], dtype=np.int64)

    def table(self, rows: Iterable[int]) -> pd.DataFrame:
        """clip_id, label, speaker, audio_hash, source_hash of some clips, and `within` where any is a part."""
        columns = ["clip_id", "label", "speaker", "part", "audio_hash", "source_hash", "within"]
        found = pd.DataFrame([self.identity[i] for i in rows], columns=columns, dtype=str).drop(columns="part")
        return found if any(self.within) else found.drop(columns="within")


def clips_digest(identity: Iterable[Sequence[str]]) -> str:
    """The digest of clips by their `identity`. Without the audio hash, which another machine's resampling changes."""
    return hash_of([[*row[:4], row[5]] for row in identity])


def load_clips(config: DataParameters, barred: Barred = NOTHING_BARRED) -> Clips:
    """The clips of a configuration, from the cache where it has them, without those that are barred.

    What is barred by its id, speaker or class is not read; a barred hash under another id is read once, to know it,
    and not kept. Raises `UserError`
    where there are no recordings or, with `bad_files=fail`, where a recording cannot be read.
    """
    root, every = find_recordings(config)
    catalog = _allowed(every, barred)
    folder = cache_root() / "features" / _cache_key(config, catalog, barred)
    if not _is_whole(folder):  # a whole one is only read, wherever it lies
        with _unwritable_told(folder), locked(folder):
            if not _is_whole(folder):
                _build(config, catalog, folder, sorted(barred.hashes))
    by_name = [Unread(r.id, r.speaker) for r in every.recordings if not r.fault and barred.bars(r)]
    clips = _open(folder, catalog, root, sorted(barred.hashes), by_name)
    if clips.skipped:
        say_once(f"left out {_listed(clips.skipped)}")
    if clips.constant:
        what = counted(len(clips.constant), "clip")
        say_once(
            f"note: {what} without sound or of one value: no copies of each other ({quoted(list(clips.constant))})"
        )
    return clips


def find_recordings(config: DataParameters, barred: Barred = NOTHING_BARRED) -> tuple[Path, Catalog]:
    """The folder of a data set and its recordings by their names, without those that are barred; none is opened."""
    dataset = DATASETS[config.dataset]
    root = dataset.root(config)
    return root, _allowed(dataset.catalog(root, config), barred)


def _allowed(catalog: Catalog, barred: Barred) -> Catalog:
    """The catalog without what is barred; a class keeps its number when all its recordings are gone."""
    recordings = tuple(recording for recording in catalog.recordings if not barred.bars(recording))
    return replace(catalog, recordings=recordings, class_names=tuple(sorted({*catalog.class_names, *barred.labels})))


def _cache_key(config: DataParameters, catalog: Catalog, barred: Barred = NOTHING_BARRED) -> str:
    """Changes with any recording (by path, size and time of change), any setting and the code that reads them."""
    stats = [(r.id, r.label, r.speaker, r.part, *_size_and_time(r.path)) for r in catalog.recordings]
    recipe = config.recipe
    settings = [config.pipeline, config.clip_samples, config.bad_files, recipe.logmel_shift, recipe.logmel_scale,
                _is_strict(config)]  # fmt: skip
    files = [str(module.__file__) for module in (audio, features, segments)]
    code = [file_sha256(Path(file)) for file in (*files, __file__)]
    hashes = [sorted(barred.hashes)] if barred.hashes else []
    return hash_of([settings, code, torch.__version__, stats, *hashes])[:32]


def _is_strict(config: DataParameters) -> bool:
    """Whether a header that promises other sound is a fault: a published data set is taken as it is."""
    return config.dataset == "folder"


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # gone, or a link to nothing: reading it says so
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _is_whole(folder: Path) -> bool:
    """Whether the cache entry is neither altered nor truncated, by its checksums; a broken entry is built anew."""
    try:
        index = json.loads((folder / "index.json").read_text())
        checksums = index.pop("checksums")
        return checksums == [hash_of(index), checksum(read_array(folder / "features.npy", "r"))]
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, RecursionError):
        return False


def _build(config: DataParameters, catalog: Catalog, folder: Path, barred: Sequence[str]) -> None:
    """Write a cache entry: the features of all readable recordings, in their order, and the index."""
    place, number = {hash_: i for i, hash_ in enumerate(barred)}, {r.id: i for i, r in enumerate(catalog.recordings)}
    heard = Heard(barred)
    unread: list[list[int]] = []
    frontend = Frontend(config.pipeline, config.recipe)
    shape = features.feature_shape(config.pipeline, config.clip_samples)
    kept: list[Kept] = []
    constant: list[str] = []
    skipped: list[tuple[str, str]] = []
    changes: Counter[str] = Counter()
    with (
        atomic_folder(folder) as temporary,
        ThreadPoolExecutor(cores_at_hand()) as pool,
        (temporary / "features.npy").open("wb") as stream,
    ):
        _write_header(stream, len(catalog.recordings), shape)
        for batch in _read_in_batches(config, catalog.recordings, pool):
            waveforms = []
            for recording, found in batch:
                if isinstance(found, BadRecording):
                    skipped.append((recording.id, str(found)))
                    continue
                hashes = _hashes(recording, found)
                shared = {*hashes, *heard.sharing(hashes[2] or hashes[1])} & place.keys()
                if known := sorted(place[hash_] for hash_ in shared):
                    unread.append([number[recording.id], *known])
                else:
                    waveforms.append(found.waveform)
                    changes.update(found.changes)
                    kept.append((recording, *hashes, found.seconds))
                    constant += [recording.id] if found.constant else []
            if waveforms:
                with torch.inference_mode():
                    stream.write(frontend(torch.from_numpy(np.stack(waveforms))).numpy().tobytes())
        _refuse_bad(config, skipped, len(kept))
        stream.seek(0)
        _write_header(stream, len(kept), shape)
        stream.flush()
        _write_index(temporary, kept, constant, skipped, unread)
    if changes:
        counts = ", ".join(f"{count:,} {words}" for words, count in changes.items())
        say(f"of {len(kept):,} recordings: {counts} (to mono, {features.SAMPLE_RATE:,} Hz, {config.clip_seconds:g} s)")


def _hashes(recording: Recording, found: Prepared) -> tuple[str, str, str]:
    """Audio and source hash, and `Clips.within`. What is constant says nothing of who is heard: the id makes it one of
    its own."""
    source = hash_of(["constant", recording.id]) if found.constant_source else found.source_hash
    within = ""
    if recording.span:
        whole, constant = source_hash(recording.path)
        within = named(hash_of(["constant", recording_of(recording.id)]) if constant else whole, recording.span)
    return hash_of(["constant", recording.id, source]) if found.constant else found.hash, source, within


def _read_in_batches(
    config: DataParameters, recordings: Sequence[Recording], pool: ThreadPoolExecutor
) -> Iterator[list[tuple[Recording, Prepared | BadRecording]]]:
    """Recordings with their waveforms, or why they have none; while a batch is worked on, the next is read."""

    def read(recording: Recording) -> Prepared | BadRecording:
        if recording.fault:
            return BadRecording(recording.fault)
        try:
            return read_clip(recording.path, config.clip_samples, recording.span, whole=_is_strict(config))
        except BadRecording as bad:
            return bad

    batches = [recordings[start : start + BATCH] for start in range(0, len(recordings), BATCH)]
    results = (pool.map(read, batch) for batch in batches)  # read from the moment on when it is asked for
    following = next(results, iter(()))
    about = f"features ({config.pipeline}) of {counted(len(recordings), 'clip')}, batches of {BATCH}"
    for batch in bar(batches, len(batches), about):
        current, following = following, next(results, iter(()))
        yield list(zip(batch, current, strict=True))


def _write_header(stream: BinaryIO, n: int, shape: tuple[int, ...]) -> None:
    """The header of a .npy file, as long for any n: numpy leaves room for the first dimension to grow."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, 1, *shape)}
    np.lib.format.write_array_header_1_0(stream, header)


def _write_index(
    folder: Path,
    kept: list[Kept],
    constant: list[str],
    skipped: list[tuple[str, str]],
    unread: list[list[int]],
) -> None:
    """`unread`: of each recording with a barred hash its number in the catalog and those of its hashes among the
    barred ones, as `_cache_key` has both: the cache itself says nothing of it."""
    index = {
        "ids": [r.id for r, *_ in kept],
        "labels": [r.label for r, *_ in kept],
        "speakers": [r.speaker for r, *_ in kept],
        "parts": [r.part for r, *_ in kept],
        "hashes": [audio for _, audio, _, _, _ in kept],
        "sources": [source for _, _, source, _, _ in kept],
        "within": [within for _, _, _, within, _ in kept],
        "seconds": [seconds for *_, seconds in kept],
        "constant": constant,
        "skipped": skipped,
        "unread": unread,
    }
    checksums = [hash_of(index), checksum(read_array(folder / "features.npy", "r"))]
    (folder / "index.json").write_text(json.dumps(index | {"checksums": checksums}))


@contextmanager
def _unwritable_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the features' cache {str(folder)!r} ({error.strerror or error}): free space or set "
            "AUDIO_MU_CACHE to another folder"
        ) from None


def _refuse_bad(config: DataParameters, skipped: Sequence[tuple[str, str]], n_kept: int) -> None:
    if skipped and (config.bad_files == "fail" or n_kept == 0):
        raise UserError(f"cannot use {_listed(skipped)}. Mend them or -P bad_files=skip")


def _listed(skipped: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{id_} {reason}" for id_, reason in skipped[:5])
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return f"{len(skipped)} recording{'' if len(skipped) == 1 else 's'}: {shown}{more}"


def _open(folder: Path, catalog: Catalog, root: Path, barred: Sequence[str], by_name: Sequence[Unread]) -> Clips:
    index = json.loads((folder / "index.json").read_text())
    # Copy-on-write mapping: torch wants writable memory, the file stays as it is.
    array = read_array(folder / "features.npy", "c")
    class_index = {name: i for i, name in enumerate(catalog.class_names)}
    known = [(catalog.recordings[i], frozenset(barred[j] for j in hashes)) for i, *hashes in index["unread"]]
    names = ("ids", "labels", "speakers", "parts", "hashes", "sources")
    return Clips(
        features=torch.from_numpy(array),
        features_file=folder / "features.npy",
        labels=torch.tensor([class_index[label] for label in index["labels"]], dtype=torch.int64),
        ids=tuple(index["ids"]),
        speakers=tuple(index["speakers"]),
        hashes=tuple(index["hashes"]),
        sources=tuple(index["sources"]),
        parts=tuple(index["parts"]),
        class_names=catalog.class_names,
        skipped=tuple(tuple(row) for row in index["skipped"]),
        constant=tuple(index["constant"]),
        root=root,
        digest=clips_digest(zip(*(index[name] for name in names), strict=True)),
        within=tuple(index["within"]),
        seconds=tuple(index["seconds"]),
        unread=(*by_name, *(Unread(recording.id, recording.speaker, hashes) for recording, hashes in known)),
    )
