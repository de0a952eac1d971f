"""The names that the recordings of a request have in each data set of the store, found by their audio."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from audio_mu.data.catalog import composed
from audio_mu.requests.ledger import COLUMNS, OF_PERSON, SCOPE, Entry
from audio_mu.store.removal import AnyRun

HASHES = ("audio_hash", "source_hash")
HASHED = {"train": ("losses.csv",), "unlearn": ("losses", "request.csv")}
"""Stage → its lists, or folders of lists, with audio hashes; those of earlier versions have none."""
COMPLETE = ("losses.csv", "losses/remain.csv")
"""The lists that name everything that a model was trained on."""


class Content:
    """Under which ids the runs of a store know the recordings of a request.

    Under the request's own ids in runs of its data set or of its folder; in runs of every other data set under those
    that have the recordings' audio hashes there. Whatever else the people of a request say is one of its recordings:
    held-out ones, and later ones. `earlier`: of an earlier search, whose lists have been cut since.
    """

    def __init__(self, runs: Mapping[str, AnyRun], entry: Entry, earlier: Content | None = None) -> None:
        self._entry = entry
        answering = (runs[id_] for id_ in entry.answering_runs if id_ in runs)
        self._data_dirs = {data_dir(run) for run in answering} - {""}
        self._ids: dict[str, set[str]] = dict(earlier._ids) if earlier else {}
        self._told: set[str] = set(earlier._told) if earlier else set()
        self._told_of: set[str] = set(earlier._told_of) if earlier else set()
        self._said: list[pd.DataFrame] = []
        for run in runs.values():
            self._look_up(run)

    def _look_up(self, run: AnyRun) -> None:
        dataset, lists = run.tags.get("dataset_name", ""), HASHED.get(run.tags.get("stage", ""), ())
        for path in paths_of(run, lists) if run.is_own else ():
            rows = rows_of(run.files.read(path), self._entry, self._entry.called.get(dataset, frozenset()))
            if rows is not None:
                if path in COMPLETE:
                    self._told.add(run.id)
                    self._told_of.add(dataset)
                self._ids.setdefault(dataset, set()).update(rows["clip_id"])
                self._said.append(rows if self._is_same(run) else self._own_name(rows))

    def _own_name(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of another data set, whose ids and names of people mean nothing in this one."""
        known = self._entry.recordings["speaker"]
        named = known[known.map(composed).isin(self._entry.speakers)]
        return rows.assign(clip_id="", **({"speaker": named.iloc[0]} if len(named) else {}))

    def _is_same(self, run: AnyRun) -> bool:
        own, tags = self._entry.tags, run.tags
        return tags.get("dataset_name", own.get("dataset_name")) == own.get("dataset_name") or (
            tags.get("dataset") == own.get("dataset") and data_dir(run) in self._data_dirs
        )

    def whole(self, cached: pd.DataFrame) -> Entry:
        """The entry with everything that its people say in the store's lists, or `cached`: clip_id, label, speaker,
        part, audio_hash, source_hash. What is erased must stay out by its hash."""
        said = pd.concat([*self._said, cached]).fillna("").sort_values("clip_id", ascending=False)  # with an id first
        new = said[~said[list(HASHES)].isin(self._entry.hashes).any(axis=1)].drop_duplicates(list(HASHES))
        if new.empty:
            return self._entry
        more = new.assign(forgotten="False", **{SCOPE: OF_PERSON})
        return replace(self._entry, recordings=pd.concat([self._entry.recordings, more], ignore_index=True).fillna(""))

    def ids(self, run: AnyRun) -> frozenset[str]:
        """What the recordings are called in a run."""
        found = self._ids.get(run.tags.get("dataset_name", ""), set())
        return frozenset(found) | (self._entry.ids if self._is_same(run) else frozenset())

    def tells(self, run: AnyRun) -> bool:
        """Whether it is known from a run's lists, or its data set's, what they are called there."""
        if run.tags.get("stage") in HASHED:
            return run.id in self._told or self._is_same(run)
        return run.tags.get("dataset_name", "") in self._told_of or self._is_same(run)


def paths_of(run: AnyRun, lists: Iterable[str]) -> list[str]:
    """The lists that a run has, of these at the top and of all in these folders."""
    top, files = set(run.files.listed()), run.files
    return [
        path
        for name in lists
        for path in ([name] if name in top else files.listed(name) if not name.endswith(".csv") else [])
    ]


def rows_of(table: bytes, entry: Entry, called: frozenset[str] = frozenset()) -> pd.DataFrame | None:
    """The rows of a list that are recordings of an entry, by hash or by speaker; None where it has no hashes, or is
    none that can be read. `called`: other names that its person has in the list's data set."""
    try:
        read = pd.read_csv(io.BytesIO(table), dtype=str, usecols=lambda name: name in COLUMNS, keep_default_na=False)
        told = read[[name for name in HASHES if name in read]]
        found = told.isin(entry.hashes).any(axis=1)
        if "source_hash" in read and ("within" in read or any("#" in hash_ for hash_ in entry.hashes)):
            parts = read.get("within", "")
            found |= read["source_hash"].where(parts == "", parts).map(entry.heard.__contains__)
        if entry.speakers and "speaker" in read:
            found |= read["speaker"].map(composed).isin(entry.speakers | called)
        return read[found] if len(told.columns) and "clip_id" in read else None
    except ValueError:
        return None


def is_hashed(path: str) -> bool:
    """Whether a list says what the recordings are called: such lists are cut last, for an erasure that is killed."""
    return path.endswith(".csv") and path.partition("/")[0] in ("losses", "losses.csv", "request.csv")


def data_dir(run: AnyRun) -> str:
    """The folder that a run read, however it was written: a tag of stages, a parameter of all under `mlflow run`."""
    given = run.tags.get("data_dir") or run.params.get("data_dir", "")
    return str(Path(given).resolve()) if given else ""
