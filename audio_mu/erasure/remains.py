"""What an erasure leaves, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audio_mu.config import DataParameters
from audio_mu.data.catalog import Barred, recording_below
from audio_mu.data.datasets import DATASETS, root_at_hand
from audio_mu.data.segments import recording_of
from audio_mu.erasure.descent import Descent
from audio_mu.erasure.find import Search
from audio_mu.erasure.redact import Sought
from audio_mu.errors import UserError, counted, first_of
from audio_mu.names import ADOPTED_FROM, NAIVE
from audio_mu.requests.held_out import held_out
from audio_mu.requests.ledger import RECORDINGS, RETIRED, SOUGHT, Entry
from audio_mu.store import queries, references, registry, removal
from audio_mu.store.handle import Store
from audio_mu.store.removal import AnyRun

NOT_OURS = "it is not where this store keeps its own: refused, nothing there was changed; look through it yourself"


@dataclass(frozen=True)
class Remaining:
    """Something that stays, and why."""

    what: str
    why: str


def remaining(data: DataParameters, search: Search) -> list[Remaining]:
    """Everything that an erasure leaves of the request that was searched for. `data`: where its recordings may be."""
    entry, runs = search.entry, search.runs.values()
    return [
        Remaining(f"{RECORDINGS} of the ledger's entry", "so that the recordings and their copies stay left out"),
        *_models(search.store, entry, runs, search.descent),
        *_references(entry, runs),
        *_names(entry, runs),
        *_single(entry),
        *_held_out(entry),
        *_files(data, entry, search.answering),
        *_weights(runs, search.descent),
        _copies(entry),
        *_running(runs),
        *_foreign(search.foreign),
        *_elsewhere(search.store, runs),
    ]


def _models(store: Store, entry: Entry, runs: Collection[AnyRun], descent: Descent) -> Iterator[Remaining]:
    for name, answer in entry.answers.items():
        # The erasure of another request removes those that have learned its recordings.
        there = {seed: number for seed, number in answer.after.items() if registry.by_number(store, name, number)}
        if not there:
            continue
        listed = ", ".join(f"seed {seed}: version {version}" for seed, version in sorted(there.items()))
        first = next(iter(answer.runs.values()))
        yield Remaining(
            f"unlearned models of this request ({name}, {answer.method}, {listed}) and what was unlearned from them",
            f"they answer the request; that they have forgotten rests on the evidence of runs:/{first}/evidence.html",
        )
    kept = [run for run in runs if run.models and RETIRED not in run.tags]
    if free := sum(run.tags.get("method") == NAIVE and descent.holds(run.id) is False for run in kept):
        yield Remaining(counted(free, "naive model"), "trained from scratch without the recordings")
    if unknown := sorted(run.name for run in kept if descent.holds(run.id) is None):
        yield Remaining(
            f"models of {counted(len(unknown), 'run')} ({first_of(unknown)})",
            "no list says what they were trained on: delete them yourself if they have seen the recordings",
        )


def _references(entry: Entry, runs: Collection[AnyRun]) -> Iterator[Remaining]:
    marks = [run.tags.get(RETIRED, "") for run in runs if run.tags.get("stage") == references.STAGE]
    if n := sum(entry.hash in mark.split() for mark in marks):
        yield Remaining(
            f"what {counted(n, 'reference model')} that had learnt recordings of the request answered on others",
            "numbers of other recordings, as figures of all models that had learnt these; no weights were ever kept",
        )


def _names(entry: Entry, runs: Collection[AnyRun]) -> Iterator[Remaining]:
    n = sum(
        run.tags.get("request_hash") in (entry.hash, entry.asked) and run.tags.get("stage") != "erase" for run in runs
    )
    yield Remaining(
        f"figures, plots, parameters and tags of {n} runs, request={entry.request}",
        "averages and distributions that name no recording; the name says what was asked, and MLflow lets no parameter "
        "be changed",
    )
    sought = Sought(entry.ids, entry.hashes)
    in_params = sum(any(map(sought.named_in, run.params.values())) for run in runs)
    in_tags = sum(not run.active and any(map(sought.named_in, run.tags.values())) for run in runs)
    if in_params + in_tags:
        yield Remaining(
            f"parameters or tags of {in_params + in_tags} runs that name a recording",
            "MLflow lets no parameter and no deleted run be changed: delete the runs and run `mlflow gc`",
        )


def _single(entry: Entry) -> Iterator[Remaining]:
    """Figures of a set of one recording, which are no averages."""
    n_forgotten = int((entry.recordings["forgotten"] == "True").sum()) if "forgotten" in entry.recordings else 0
    alone = [name for name, n in (("forget", n_forgotten), ("held_out", len(held_out(entry)))) if n == 1]
    if alone:
        yield Remaining(
            f"accuracy, loss and attack figures of a set of one recording ({' and '.join(alone)}), in metrics, tables, "
            f"pages and as earlier-{entry.request}/… of later requests",
            "they are that one recording's own, beside the request's name and without its id, sound or hash; MLflow "
            "lets no metric be removed: delete those runs of the request whose models are not in service, and the "
            "comparisons since, and run `mlflow gc`",
        )


def _held_out(entry: Entry) -> Iterator[Remaining]:
    """Test recordings of the same class, which no request takes out; those of a person have gone."""
    if entry.classes and (n := len(held_out(entry))):
        yield Remaining(
            f"{n} test recordings of the class",
            "no model was trained on them, the request did not take them; membership was measured against them, and "
            "they are left out from now on",
        )


def _files(data: DataParameters, entry: Entry, answering: Sequence[AnyRun]) -> Iterator[Remaining]:
    recorded = answering[0].params.get("data_dir", "") if answering else ""
    root = root_at_hand(dataclasses.replace(data, dataset=entry.tags["dataset"]), recorded)
    if root is None:
        yield Remaining("the recordings themselves", "their folder is not at hand: delete them yourself")
    else:
        there = {recording_of(id_) for id_ in entry.ids if recording_below(root, id_) is not None}
        named = _named_so(dataclasses.replace(data, dataset=entry.tags["dataset"], data_dir=root), entry, answering)
        there |= {*map(recording_of, named)}
        gone = "their files are gone, if they were in this folder"
        in_parts = any(recording_of(id_) != id_ for id_ in entry.ids)
        way = "; where others speak in them, cut the parts out" if in_parts else ""
        why = f"they are yours: delete them yourself{way}" if there else gone
        known = there.union(map(recording_of, entry.ids))
        yield Remaining(f"{len(there)} of the {len(known)} recordings in {root}", why)
    for path in sorted({run.params.get("forget_list", "") for run in answering}):
        if path and Path(path).exists():
            yield Remaining(f"the request's list {path}", "it is yours: delete it yourself")
    for path in sorted({run.params.get("labels", "") for run in answering}):
        if path and Path(path).exists():
            yield Remaining(f"the rows of the table {path}", "it is yours: cut those that name the recordings yourself")


def _named_so(data: DataParameters, entry: Entry, answering: Sequence[AnyRun]) -> set[str]:
    """Ids of what the folder has of the request's people and classes, later recordings too, as the answer named
    people; none where the folder is no data set any more."""
    if answering:
        given = answering[0].params
        table = Path(given["labels"]) if given.get("labels") else None
        data = dataclasses.replace(data, labels=table, speaker_pattern=given.get("speaker_pattern", ""))
    barred = Barred(speakers=entry.speakers, classes=entry.classes)
    try:
        found = DATASETS[data.dataset].catalog(data.data_dir or Path(), data).recordings
    except UserError:
        return set()
    return {recording.id for recording in found if not recording.fault and barred.bars(recording)}


def _weights(runs: Collection[AnyRun], descent: Descent) -> Iterator[Remaining]:
    """Weights of others that base models were adopted from."""
    for place in sorted({run.tags[ADOPTED_FROM] for run in runs if ADOPTED_FROM in run.tags and descent.holds(run.id)}):
        yield Remaining(f"the weights {place}", "a model was adopted from them, they are yours: delete them yourself")


def _copies(entry: Entry) -> Remaining:
    """An erasure knows recordings by their hashes alone."""
    looked = "they were looked for when the request was answered, and by each command as long as the files were there"
    why = looked if entry.tags.get(SOUGHT) == "true" else "they were not looked for when the request was answered"
    return Remaining(
        "copies of the recordings in another format, level, rate or length, if there are any",
        f"{why}; from now on there is nothing to compare them with: delete those that you know of",
    )


def _running(runs: Collection[AnyRun]) -> Iterator[Remaining]:
    if names := [run.name for run in runs if run.status == "RUNNING" and run.tags.get("stage") != "erase"]:
        yield Remaining(
            f"{counted(len(names), 'run')} without an end ({first_of(names)})",
            "what they write after this search is not found: erase again when they have ended",
        )


def _foreign(found: Mapping[str, str]) -> Iterator[Remaining]:
    for where, what in sorted(found.items()):
        yield Remaining(f"{what}: {where}", NOT_OURS)


def _elsewhere(store: Store, runs: Collection[AnyRun]) -> Iterator[Remaining]:
    caches = "caches of other machines and other folders of AUDIO_MU_CACHE"
    yield Remaining(f"{caches}, backups, downloaded copies", "they are not at hand")
    if not removal.collects(store.client):
        yield Remaining(
            "the server's records of removed models (names, parameters, figures; no weights)",
            "a tracking server hides what is deleted until `mlflow gc` runs on it",
        )
    if (others := len(queries.experiments(store)) - len({run.root for run in runs})) > 0:
        yield Remaining(f"{others} other experiments of this store", "audio-mu has no run in them")
