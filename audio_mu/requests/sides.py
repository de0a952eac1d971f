"""The sides that recordings have been given, kept in the store: whoever has one keeps it."""

from __future__ import annotations

import pandas as pd

from audio_mu.config import DataParameters
from audio_mu.data.splits import Sides
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run, lone_run
from audio_mu.system.hashing import hash_of
from audio_mu.system.writing import cache_root, locked

STAGE, ROLE, TABLE = "sides", "table", "sides.csv"


def read_sides(store: Store, data: DataParameters) -> dict[str, str]:
    """Identity → side of a data set under a split and its seed; empty before the first training."""
    sides: dict[str, str] = {}
    for run in _runs(store, data):
        table = read_csv(store, run.id, TABLE, ("identity", "side"), dtype=str)
        sides |= dict(zip(table["identity"], table["side"]))
    return sides


def keep_sides(store: Store, data: DataParameters, drawn: Sides) -> Sides:
    """Add new sides to the table. Returns all: another command may have been first, and its sides stand."""
    if not drawn:
        return read_sides(store, data)
    tags = _tags(data)
    with locked(cache_root() / "sides" / hash_of([store.uri, *tags.values()])[:32]):
        known = read_sides(store, data)
        sides = {**drawn, **known}
        if sides == known:
            return sides
        table = pd.DataFrame(sorted(sides.items()), columns=["identity", "side"])
        found = _runs(store, data)
        run = Run(store, found[-1].id, "") if found else lone_run(store, STAGE, ROLE, f"sides {data.label}", tags)
        run.csv(TABLE, table)
        if not found:
            store.client.set_terminated(run.id)  # only a whole table is found
        return sides


def _tags(data: DataParameters) -> dict[str, str]:
    return {"dataset_name": data.label, "split": data.split, "split_seed": str(data.split_seed)}


def _runs(store: Store, data: DataParameters) -> list[Finished]:
    """The newest first; there is more than one only where two machines began at once, and the first one's hold."""
    return queries.find(store, {"stage": STAGE, "role": ROLE, **_tags(data)}, everywhere=True)
