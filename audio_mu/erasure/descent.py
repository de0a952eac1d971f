"""Which models of the store have learnt from given recordings, by what their runs say they were trained on."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from audio_mu.erasure.content import Content
from audio_mu.names import ADOPTED, ADOPTED_RUN, NAIVE, WEIGHTS
from audio_mu.requests.ledger import Entry
from audio_mu.store import references, removal
from audio_mu.store.artifacts import unpacked
from audio_mu.store.handle import Store
from audio_mu.store.removal import AnyRun

TRAINED_ON = {
    "train": "logits/train.npz", "unlearn": "logits/remain.npz", "attack": "mia_all_balanced.csv",
    references.STAGE: references.FILE,
}  # fmt: skip
"""Stage → the artifact that names the clips which its models were trained on, by `member` where it has others too."""


class Descent:
    """The descent of models from the recordings of a request; it ends at the models that answered the request.

    A model descends from its base, from the model of the store that it was adopted from, and from every adopted model
    of the same weights.
    """

    def __init__(self, runs: Mapping[str, AnyRun], entry: Entry, content: Content | None = None) -> None:
        self._runs, self.content = runs, content or Content(runs, entry)
        self._known: dict[str, int | None] = dict.fromkeys(entry.answering_runs, 0)
        self._adopted: dict[str, list[AnyRun]] = {}
        for run in runs.values():
            if weights := _adopted(run):
                self._adopted.setdefault(weights, []).append(run)

    def holds(self, run_id: str) -> bool | None:
        """Whether the models of a run have learnt from the recordings, themselves or as a base; None: not known."""
        learnt = self.learnt(run_id)
        return learnt if learnt is None else learnt > 0

    def learnt(self, run_id: str) -> int | None:
        """How many of the recordings the models of a run, or those that it descends from, have learnt."""
        if run_id not in self._runs:
            return None
        if run_id not in self._known:
            self._known[run_id] = None  # while it is looked for: a method that changes nothing leads back to its base
            self._known[run_id] = self._learnt(self._runs[run_id])
        return self._known[run_id]

    def _learnt(self, run: AnyRun) -> int | None:
        same = self._adopted.get(_adopted(run), [run])
        parents = {id_ for one in same for id_ in _parents(one)} - {one.id for one in same}
        told = [self._trained(run), *(self._trained(one) or 0 for one in same if one is not run)]
        found = [*told, *map(self.learnt, sorted(parents))] if not any(told) else told
        return max(filter(None, found), default=None if None in found else 0)

    def _trained(self, run: AnyRun) -> int | None:
        path = TRAINED_ON.get(run.tags.get("stage", ""))
        if path is None or not run.is_own or not self.content.tells(run):
            return None
        if not (ids := self.content.ids(run)):
            return 0
        if path not in run.files.listed(path.rpartition("/")[0] or None):
            return None
        data = io.BytesIO(run.files.read(path))
        if path.endswith(".csv"):
            learnt = pd.read_csv(data, dtype=str, usecols=["clip_id"], keep_default_na=False)["clip_id"]
        else:
            arrays = unpacked(data)
            learnt = arrays["clip_id"][arrays["member"]] if "member" in arrays else arrays["clip_id"]
        return len(ids.intersection(map(str, learnt)))


def learnt_by(runs: Mapping[str, AnyRun], run_id: str, entry: Entry) -> int:
    """How many recordings of a request the models of one run have learnt, or those that they descend from; 0 where no
    list says so. The lists of these runs alone are read."""
    line: dict[str, AnyRun] = {}
    waiting = [run_id]
    while waiting:
        run = runs.get(waiting.pop())
        if run is not None and run.id not in line:
            line[run.id] = run
            same = [other.id for other in runs.values() if _adopted(run) and _adopted(other) == _adopted(run)]
            waiting += [*_parents(run), *same]
    answering = {id_: runs[id_] for id_ in entry.answering_runs if id_ in runs}  # they know the entry's folder
    return Descent({**line, **answering}, entry).learnt(run_id) or 0


def made_of(runs: Mapping[str, AnyRun], weights: str, adopted: str) -> list[AnyRun]:
    """The runs that have logged a network of these weights, known by one of `WEIGHTS` or as adopted, oldest first."""
    return [run for run in runs.values() if weights in map(run.tags.get, WEIGHTS) or _adopted(run) == adopted]


def first_learnt(runs: Mapping[str, AnyRun], run_id: str, entries: Iterable[Entry]) -> tuple[Entry, int] | None:
    """The first of these requests of whose recordings the models of a run have learnt some, and how many."""
    return next(((entry, held) for entry in entries if (held := learnt_by(runs, run_id, entry))), None)


def learnt_before(
    store: Store, run_id: str, tags: Mapping[str, str], entries: Sequence[Entry]
) -> tuple[tuple[Entry, int], ...]:
    """The first request of which a model has learnt recordings that no list of its own data set has to show.

    Nothing where its base was trained here: what it has learnt is in its own data set's lists. `tags`: of the run or
    version.
    """
    if ADOPTED not in tags or not entries:
        return ()
    found = first_learnt({run.id: run for run in removal.every_run(store)}, run_id, entries)
    return (found,) if found else ()


def _adopted(run: AnyRun) -> str:
    """The hash of the weights of an adopted base model, which what was unlearned from it names too; else empty."""
    return run.tags.get(ADOPTED, "") if run.tags.get("stage") == "train" else ""


def _parents(run: AnyRun) -> list[str]:
    """The runs whose models those of a run started from."""
    tags = run.tags
    starts = tags.get("stage") == "unlearn" and tags.get("method") != NAIVE
    return [tags.get("base_run_id", "")] * starts + (
        [tags[ADOPTED_RUN]] if _adopted(run) and ADOPTED_RUN in tags else []
    )
