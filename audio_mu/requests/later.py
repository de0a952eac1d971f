"""Recordings that turn out to be an answered request's later: copies, and what its people have said since."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from audio_mu.requests.held_out import held_out
from audio_mu.requests.ledger import COLUMNS, OF_PERSON, OF_RECORDINGS, RECORDINGS, SCOPE, Entry, rows_once
from audio_mu.store.artifacts import read_csv
from audio_mu.store.handle import Store
from audio_mu.store.locks import registry_locked
from audio_mu.store.runs import Run

HASHES = ["audio_hash", "source_hash"]


def add_copies(store: Store, entry: Entry, copies: Sequence[Sequence[str]]) -> None:
    """Add copies of an answered request's recordings to it: see `Clips.identity`."""
    _add(store, entry, pd.DataFrame(copies, columns=list(COLUMNS)), OF_RECORDINGS)


def add_said(store: Store, entry: Entry, said: pd.DataFrame) -> None:
    """Add what the people of a request say to it, of a table with COLUMNS, some of them maybe empty.

    Not what is known of it, nor what was held out: that stays among the non-members until the request is erased.
    """
    known = entry.hashes | {*held_out(entry)[HASHES].to_numpy().ravel()} - {""}
    new = said[~said[HASHES].isin(known).any(axis=1)].drop_duplicates(HASHES).fillna("")
    if len(new):
        _add(store, entry, new, OF_PERSON)


def _add(store: Store, entry: Entry, rows: pd.DataFrame, scope: str) -> None:
    new = rows.assign(forgotten="False", **{SCOPE: scope})
    with registry_locked(store):
        for run_id in entry.run_ids:
            known = read_csv(store, run_id, RECORDINGS, (*COLUMNS, SCOPE), dtype=str)
            Run(store, run_id, "").csv(RECORDINGS, rows_once([known, new]))
