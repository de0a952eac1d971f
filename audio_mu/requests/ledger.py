"""The ledger of answered requests: what was forgotten, when, by which models, and what has become of the recordings."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import pandas as pd

from audio_mu.data.catalog import Barred, composed
from audio_mu.data.segments import Heard
from audio_mu.errors import UserError, counted, first_of
from audio_mu.requests import ledger_file
from audio_mu.requests.into_service import MOVING, ROLE, STAGE, finish_interrupted, put_into_service
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv, read_json
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.registry import Version
from audio_mu.store.runs import Run, lone_run
from audio_mu.system.hashing import hash_of

ANSWERED, ERASING, ERASED = "answered", "erasing", "erased"
STATES = (ANSWERED, ERASING, ERASED)
RECORDINGS, NONMEMBERS, ANSWERS = "recordings.csv", "nonmembers.csv", "answers.json"
ERASURE = "erasure.json"
RETIRED = "retired"
"""Tag of a run whose models were removed for a request, with its hash: figures stay, models are not to be had."""
COLUMNS = ("clip_id", "label", "speaker", "part", "audio_hash", "source_hash", "within")
SCOPE = "scope"
"""Column of request.csv and recordings.csv: person or class where the row's whole speaker or class was asked for."""
OF_RECORDINGS, OF_PERSON, OF_CLASS = "recordings", "person", "class"
CALLED = "called"
"""Tag: data set → names that the entry's person has there, where it is another one, as JSON."""
COPIES, SOUGHT = "copies", "copies_sought"
"""Tags: which copies were looked for, in words, and whether probable ones were."""


@dataclass(frozen=True)
class Answer:
    """What one registered model answered a request with: seed → versions before and after, and the runs behind."""

    cell: str
    method: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    runs: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """One answered request.

    `recordings`: `COLUMNS` of every forgotten clip, of every other copy of its audio and of what was asked for without
    having been trained on, `forgotten` telling the first apart, and their `scope`. `nonmembers`: the same of the test
    clips that membership was measured against.
    """

    run_id: str
    tags: Mapping[str, str]
    recordings: pd.DataFrame
    nonmembers: pd.DataFrame
    answers: Mapping[str, Answer]
    twins: tuple[str, ...] = ()
    """Runs of further entries of the same request: two commands have answered it at once."""
    also: frozenset[str] = frozenset()
    """Other names, `composed`, that its person has in the data set that the ledger was read for."""

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Every run that holds it in the store."""
        return (self.run_id, *self.twins)

    @property
    def request(self) -> str:
        """The request's name."""
        return self.tags["request"]

    @property
    def hash(self) -> str:
        """The request's hash."""
        return self.tags["request_hash"]

    @property
    def asked(self) -> str:
        """The hash of what the command was asked, which for several people has an entry of each."""
        return self.tags.get("asked_hash", self.hash)

    @property
    def state(self) -> str:
        """answered, erasing or erased."""
        return self.tags["state"]

    @property
    def answering_runs(self) -> tuple[str, ...]:
        """Ids of the runs whose models answered it."""
        return tuple(run for answer in self.answers.values() for run in answer.runs.values())

    @property
    def gone(self) -> bool:
        """Whether its recordings may not be read any more."""
        return self.state != ANSWERED

    @cached_property
    def called(self) -> Mapping[str, frozenset[str]]:
        """Data set → the other names that its person is known to have there, `composed`."""
        return {name: frozenset(names) for name, names in json.loads(self.tags.get(CALLED, "{}")).items()}

    def is_elsewhere(self, dataset_name: str) -> bool:
        """Whether it was answered in another data set than this: ids and classes mean other recordings there."""
        return self.tags.get("dataset_name") != dataset_name

    @cached_property
    def ids(self) -> frozenset[str]:
        """Ids of its recordings."""
        return frozenset(self.recordings["clip_id"]) - {""}  # without: a person's, in another data set

    @cached_property
    def hashes(self) -> frozenset[str]:
        """Hashes of their audio, as a clip and as the file has it, and of parts `Clips.within`."""
        return frozenset(self.recordings.filter(["audio_hash", "source_hash", "within"]).to_numpy().ravel()) - {""}

    @cached_property
    def heard(self) -> Heard:
        """`hashes`, as what shares sound with them is looked for."""
        return Heard(self.hashes)

    @cached_property
    def speakers(self) -> frozenset[str]:
        """The people that it is about, `composed`: nothing that they say is learnt again, however new."""
        return frozenset(map(composed, self._within(OF_PERSON, "speaker")))

    @cached_property
    def classes(self) -> frozenset[str]:
        """The classes that it is about, in its own data set."""
        return self._within(OF_CLASS, "label")

    def _within(self, scope: str, column: str) -> frozenset[str]:
        found = self.recordings  # what only AUDIO_MU_LEDGER knows has no scope
        return frozenset(found.loc[found[SCOPE] == scope, column] if SCOPE in found else ()) - {""}


