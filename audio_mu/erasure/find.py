"""Finding everything in the store and the caches that holds or derives from the recordings of a request."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from audio_mu.data.catalog import composed
from audio_mu.data.segments import Heard
from audio_mu.erasure.content import Content, is_hashed
from audio_mu.erasure.descent import Descent
from audio_mu.erasure.redact import Sought
from audio_mu.progress import bar
from audio_mu.requests.into_service import ROLE, STAGE
from audio_mu.requests.ledger import COLUMNS, RECORDINGS, RETIRED, Entry
from audio_mu.store import references, registry, removal
from audio_mu.store.files import Files
from audio_mu.store.handle import Store
from audio_mu.store.removal import AnyRun
from audio_mu.store.runs import Run
from audio_mu.system.writing import cache_root, locked

REMOVED, REWRITTEN, RETIRE = "removed", "rewritten without them", "removed, figures stay"
MARKED = "marked as having learnt them, figures of others stay"
CACHE_DIGITS = 32
CACHE = re.compile(rf"[0-9a-f]{{{CACHE_DIGITS}}}|\.[0-9a-f]{{{CACHE_DIGITS}}}\.\w+\.\d+-[\w-]*\.tmp")
"""Names of the feature caches that this package makes, whole and half built; every other folder is somebody else's."""
WORST_SPEAKER = "worst_speaker"
"""Tag of a run of any request: which of the other people has lost most, with how many recordings."""
MODEL = {"attack": "attack models", "train": "base model"}


@dataclass(frozen=True)
class Finding:
    """Something that holds or derives from the recordings, and what becomes of it. It names none of them.

    `tells`: other finds are found by it, so that it goes after them.
    """

    what: str
    where: str
    action: str
    act: Callable[[], None]
    tells: bool = False

    @property
    def row(self) -> dict[str, str]:
        """As the record has it."""
        return {"what": self.what, "where": self.where, "action": self.action}


class Search:
    """A search of a store and of this machine's caches for the recordings of one request.

    `entry` is the request's with everything else that its people say in the store.
    `searched` counts what was looked through. `descent`: of an earlier search. An erasure cuts the lists that say what
    a model was trained on, so that a search after it cannot tell any more.
    """

    def __init__(self, store: Store, entry: Entry, descent: Descent | None = None) -> None:
        self.store = store
        self.runs = {run.id: run for run in removal.every_run(store)}
        self.content = Content(self.runs, entry, descent.content if descent else None)
        self.entry = self.content.whole(cached(entry))
        if self.entry is not entry:  # what its people say may have other names elsewhere
            self.content = Content(self.runs, self.entry, self.content)
        self.descent = descent or Descent(self.runs, self.entry, self.content)
        self.searched = {"runs": len(self.runs), "artifacts": 0, "feature caches": 0}
        self.foreign = {where: what for run in self.runs.values() for where, what in _foreign(store, run).items()}
        self._known: dict[frozenset[str], Sought] = {}
        self.answering = [self.runs[id_] for id_ in entry.answering_runs if id_ in self.runs]

    def findings(self) -> list[Finding]:
        """Everything found, in the order in which it must go: models before the lists that say what they have seen."""
        artifacts = sorted(self._artifacts(), key=lambda found: found.tells)
        return [*self._models(), *self._references(), *self._caches(), *artifacts, *self._tags()]

    def _sought(self, run: AnyRun) -> Sought:
        """What to look for in a run: ids mean something within one data set alone, hashes always."""
        ids = self.content.ids(run)
        return self._known.setdefault(ids, Sought(ids, self.entry.hashes))

    def _models(self) -> Iterator[Finding]:
        for run in self.runs.values():
            if not run.is_own or not run.models or not self.descent.holds(run.id):
                continue
            versions = registry.versions_of(self.store, run.id, run.models)
            if (RETIRED in run.tags or not run.active) and not versions and not removal.logged_models(self.store, run):
                continue
            stage, where = run.tags.get("stage", ""), _named(run)
            for version in versions:
                names = [f"{version.name} version {version.version}", *removal.aliases_of(self.store, version)]
                where += ", " + " @".join(names)
            action = RETIRE if stage == "attack" else REMOVED
            yield Finding(MODEL.get(stage, "model"), where, action, partial(self._remove_models, run))

    def _remove_models(self, run: AnyRun) -> None:
        for version in registry.versions_of(self.store, run.id, run.models):
            removal.remove_version(self.store, version)
        for model in removal.logged_models(self.store, run):
            removal.remove_model(self.store, model)
        if run.active:
            Run(self.store, run.id, run.name).tags({RETIRED: self.entry.hash})

    def _references(self) -> Iterator[Finding]:
        """Reference models that have learnt the recordings: no weights are kept, and once the rows of the recordings
        are cut nothing but the mark says so."""
        for run in self.runs.values():
            if run.tags.get("stage") == references.STAGE and run.is_own and run.active:
                known = run.tags.get(RETIRED, "").split()
                if self.entry.hash not in known and self.descent.holds(run.id):
                    mark = {RETIRED: " ".join([*known, self.entry.hash])}
                    yield Finding(
                        "reference model", _named(run), MARKED, partial(Run(self.store, run.id, run.name).tags, mark)
                    )

    def _caches(self) -> Iterator[Finding]:
        for folder in sorted(path for path in (cache_root() / "features").glob("*") if path.is_dir()):
            if folder.is_symlink() or not CACHE.fullmatch(folder.name) or not _ours(folder):
                self.foreign[str(folder)] = "folder among the feature caches"
                continue
            self.searched["feature caches"] += 1
            half_built = folder.name.startswith(".") or not (folder / "index.json").is_file()
            if half_built or _holds(folder, self.entry):
                what = "feature cache" + (", half built" if half_built else "")
                yield Finding(what, folder.name, REMOVED, partial(_remove_cache, folder))

    def _artifacts(self) -> Iterator[Finding]:
        own = [run for run in self.runs.values() if run.is_own]
        for run in bar(own, len(own), "runs searched"):
            files, sought = run.files, self._sought(run)
            is_entry = (run.status, run.tags.get("stage"), run.tags.get("role")) == ("FINISHED", STAGE, ROLE)
            for path in files.paths():
                self.searched["artifacts"] += 1
                if is_entry and path == RECORDINGS:
                    continue
                if (change := sought.change(path, files.read(path))) is not None:
                    where, action = _named(run, path), REMOVED
                    if change.data is not None:
                        where, action = f"{where}: {change.cut}", REWRITTEN
                    yield Finding("artifact", where, action, partial(_rewrite, files, path, sought), is_hashed(path))
            for left in files.half_written():
                yield Finding("half-written artifact", _named(run), REMOVED, partial(left.unlink, missing_ok=True))

    def _tags(self) -> Iterator[Finding]:
        for run in self.runs.values():
            sought = self._sought(run)
            for key, value in run.tags.items() if run.is_own and run.active else ():
                worst = key == WORST_SPEAKER and composed(value.rpartition(" (")[0]) in self.entry.speakers
                if worst or sought.named_in(value):
                    change = partial(Run(self.store, run.id, run.name).tags, {key: "" if worst else sought.cut(value)})
                    yield Finding("tag", _named(run, key), REWRITTEN, change)


