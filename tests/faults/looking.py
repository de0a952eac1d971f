"""An independent look at the store of a living folder: who is in what was trained, and what is left of whom.

The truth is kept beside the store: what each file holds whatever its name, who was answered, who was erased. It is held
against the store's own lists, the bytes of its files and the pages of its database, read without the package.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tests.answered import Answered

LISTS = (("losses.csv", "member", "1"), ("mia_all_balanced.csv", "label", "0"), ("losses/remain.csv", "", ""))
"""Lists of what a run's models were trained on, and how they tell it from what they were tested on."""


class Said(NamedTuple):
    """What a file holds, whatever its name. `altered`: how it differs from the recording, where it is a copy of one."""

    person: str
    word: str
    key: int
    altered: str = ""


@dataclass(frozen=True)
class Asked:
    """An answered request: its recordings by their keys, whose or which word's all of them are, and its answers.

    `answers`: registered model → the run behind the version that was put into service.
    """

    hash: str
    keys: frozenset[int]
    person: str = ""
    word: str = ""
    answers: Mapping[str, str] | None = None

    def takes(self, said: Said) -> bool:
        """Whether nothing may be learnt of a recording any more."""
        return said.key in self.keys or said.person == self.person or said.word == self.word


@dataclass(frozen=True)
class Learnt:
    """What the models of a run have learnt, by its lists when it was new: they are cut afterwards.

    `beside`: non-members of its attack models.
    """

    tags: Mapping[str, str]
    trained: frozenset[Said]
    beside: frozenset[Said]


