"""On which shard each recording is: all of a person on one, by a hash that nobody else's coming or going changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from audio_mu.data.catalog import composed
from audio_mu.data.clips import Clips
from audio_mu.data.together import as_one
from audio_mu.system.hashing import sha256


def place_on_shards(clips: Clips, n_shards: int, known: Mapping[str, int]) -> np.ndarray:
    """The shard of every clip, int64 [n].

    A person is on the shard of the hash of the name, a recording of nobody on that of its own hash. People who share
    a recording are one person under two names, and are placed as one. `known`: source hash → shard of recordings that
    were placed before; whoever has some there stays with most of them.
    """
    keys = [
        composed(f"person {name}") if name else f"recording {file}" for name, file in zip(clips.speakers, clips.files)
    ]
    same = zip(keys, clips.files, clips.sources, clips.hashes)
    leaders = as_one(keys, ((key, hash_) for key, *hashes in same for hash_ in hashes))
    placed: dict[str, Counter[int]] = defaultdict(Counter)
    for key, source in zip(keys, clips.sources):
        if source in known:
            placed[key][known[source]] += 1
    of_key = {key: _most(found) for key, found in placed.items()}
    of_leader = {leaders[key]: shard for key, shard in sorted(of_key.items(), reverse=True)}
    drawn = {key: of_leader.get(leader, int(sha256("shard", leader), 16) % n_shards) for key, leader in leaders.items()}
    return np.array([of_key.get(key, drawn[key]) for key in keys], dtype=np.int64)


def _most(found: Counter[int]) -> int:
    """The shard of most recordings, the first of equals."""
    return min(found, key=lambda shard: (-found[shard], shard))