def _foreign(store: Store, run: AnyRun) -> dict[str, str]:
    """What is not this store's of a run: see `removal.foreign`. Links among its artifacts are not followed either."""
    links = run.files.links() if run.is_own else []
    return removal.foreign(store, run) | {str(link): f"link in {_named(run)}" for link in links}


def _named(run: AnyRun, path: str = "") -> str:
    return f"run {run.name} ({run.id[:8]})" + (f" {path}" if path else "")


def _rewrite(files: Files, path: str, sought: Sought) -> None:
    change = sought.change(path, files.read(path))
    if change is not None and change.data is not None:
        files.write(path, change.data)
    elif change is not None:
        files.delete(path)


def _holds(folder: Path, entry: Entry) -> bool:
    """Whether a cache may hold one of the recordings: the audio, by its id at another clip length, or by the speaker.

    A cache of another data set whose ids are alike is taken too: it is built anew.
    """
    try:
        index = _index(folder)
        ids = {*index["ids"], *(row[0] for row in index["skipped"])}
        said = entry.speakers.intersection(map(composed, index["speakers"]))
        by_id = Heard(entry.ids)
        sounds = {*index["sources"], *index.get("within", ())} - {""}
        same = entry.hashes & {*index["hashes"], *index["sources"]}
        return bool(same or said or any(id_ in by_id for id_ in ids) or any(of in entry.heard for of in sounds))
    except (ValueError, KeyError, TypeError):
        return True  # unreadable: it would be built anew anyway


def _index(folder: Path) -> dict[str, Any]:
    """What a cache holds, as `data/clips.py` writes it. Raises OSError or ValueError where it cannot be read."""
    return json.loads((folder / "index.json").read_text())


def cached(entry: Entry) -> pd.DataFrame:
    """What a request's people say in the caches; without ids, a cache does not know its data set's name."""
    rows = [pd.DataFrame(columns=list(COLUMNS), dtype=str)]
    for path in (cache_root() / "features").glob("*/index.json") if entry.speakers else ():
        try:
            index = _index(path.parent)
            table = pd.DataFrame({"audio_hash": index["hashes"], "source_hash": index["sources"]})
            table["within"], table["speaker"] = index.get("within", ""), index["speakers"]
            rows.append(table[table["speaker"].map(composed).isin(entry.speakers)])
        except (ValueError, KeyError, TypeError):
            continue  # not whole: it goes
    return pd.concat(rows)


def _ours(folder: Path) -> bool:
    """Whether a folder with a cache's name has something of a cache in it, or nothing yet."""
    there = [path.name for path in folder.iterdir()]
    return not there or bool({"features.npy", "index.json"} & {*there})


def _remove_cache(folder: Path) -> None:
    # A half-built one is named .<cache>.<random>.tmp; whoever builds it holds the cache's lock.
    with locked(folder.with_name(folder.name.lstrip(".")[:CACHE_DIGITS])):
        shutil.rmtree(folder, ignore_errors=True)  # the search afterwards tells what could not go
