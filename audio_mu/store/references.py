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
ATTACKED = ("clip_id", "speaker", "trained", "member", "phi")
"""Those that attacks read."""


def tag_of(by: str) -> str:
    """The tag of a run of attack models that names the family of their reference models, of halves of this kind."""
    return f"references_by_{by}"


def finished(store: Store, family: str) -> dict[int, Finished]:
    """Number → the newest finished reference model of a family, the numbers rising."""
    found = queries.find(store, {"stage": STAGE, "role": ROLE, FAMILY: family}, everywhere=True)
    newest = {number: run for (number,), run in queries.newest_by(found, NUMBER).items() if number.isdecimal()}
    return {int(number): newest[number] for number in sorted(newest, key=int)}


def read(store: Store, run_id: str) -> dict[str, np.ndarray]:
    """The arrays of a reference model. Raises `Unreadable` where they cannot be used."""
    arrays = read_npz(store, run_id, FILE)
    with told_of(store, run_id, FILE):
        if lengths := {len(arrays[name]) for name in COLUMNS} - {len(arrays["clip_id"])}:
            raise ValueError(f"it has {len(arrays['clip_id'])} ids and columns of {lengths}")
        return arrays


def read_all(store: Store, attack_run_id: str) -> dict[str, list[dict[str, np.ndarray]]]:
    """Kind of halves → what the reference models that a run of attack models names answered: `ATTACKED`."""
    attack = queries.run_of(store, attack_run_id)
    named = {by: attack.tags[tag_of(by)] for by in REFERENCES_BY if attack is not None and tag_of(by) in attack.tags}
    for family in named.values():
        if family not in store.references:
            store.references[family] = _read_family(store, family)
    return {by: store.references[family] for by, family in named.items()}


def _read_family(store: Store, family: str) -> list[dict[str, np.ndarray]]:
    """One that cannot be read is told and left out. What is the same in all of them is kept once."""
    found: list[dict[str, np.ndarray]] = []
    for run in finished(store, family).values():
        try:
            arrays = read(store, run.id)
        except Unreadable as error:
            say_once(f"note: a reference model is left out, attack with references=… trains it again: {error}")
            continue
        first = found[0] if found else arrays
        found.append({name: _once(arrays[name], first[name]) for name in ATTACKED})
    return found


def _once(array: np.ndarray, first: np.ndarray) -> np.ndarray:
    return first if np.array_equal(array, first) else array
