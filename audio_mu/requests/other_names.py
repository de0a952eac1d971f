"""What the people of another data set's requests are called in a data set: by sound, now and in earlier trainings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from audio_mu.data.catalog import composed
from audio_mu.progress import say_once
from audio_mu.requests.held_out import held_out
from audio_mu.requests.ledger import CALLED, Entry, Ledger, read_ledger
from audio_mu.store import queries
from audio_mu.store.artifacts import Unreadable, read_csv
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run

if TYPE_CHECKING:  # `erase` needs no torch
    from audio_mu.data.clips import Clips

HASHES = ["audio_hash", "source_hash"]
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class NamesHere:
    """What the people of a request of another data set are called here, `composed`: by the sound of their recordings.

    `several`: their recordings are of different people here. `own`: their own name is here too, so that the others
    have copies.
    """

    names: frozenset[str] = frozenset()
    several: bool = False
    own: bool = False


def names_here(clips: Clips, entry: Entry) -> NamesHere:
    """The speakers of these clips who are somebody that a request of another data set is about, under another name.

    Those of the entry's `also` among them too, whose recordings of then may be gone.
    """
    everybody = {composed(name) for name in (*clips.speakers, *(recording.speaker for recording in clips.unread))}
    here = _who_is(entry, _by_sound(clips), everybody)
    return here if here.own else replace(here, names=here.names | (entry.also & everybody))


def _who_is(entry: Entry, sounds: Iterable[tuple[str, Sequence[str]]], everybody: Set[str]) -> NamesHere:
    """Which speakers are the entry's person. `sounds`: speaker and hashes of recordings. `everybody`: all speakers.

    A speaker who has recordings of the person that nobody with more of them has is the person. Whoever has only what
    another has as well has copies, and so has everybody where somebody is called as the person is.
    """
    if not entry.speakers:
        return NamesHere()
    has: dict[str, set[int]] = {}
    number = _numbers(entry)
    for speaker, hashes in sounds:
        if found := {number[hash_] for hash_ in hashes if hash_ in number}:
            has.setdefault(composed(speaker), set()).update(found)
    others = {name: found for name, found in has.items() if name and name not in entry.speakers}
    most = max(others.values(), key=len, default=set())
    people = frozenset(name for name, found in others.items() if found == most or not found <= most)
    if not entry.speakers.isdisjoint(everybody):
        return NamesHere(own=bool(people))
    return NamesHere(people, len({frozenset(others[name]) for name in people}) > 1)


def _numbers(entry: Entry) -> dict[str, int]:
    """Hash → recording of the request's people, without the hashes that somebody else's copy has as well."""
    table = pd.concat([entry.recordings, held_out(entry)], ignore_index=True)
    hashes = [name for name in ("audio_hash", "source_hash") if name in table]
    ours = table["speaker"].map(composed).isin(entry.speakers)
    copies = {*table.loc[~ours, hashes].to_numpy().ravel()}
    rows = table.loc[ours, hashes].itertuples(index=False)
    return {hash_: i for i, row in enumerate(rows) for hash_ in row if hash_ and hash_ not in copies}


def _by_sound(clips: Clips) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Speaker and hashes of all that was read, clips or not."""
    yield from zip(clips.speakers, zip(clips.hashes, clips.sources))
    yield from ((recording.speaker, tuple(recording.hashes)) for recording in clips.unread)


def ledger_here(store: Store, dataset_name: str) -> Ledger:
    """The ledger of a data set, with the names that the people of other data sets' requests have had in this one.

    What the lists of its earlier trainings say is kept with the entries: recordings go, and lists are cut.
    """
    ledger = read_ledger(store, dataset_name)
    away = []
    for known in ledger.elsewhere:
        entry = known
        if entry.speakers and dataset_name not in entry.called:
            entry = called_in_lists(store, entry, [dataset_name])
            keep_called(store, entry)
        away.append(replace(entry, also=entry.called.get(dataset_name, frozenset())))
    return replace(ledger, elsewhere=tuple(away))


def called_in_lists(store: Store, entry: Entry, dataset_names: Iterable[str]) -> Entry:
    """The entry with what its person is called in data sets that have been trained, by the lists of their trainings.

    Names that share the person's recordings within one list say nothing of the person: none of them is taken.
    """
    called = dict(entry.called)
    for name in dataset_names if entry.speakers else ():
        found = queries.find(store, {"stage": "train", "role": "seed", "dataset_name": name}, everywhere=True)
        lists = {run.tags.get(PARENT, run.id): run for run in found}  # all seeds of a command have one
        for run in lists.values():
            called[name] = called.get(name, frozenset()) | _called_in(store, entry, run)
    return _with_called(entry, called)


def _called_in(store: Store, entry: Entry, run: Finished) -> frozenset[str]:
    try:
        table = read_csv(store, run.id, "losses.csv", dtype=str)
    except Unreadable as error:
        say_once(f"note: whose names are in the list of run {run.name} ({run.id[:8]}) is not known: {error}")
        return frozenset()
    if not {"speaker", *HASHES} <= {*table.columns}:
        return frozenset()  # of an earlier version
    sounds = zip(table["speaker"], table[HASHES].to_numpy().tolist())
    here = _who_is(entry, sounds, {*map(composed, table["speaker"])})
    return frozenset() if here.several else here.names


def _with_called(entry: Entry, called: Mapping[str, Iterable[str]]) -> Entry:
    tag = json.dumps({name: sorted(names) for name, names in sorted(called.items())}, ensure_ascii=False)
    return replace(entry, tags={**entry.tags, CALLED: tag}) if called else entry


def keep_called(store: Store, entry: Entry) -> None:
    """Keep with an entry in the store what its person is called in other data sets."""
    for run_id in entry.run_ids if entry.called else ():
        Run(store, run_id, "").tags({CALLED: entry.tags[CALLED]})


def keep_heard(store: Store, entry: Entry, clips: Clips, dataset_name: str) -> None:
    """The same with the names that the recordings of today tell: these may go while the person's later ones stay."""
    known, here = entry.called.get(dataset_name, frozenset()), names_here(clips, entry)
    if not here.several and not here.names <= known:
        keep_called(store, _with_called(entry, {**entry.called, dataset_name: known | here.names}))
