"""The shards of a base model: which recording is on which, as a list of its run that every later step reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.data.shards import place_on_shards
from audio_mu.errors import UserError, counted, first_of
from audio_mu.names import ADOPTED, EXACT_SHARDS, NAIVE
from audio_mu.progress import say
from audio_mu.store import queries
from audio_mu.store.artifacts import Unreadable, read_csv, unreadable
from audio_mu.store.handle import Store
from audio_mu.unlearning import METHODS, choose
from audio_mu.unlearning.registry import NO_SHARDS

TABLE, TAG = "shards.csv", "shards"
SHOWN = 5  # class names that are printed


def shard_tags(config: Config) -> dict[str, str]:
    """The tag of runs and versions with shards."""
    return {TAG: str(config.training.shards)} if config.training.shards > 1 else {}


def placed(store: Store, config: Config, clips: Clips, trained: np.ndarray) -> np.ndarray | None:
    """`places` for a new base model of the `trained` clips. Raises `UserError` where a shard has no recordings."""
    shard_of = places(store, config, clips)
    if shard_of is not None:
        _tell(config, clips, trained, shard_of)
    return shard_of


def places(store: Store, config: Config, clips: Clips) -> np.ndarray | None:
    """The shard of every clip, int64 [n]: whoever was on one at the last training stays there; None without shards."""
    n = config.training.shards
    return None if n == 1 else place_on_shards(clips, n, _known(store, config))


def _known(store: Store, config: Config) -> dict[str, int]:
    """Source hash → shard, of the newest training of the data set with as many shards whose list can be read."""
    tags = {"stage": "train", "role": "seed", "dataset_name": config.data.label, **shard_tags(config)}
    for run in queries.find(store, tags, everywhere=True):
        try:
            return {str(row.source_hash): int(row.shard) for row in _read(store, run.id).itertuples()}
        except Unreadable:
            continue
    return {}


def _read(store: Store, run_id: str) -> pd.DataFrame:
    text = {"clip_id": str, "source_hash": str}
    return read_csv(store, run_id, TABLE, ("clip_id", "source_hash", "shard"), dtype=text | {"shard": np.int64})


def shards_table(clips: Clips, rows: Sequence[int] | np.ndarray, shard_of: np.ndarray) -> pd.DataFrame:
    """clip_id, source_hash, shard of what a model was trained on."""
    found = {"clip_id": [clips.ids[i] for i in rows], "source_hash": [clips.sources[i] for i in rows]}
    return pd.DataFrame({**found, "shard": shard_of[np.asarray(rows)]})


def of_base(store: Store, config: Config, run_id: str, clips: Clips, trained: np.ndarray) -> np.ndarray | None:
    """The shard of every clip that a base model was trained on, by the list of its run, -1 of all others; None without
    shards. Raises `Unreadable` where the list lacks some."""
    if config.training.shards == 1:
        return None
    table = _read(store, run_id)
    known = dict(zip(table["clip_id"], table["shard"]))
    if lacking := [clips.ids[i] for i in trained if clips.ids[i] not in known]:
        raise unreadable(store, run_id, TABLE, f"it lacks {counted(len(lacking), 'recording')} that were trained on")
    shard_of = np.full(len(clips), -1, dtype=np.int64)
    shard_of[trained] = [known[clips.ids[i]] for i in trained]
    return shard_of


def _tell(config: Config, clips: Clips, trained: np.ndarray, shard_of: np.ndarray) -> None:
    n, labels, own = config.training.shards, clips.labels.numpy()[trained], shard_of[trained]
    sizes = np.bincount(own, minlength=n)
    if empty := [str(shard) for shard in np.flatnonzero(sizes == 0)]:
        people = {clips.speakers[i] for i in trained} - {""}
        of = f" of {counted(len(people), 'speaker')}" if people else ""
        raise UserError(
            f"shards={n} leaves {counted(len(empty), 'shard')} ({first_of(empty)}) without recordings{of}: give fewer "
            "shards"
        )
    say(f"{n} shards of {', '.join(f'{size:,}' for size in sizes)} recordings")
    for shard in range(n):
        there = {*labels[own == shard].tolist()}
        if lacks := [clips.class_names[label] for label in sorted({*labels.tolist()} - there)]:
            say(
                f"note: shard {shard} has no recording of {counted(len(lacks), 'class')} ({first_of(lacks, SHOWN)}): "
                "its network cannot answer so; fewer shards have more of each"
            )


def refuse_without_shards(config: Config, shards: str, base: str = "", tags: Mapping[str, str] | None = None) -> None:
    """Raise `UserError` where single shards are to be retrained of base models that have none, or not such any more.

    `shards`: of the base models' recipe; `base`, `tags`: of their version, where it is there already.
    """
    asked = (*choose(config.methods.methods, config.request.forget), config.methods.register)
    for method in (name for name in asked if name in METHODS and METHODS[name].of_shards):
        if shards == "1":
            raise UserError(f"{method} {NO_SHARDS}")
        if why := _not_exact(tags or {}):
            raise UserError(
                f"{method} retrains shards, but {base} {why}: take naive, after which shards are exact again"
            )


def _not_exact(tags: Mapping[str, str]) -> str:
    """Why single shards cannot be retrained from a base model, by its version's tags, or an empty text."""
    method = tags.get("method", "")
    if method in (NAIVE, EXACT_SHARDS):  # an answer of shards was exact itself
        return ""
    if method:
        return f"was unlearned by {method}, which has changed the networks of all shards"
    return "was adopted, and no list says what each of its networks has learnt" if ADOPTED in tags else ""