@dataclass(frozen=True)
class Ledger:
    """The answered requests of a data set in every experiment of a store, the first answered first.

    `elsewhere`: those of all other data sets. `missing`: what `AUDIO_MU_LEDGER` knows beside them.
    """

    entries: tuple[Entry, ...] = ()
    elsewhere: tuple[Entry, ...] = ()
    missing: tuple[ledger_file.Missing, ...] = ()

    def of(self, dataset_name: str) -> Ledger:
        """The ledger of one data set, of the ledger of all."""
        away = [entry.is_elsewhere(dataset_name) for entry in self.entries]
        own, others = (tuple(e for e, is_away in zip(self.entries, away) if is_away == of) for of in (False, True))
        return Ledger(own, others, self.missing)

    @property
    def barred(self) -> Barred:
        """What may not be read: the recordings of erased requests, and whatever else their people say."""
        gone, away = ([entry for entry in known if entry.gone] for known in (self.entries, self.elsewhere))
        labels = frozenset(label for entry in self.entries for label in entry.recordings["label"]) - {""}
        return dataclasses.replace(_barring(gone, away), labels=labels, absent=_barring(self.entries, self.elsewhere))

    def left_out(self, ledger: str) -> tuple[Entry, ...]:
        """The entries whose recordings are left out: all of them, or with `ledger=ignore` those that are gone."""
        return tuple(entry for entry in (*self.entries, *self.elsewhere) if entry.gone or ledger == "respect")

    def barring(self, ledger: str) -> tuple[Entry, ...]:
        """The same, and what is known of the `missing` ones, by hash alone, where nobody is taken in again."""
        return self.left_out(ledger) + (tuple(map(_unknown, self.missing)) if ledger == "respect" else ())

    def of_model(self, name: str) -> list[Entry]:
        """The entries that a registered model has answered, in order."""
        return [entry for entry in self.entries if name in entry.answers]

    def set_name(self, entry: Entry) -> str:
        """The name of an earlier request's set and metrics; the second request of a name has its hash there."""
        first = next(other for other in self.entries if other.request == entry.request)
        name = "earlier-" + re.sub(r"[^\w.-]+", "_", entry.request)
        return name if first.hash == entry.hash else f"{name}-{entry.hash[:6]}"


def _unknown(lost: ledger_file.Missing) -> Entry:
    tags = {"request": "of AUDIO_MU_LEDGER", "request_hash": lost.request, "state": ANSWERED}
    recordings = pd.DataFrame({"audio_hash": sorted(lost.hashes)}).reindex(columns=list(COLUMNS), fill_value="")
    return Entry("", tags, recordings, recordings[:0], {})


def _barring(own: Sequence[Entry], elsewhere: Sequence[Entry]) -> Barred:
    def union(name: str, entries: Sequence[Entry]) -> frozenset[str]:
        return frozenset().union(*(getattr(entry, name) for entry in entries))

    hashes, speakers = (union(name, (*own, *elsewhere)) for name in ("hashes", "speakers"))
    return Barred(union("ids", own), hashes, frozenset(), speakers, union("classes", own))


def read_ledger(store: Store, dataset_name: str | None = None) -> Ledger:
    """The ledger of a data set, or of all: one for the registry, whatever the experiment.

    What a command that was killed has left half in service goes into service first.
    """
    finish_interrupted(store)
    every = _entries(store)
    missing = _keep(every)
    ledger = Ledger(tuple(every), missing=missing)
    return ledger if dataset_name is None else ledger.of(dataset_name)


def keep_file(store: Store) -> None:
    """Bring the file of `AUDIO_MU_LEDGER` up to date, and tell what it knows and the store does not."""
    if ledger_file.path() is not None:
        _keep(_entries(store))


def _keep(entries: Sequence[Entry]) -> tuple[ledger_file.Missing, ...]:
    return ledger_file.keep(
        ledger_file.Known(e.hash, e.tags["dataset_name"], e.state, len(e.recordings), e.hashes) for e in entries
    )


def _refuse_deleted(store: Store) -> None:
    """Raise `UserError` where entries were deleted in the UI: their people would be in service again, unseen."""
    deleted = queries.find_deleted(store, {"stage": STAGE, "role": ROLE})
    if deleted:
        names = first_of([run.name for run in deleted])
        raise UserError(
            f"{counted(len(deleted), 'entry')} of answered requests ({names}) deleted in this store, which would come "
            f"back: run `{queries.restored_by(store, deleted[0])}`, or have them forgotten with `mlflow gc`"
        )