class Looking:
    """What is true of a folder, and the look at its store."""

    def __init__(self, place: Answered) -> None:
        self.place = place
        self.files: dict[str, Said] = {}
        self.names: dict[int, set[str]] = {}
        self.people: dict[int, str] = {}
        self.hashes: dict[int, set[str]] = {}
        self.learnt: dict[str, Learnt] = {}
        self.sides: dict[tuple[str, int, str], str] = {}
        self.out: list[Asked] = []
        self._clean: set[tuple[Path, int, int, frozenset[bytes]]] = set()

    def knows(self, id_: str, said: Said) -> None:
        """A file is there, by this name."""
        self.files[id_] = said
        self.names.setdefault(said.key, set()).add(id_)
        self.people[said.key] = said.person

    def gone(self, said: Said) -> bool:
        """Whether an answered request takes a recording."""
        return any(asked.takes(said) for asked in self.out)

    def everything(self, asked: Asked) -> frozenset[int]:
        """What has to go when a request is erased: a person's held-out and later recordings too."""
        return asked.keys | {key for key, person in self.people.items() if person == asked.person}

    # --- what was trained

    def nobody_is_back(self) -> None:
        """What was trained since the last look: by the store's own lists, against what the files truly hold. Of base
        models each recording's side too, which it has from the first one of its data set on."""
        for run in self.place.runs():
            if run not in self.learnt:
                self.learnt[run] = Learnt(self.place.tags(run), self._said(run, True), self._said(run, False))
                back = sorted(said for said in self.learnt[run].trained if self.gone(said))
                assert not back, f"{self.place.tags(run)['mlflow.runName']} has learnt {back} again"
                if (self.place.place(run) / "losses.csv").is_file():
                    self._nobody_changes_sides(run)

    def _nobody_changes_sides(self, run: str) -> None:
        found = self.learnt[run]
        for member, saids in (("1", found.trained), ("0", found.beside)):
            for said in saids:
                key = found.tags["dataset_name"], said.key, said.altered
                assert self.sides.setdefault(key, member) == member, f"{said} has changed its side in {key[0]}"

    def nobody_answered_is_served(self) -> None:
        """The models behind the aliases of unlearned ones: all that they descend from, by the runs that made them."""
        of_version = "select run_id from model_versions where name = ? and version = ?"
        for name, alias, version in self.place.aliases():
            ((run,),) = self.place.query(of_version, name, str(version))
            for asked in self.out if alias.startswith("unlearned") else ():
                if name in (asked.answers or {}):
                    held = sorted(said for said in self.descent(run, asked) if asked.takes(said))
                    assert not held, f"{name}@{alias} has learnt {held}"

    def descent(self, run: str, asked: Asked) -> frozenset[Said]:
        """All that a run's models have learnt, as far back as the answer to a request."""
        found = self.learnt[run]
        base = found.tags.get("base_run_id", "")
        ends = found.tags.get("method", "naive") == "naive" or run in (asked.answers or {}).values()
        return found.trained | (frozenset() if ends or base not in self.learnt else self.descent(base, asked))

    def trained(self, run: str, member: bool = True) -> set[str]:
        """Ids of what a run's models were trained on; of those that were no members, tested on or attacked with."""
        for path, column, of_members in LISTS:
            if (self.place.place(run) / path).is_file():
                table = self.place.table(run, path)
                self._hear(table)
                return (
                    set(table.loc[(table[column] == of_members) == member, "clip_id"])
                    if column
                    else {*table["clip_id"]}
                )
        return set()

    def _said(self, run: str, member: bool) -> frozenset[Said]:
        return frozenset(self.files[id_] for id_ in self.trained(run, member))

    def _hear(self, table: pd.DataFrame) -> None:
        for name in {"audio_hash", "source_hash"} & {*table.columns}:
            for id_, hash_ in zip(table["clip_id"], table[name]):
                if id_ in self.files:
                    self.hashes.setdefault(self.files[id_].key, set()).add(hash_)

    # --- what is left

    def nothing_is_left(self, asked: Asked) -> None:
        """Names and hashes of an erased request anywhere but in the ledger; models that were trained on it."""
        needles = self._needles(asked)
        for path in self._files():
            seen = path, path.stat().st_mtime_ns, path.stat().st_size, needles
            if seen not in self._clean:
                data = names_in(path) if path.suffix == ".npz" else path.read_bytes()
                left = [text for text in needles if text in data]
                assert not left, f"{path} still has {left[:3]}"
                self._clean.add(seen)
        keys = self.everything(asked)
        active = "select source_run_id from logged_models where lifecycle_stage = 'active'"
        for (run,) in self.place.query(active):
            found = self.learnt[run]
            heard = self.descent(run, asked) | (found.beside if found.tags["stage"] == "attack" else frozenset())
            held = sorted(said for said in heard if said.key in keys)
            assert not held, f"the models of {found.tags['mlflow.runName']} hold {held}"

    def _needles(self, asked: Asked) -> frozenset[bytes]:
        own = [run for run in self.place.entries() if self.place.tags(run)["request_hash"] == asked.hash]
        table = pd.concat([self.place.table(run, "recordings.csv") for run in own])
        keys = self.everything(asked)
        texts = {*table["audio_hash"], *table["source_hash"]}
        texts = texts.union(*(self.names[key] | self.hashes.get(key, set()) for key in keys))
        return frozenset(text.encode() for text in texts if text)

    def _files(self) -> Iterator[Path]:
        """All files of the store and the caches but the ledger's own lists; the database with what is not in it yet."""
        lists = [self.place.place(run) / "recordings.csv" for run in self.place.entries()]
        for path in (path for top in ("mlruns", "cache") for path in (self.place.folder / top).rglob("*")):
            if path.is_file() and path not in lists and path.suffix != ".lock":
                yield path
        yield from self.place.folder.glob("mlflow.db*")


def still_named(folder: Path, database: Path, needles: Collection[bytes], but: Collection[Path]) -> Iterator[str]:
    """Where the store and the cache of a project's folder still have one of these texts, without some files."""
    for path in (path for top in ("mlruns", "cache") for path in (folder / top).rglob("*")):
        if path.is_file() and path not in but:
            data = names_in(path) if path.suffix == ".npz" else path.read_bytes()
            if any(needle in data for needle in needles):
                yield f"{path.relative_to(folder)} names the person"
    pages = database.read_bytes()
    if any(needle in pages for needle in needles):
        yield "the database names the person"


def names_in(path: Path) -> bytes:
    """The names in a file of arrays, which are packed, and have to be those of all of its rows."""
    with np.load(path) as content:
        if "clip_id" not in content:
            return b""
        n = {name: len(content[name]) for name in content}
        assert len({*n.values()}) == 1, f"{path} has rows without names: {n}"
        return " ".join(map(str, content["clip_id"])).encode()
