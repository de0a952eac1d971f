"""The recordings of a command: clips and their split, without those of answered requests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from audio_mu.config import Config
from audio_mu.data.clips import Clips, clips_digest, load_clips
from audio_mu.data.splits import Split, split_clips
from audio_mu.errors import UserError
from audio_mu.requests.ledger import Entry, Ledger
from audio_mu.requests.request import Earlier

NO_LEDGER = Ledger()


@dataclass(frozen=True)
class Data:
    """The clips of a configuration and their split, in which no recording of the requests in `left_out` is.

    `digest` identifies the clips that are left: `clips.digest` where the ledger leaves none out. `earlier`: name of
    the evaluated set → an answered request whose recordings can still be read.
    """

    clips: Clips
    split: Split
    digest: str
    left_out: tuple[Entry, ...] = ()
    earlier: Mapping[str, Earlier] = field(default_factory=dict)

    def digest_without(self, ids: Collection[str], hashes: Collection[str]) -> str:
        """The digest once these recordings, by id or by audio, are forgotten too."""
        return _digest(
            self.clips, matching(self.clips, {*ids, *_ids(self.left_out)}, {*hashes, *_hashes(self.left_out)})
        )


def load_data(config: Config, ledger: Ledger = NO_LEDGER) -> Data:
    """Clips and split of a configuration, without the recordings of the requests that the ledger leaves out.

    The split is drawn over everything that ever was there, so that whatever is left stays on its side. Raises
    `UserError` where there is nothing to train or test on.
    """
    clips = load_clips(config.data, ledger.barred)
    left_out = ledger.left_out(config.store.ledger)
    out = matching(clips, _ids(left_out), _hashes(left_out))
    split = _split(config, clips, ledger, out)
    earlier = {ledger.set_name(entry): _earlier(clips, split, entry) for entry in left_out if not entry.gone}
    readable = {name: found for name, found in earlier.items() if len(found.clips)}
    return Data(clips, split, _digest(clips, out) if out.any() else clips.digest, left_out, readable)


def _split(config: Config, clips: Clips, ledger: Ledger, out: np.ndarray) -> Split:
    rows = {
        id_: (part, speaker, hash_)
        for entry in ledger.entries
        for table in (entry.recordings, entry.nonmembers)
        for id_, part, speaker, hash_ in table[["clip_id", "part", "speaker", "audio_hash"]].to_numpy()
    }
    rows |= dict(zip(clips.ids, zip(clips.parts, clips.speakers, clips.hashes)))
    ids = sorted(rows)
    parts, speakers, hashes = zip(*(rows[id_] for id_ in ids))
    whole = split_clips(config.data.split, config.data.split_seed, parts, speakers, hashes)
    position = {id_: i for i, id_ in enumerate(clips.ids) if not out[i]}

    def here(indices: np.ndarray) -> np.ndarray:
        found = (position.get(ids[i]) for i in indices)
        return np.array([i for i in found if i is not None], dtype=np.int64)

    split = Split(whole.kind, here(whole.train), here(whole.test), here(whole.nonmembers))
    if len(split.train) == 0 or len(split.test) == 0:
        raise UserError(
            f"the answered requests of {config.data.label} leave {len(split.train)} training and {len(split.test)} "
            "test clips: both are needed; give data_dir with more recordings"
        )
    return split


def _earlier(clips: Clips, split: Split, entry: Entry) -> Earlier:
    forgotten = set(entry.recordings.loc[entry.recordings["forgotten"] == "True", "clip_id"])
    nonmembers = set(entry.nonmembers["clip_id"])
    return Earlier(
        np.array([i for i, id_ in enumerate(clips.ids) if id_ in forgotten], dtype=np.int64),
        np.array([i for i in split.nonmembers if clips.ids[i] in nonmembers], dtype=np.int64),
    )


def matching(clips: Clips, ids: Collection[str], hashes: Collection[str]) -> np.ndarray:
    """Which clips are one of these recordings, by id or by audio: bool [n]."""
    return np.array([id_ in ids or hash_ in hashes for id_, hash_ in zip(clips.ids, clips.hashes)], dtype=bool)


def _digest(clips: Clips, out: np.ndarray) -> str:
    return clips_digest(row for row, gone in zip(clips.identity, out) if not gone)


def _ids(entries: Iterable[Entry]) -> frozenset[str]:
    return frozenset().union(*(entry.ids for entry in entries))


def _hashes(entries: Iterable[Entry]) -> frozenset[str]:
    return frozenset().union(*(entry.hashes for entry in entries))
