"""Reference models in the store: what each has learnt, and how sure it is of every recording; no weights."""

from __future__ import annotations

import numpy as np

from audio_mu.config.parsers import REFERENCES_BY
from audio_mu.progress import say_once
from audio_mu.store import queries
from audio_mu.store.artifacts import Unreadable, read_npz, told_of
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished

STAGE, ROLE = "references", "reference"
FILE = "references.npz"
FAMILY, NUMBER = "family", "number"
"""Tags of a reference model: the hash of all that it shares with the others, and its place among them from 0 on."""
COLUMNS = ("clip_id", "label", "speaker", "audio_hash", "source_hash", "trained", "member", "phi")
"""Arrays of `FILE`, each with a row for each recording of the pool."""


def tag_of(by: str) -> str:
    """The tag of a run of attack models that names the family of their reference models, of halves of this kind."""
    return f"references_by_{by}"


def finished(store: Store, family: str) -> dict[int, Finished]:
    """Number → the newest finished reference model of a family, the numbers rising."""
    found = queries.find(store, {"stage": STAGE, "role": ROLE, FAMILY: family}, everywhere=True)
    newest = queries.newest_by(found, NUMBER)
    return {int(number): run for (number,), run in sorted(newest.items(), key=lambda item: int(item[0][0]))}


def read(store: Store, run_id: str) -> dict[str, np.ndarray]:
    """The arrays of a reference model. Raises `Unreadable` where they cannot be used."""
    arrays = read_npz(store, run_id, FILE)
    with told_of(store, run_id, FILE):
        if lengths := {len(arrays[name]) for name in COLUMNS} - {len(arrays["clip_id"])}:
            raise ValueError(f"it has {len(arrays['clip_id'])} ids and columns of {lengths}")
        return arrays


def read_all(store: Store, attack_run_id: str) -> dict[str, list[dict[str, np.ndarray]]]:
    """Kind of halves → the arrays of the reference models that a run of attack models names.

    One that cannot be read is told and left out.
    """
    attack = queries.run_of(store, attack_run_id)
    tags = attack.tags if attack is not None else {}
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for by in REFERENCES_BY:
        runs = finished(store, tags[tag_of(by)]) if tag_of(by) in tags else {}
        for run in runs.values():
            try:
                found.setdefault(by, []).append(read(store, run.id))
            except Unreadable as error:
                say_once(f"note: a reference model is left out, attack with references=… trains it again: {error}")
    return found
