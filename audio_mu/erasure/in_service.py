"""Aliases that serve a version which has learnt from an answered request: somebody has moved them by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from audio_mu.erasure.descent import first_learnt
from audio_mu.errors import counted
from audio_mu.progress import say_once
from audio_mu.requests.ledger import Entry, Ledger, read_ledger
from audio_mu.store import registry, removal
from audio_mu.store.artifacts import Unreadable, told_of
from audio_mu.store.handle import Store
from audio_mu.store.removal import AnyRun

OF_A_BASE = re.compile(r"seed-\d+")
"""Aliases of base models, which stay until `train` or `erase` and are not in service once a request is answered."""
OF_ANOTHER = (
    "it was answered in another data set: delete the alias, or `erase` that request, which removes the version, then "
    "`train` without its recordings"
)


def tell_served_everywhere(store: Store) -> None:
    """The same of every data set in the registry, after an answer: it holds in all of them."""
    names = [name.removeprefix("audio-mu.") for name, _ in registry.aliases(store, "audio-mu.")]
    ledger = read_ledger(store)
    for dataset_name in sorted({name.rsplit(".", 2)[0] for name in names}):
        _tell_served(store, ledger.of(dataset_name), dataset_name)


def tell_served(store: Store, ledger: Ledger, dataset_name: str) -> None:
    """Tell which aliases of a data set's models serve what has learnt from an answered request, and the right version.

    Once in a command: nothing but an answer moves these aliases. Of the version that has answered last the ledger
    knows what it has learnt of its own data set's requests. Of everything else the lists of its runs are read.
    """
    if dataset_name not in store.served_told:
        store.served_told.add(dataset_name)
        _tell_served(store, ledger, dataset_name)


def _tell_served(store: Store, ledger: Ledger, dataset_name: str) -> None:
    away = [entry for entry in ledger.elsewhere if not entry.gone]
    everything = [entry for entry in ledger.entries if not entry.gone] + away
    runs: dict[str, AnyRun] = {}
    for name, aliases in registry.aliases(store, f"audio-mu.{dataset_name}.") if everything else ():
        newest = _newest_answer(ledger, name)
        by_version: dict[str, list[str]] = {}
        for alias, number in aliases.items():
            if not OF_A_BASE.fullmatch(alias):
                by_version.setdefault(number, []).append(alias)
        for number, own in by_version.items():
            if not (entries := away if number in newest.values() else everything):
                continue
            runs = runs or {run.id: run for run in removal.every_run(store)}
            if (version := registry.by_number(store, name, number)) is None:
                continue
            served = f"{name}@{' @'.join(sorted(own))} serves version {number}"
            try:
                with told_of(store, version.run_id, "a list"):
                    words = _learnt(runs, version.run_id, entries)
            except Unreadable as error:
                say_once(f"note: {served}, of which nobody knows whether it has learnt an answered request: {error}")
                continue
            if words:
                right = newest.get(version.tags.get("seed", ""), "")
                way = OF_ANOTHER if right == number else _way(name, own, right)
                say_once(f"WARNING: {served}, {words}: {way}")


def _newest_answer(ledger: Ledger, name: str) -> Mapping[str, str]:
    """Seed → version of the model that has answered every request so far; none where the last one was another's."""
    for entry in reversed(ledger.entries):
        if entry.answers:  # else no model has learnt anything of it
            return entry.answers[name].after if name in entry.answers else {}
    return {}


def _learnt(runs: Mapping[str, AnyRun], run_id: str, entries: Iterable[Entry]) -> str:
    """What a run's models have learnt, in words, of the first of these requests; the way out is one for all."""
    if (found := first_learnt(runs, run_id, entries)) is None:
        return ""
    entry, held = found
    whose = counted(held, "recording")
    return f"which was trained on {whose} of the answered request {entry.request} ({entry.hash[:8]})"


def _way(name: str, aliases: Iterable[str], right: str) -> str:
    calls = [f"set_registered_model_alias({name!r}, {alias!r}, {right!r})" for alias in sorted(aliases)]
    if right:
        return f"version {right} has answered it, put that back by MlflowClient's `{'; '.join(calls)}`"
    return "answer it with this model too (unlearn with register), or delete the alias"
