"""An answer's models go into service, whoever kills the command that is about to put them there."""

from __future__ import annotations

import json
from collections.abc import Mapping

from audio_mu.progress import say
from audio_mu.store import queries, registry
from audio_mu.store.handle import Store
from audio_mu.store.locks import registry_locked
from audio_mu.store.queries import has_tags
from audio_mu.store.runs import Run

STAGE, ROLE = "ledger", "entry"
MOVING = "moving"
"""Tag of an entry whose models are going into service, as JSON: alias → registered model and version, and the runs of
all entries of the command."""


def put_into_service(store: Store, run_id: str, moving: str) -> None:
    """Move the aliases that an entry's tag names, and finish the entries."""
    left = json.loads(moving)
    for alias, (name, number) in left["aliases"].items():
        if (version := registry.by_number(store, name, number)) is not None:  # not deleted since
            registry.set_alias(store, version, alias)
    for written in left["entries"]:
        store.client.set_terminated(written)  # only a whole entry is found
    Run(store, run_id, "").tags({MOVING: ""})


def finish_interrupted(store: Store) -> list[Mapping[str, str]]:
    """Put into service what a killed command has entered and not finished; the tags of these entries."""
    if not _unfinished(store):
        return []
    with registry_locked(store):  # whoever is at it right now ends first
        found = _unfinished(store)
        for run_id, tags in found:
            put_into_service(store, run_id, tags[MOVING])
            say(
                f"ledger: the command that answered request {tags['request']} ({tags['request_hash'][:8]}) was killed "
                "while it put its models into service: done now"
            )
    return [tags for _, tags in found]


def _unfinished(store: Store) -> list[tuple[str, Mapping[str, str]]]:
    condition = " and ".join([f"tags.{MOVING} != ''", *has_tags({"stage": STAGE, "role": ROLE})])
    found = queries.every(store.client.search_runs, queries.experiments(store), condition)
    return [(run.info.run_id, run.data.tags) for run in found]