def _entries(store: Store) -> list[Entry]:
    """The answered requests of all data sets and experiments, the first answered first."""
    _refuse_deleted(store)
    found = [_entry(store, run) for run in queries.find(store, {"stage": STAGE, "role": ROLE}, everywhere=True)]
    return list(_in_order(_each_once(found)))


def _each_once(entries: Iterable[Entry]) -> list[Entry]:
    """Entries of one request and data set as one: the first one's, with the answers of all and the furthest state."""
    together: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.tags["answered_at"]):
        together.setdefault((entry.hash, entry.tags.get("dataset_name", "")), []).append(entry)
    return [_as_one(same) if len(same) > 1 else same[0] for same in together.values()]


def _as_one(same: Sequence[Entry]) -> Entry:
    furthest = max((entry.state for entry in same), key=STATES.index)
    return Entry(
        same[0].run_id,
        {**same[0].tags, "state": furthest},
        rows_once(entry.recordings for entry in same),
        rows_once(entry.nonmembers for entry in same),
        {name: answer for entry in same for name, answer in entry.answers.items()},
        tuple(entry.run_id for entry in same[1:]),
    )


def rows_once(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables, each id once; those without an id (of a cache, of another data set) by their hashes."""
    rows = pd.concat(tables, ignore_index=True).fillna("")
    key = rows["clip_id"].where(rows["clip_id"] != "", rows.get("audio_hash", "") + rows.get("source_hash", ""))
    return rows[~key.duplicated()].reset_index(drop=True)


def _in_order(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Each entry behind the one that it names as `previous`: clocks of two machines differ."""
    left = sorted(entries, key=lambda entry: entry.tags.get("answered_at", ""))
    while left:
        waiting = {entry.hash for entry in left}
        free = [entry for entry in left if entry.tags.get("previous", "") not in waiting - {entry.hash}]
        chosen = (free or left)[0]  # a circle is nothing that `enter` writes
        left.remove(chosen)
        yield chosen


def _entry(store: Store, run: Finished) -> Entry:
    return Entry(
        run.id,
        run.tags,
        read_csv(store, run.id, RECORDINGS, (*COLUMNS, SCOPE), dtype=str),
        read_csv(store, run.id, NONMEMBERS, COLUMNS, dtype=str),
        {name: Answer(**answer) for name, answer in read_json(store, run.id, ANSWERS).items()},
    )


def clips_hash(recordings: pd.DataFrame) -> str:
    """The hash of the forgotten ones among an entry's recordings, by id and audio."""
    return hash_of(recordings.loc[recordings["forgotten"], ["clip_id", "audio_hash"]].to_numpy().tolist())


def enter(
    store: Store, ledger: Ledger, entries: Sequence[Entry], aliases: Mapping[str, Version] | None = None
) -> list[str]:
    """Write what a command has answered into the ledger, and put the answer of one registered model into service.

    `entries` have no run yet, and one answer, or none where no model has learnt anything of it. A request that is in
    the ledger already gets this model's answer added or renewed. All entries are whole before the first of the
    `aliases` moves, and count from the last one on: whoever is killed in between leaves what `finish_interrupted`
    needs. Returns the ids of the entries' runs.
    """
    written: list[str] = []
    previous = ledger.entries[-1].hash if ledger.entries else ""
    for entry in entries:
        known = next((other for other in ledger.entries if other.hash == entry.hash), None)
        written += _write(store, entry, known, previous)
        previous = previous if known else entry.hash
    named = {alias: [version.name, version.version] for alias, version in (aliases or {}).items()}
    moving = json.dumps({"aliases": named, "entries": written})
    Run(store, written[0], "").tags({MOVING: moving})
    put_into_service(store, written[0], moving)
    keep_file(store)
    return written


def _write(store: Store, entry: Entry, known: Entry | None, previous: str) -> Sequence[str]:
    """Write an entry, or add its answer to the known one of the same request; the ids of its runs."""
    answers = {**(known.answers if known else {}), **entry.answers}
    tags = {**entry.tags, "state": ANSWERED}
    for model, answer in entry.answers.items():
        tags |= {
            "registered_model": model,
            "cell": answer.cell,
            "method": answer.method,
            "versions_before": json.dumps(answer.before),
            "versions_after": json.dumps(answer.after),
        }
    if known is None:
        runs = [lone_run(store, STAGE, ROLE, f"ledger {entry.request}", tags)]
        tags |= {"answered_at": datetime.now(UTC).isoformat(timespec="milliseconds"), "previous": previous}
    else:
        runs = [Run(store, run_id, "") for run_id in known.run_ids]
    for run in runs:
        run.csv(RECORDINGS, entry.recordings)
        run.csv(NONMEMBERS, entry.nonmembers)
        run.text(ANSWERS, json.dumps({name: dataclasses.asdict(given) for name, given in answers.items()}, indent=1))
        run.tags(tags)
    return [run.id for run in runs]
