"""A request for recordings that no model has learnt: nothing is unlearned, and nothing may learn them from now on."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from audio_mu.config import Config
from audio_mu.data.catalog import composed
from audio_mu.data.clips import Clips
from audio_mu.errors import UserError, counted
from audio_mu.names import NONE, UNLEARNED
from audio_mu.requests.again import asked_of
from audio_mu.requests.ledger import (
    COLUMNS,
    COPIES,
    OF_PERSON,
    OF_RECORDINGS,
    SCOPE,
    SOUGHT,
    Entry,
    clips_hash,
    enter,
    read_ledger,
)  # fmt: skip
from audio_mu.requests.people import of_each_person
from audio_mu.requests.probable import NOT_SOUGHT
from audio_mu.requests.request import NeverTrainedError, named_recordings
from audio_mu.store.handle import Store
from audio_mu.store.locks import registry_locked
from audio_mu.store.runs import say_all


def asked_for(clips: Clips, found: NeverTrainedError) -> Entry:
    """What such a request means, as an entry of the ledger that is not written yet."""
    drawn = found.drawn
    name, request_hash = named_recordings(drawn, clips)
    rows = set(drawn.untrained.tolist())
    table = pd.DataFrame([row for i, row in enumerate(clips.identity) if i in rows], columns=list(COLUMNS))
    people = {*map(composed, drawn.people)}
    table["forgotten"] = False
    table[SCOPE] = [OF_PERSON if composed(name) in people else OF_RECORDINGS for name in table["speaker"]]
    tags = {
        "request": name,
        "request_hash": request_hash,
        "asked_request": name,
        "asked_hash": request_hash,
        "clips_hash": clips_hash(table),
        "kind": drawn.kind,
        COPIES: found.copies,
        SOUGHT: str(found.copies != NOT_SOUGHT).lower(),
        SCOPE: OF_PERSON if people else OF_RECORDINGS,
    }
    return Entry("", tags, table, pd.DataFrame(columns=list(COLUMNS)), {})


def enter_never_trained(
    config: Config, store: Store, asked: Entry, found: NeverTrainedError, tags: dict[str, str]
) -> None:
    """Enter a request into the ledger to which no model has to answer; `tags`: of the base models.

    What is in service stays there. Raises `found` where nothing is to be registered, and `UserError` where the person
    was answered before.
    """
    if config.methods.register == NONE:
        raise found
    people = {*map(composed, found.drawn.people)}
    with registry_locked(store):
        ledger = read_ledger(store, config.data.label)
        for entry in ledger.entries:
            if again := sorted(people & entry.speakers):
                raise UserError(f"{again[0]!r} is answered already (request {entry.request}, {entry.hash[:8]})")
        about = {**tags, **asked.tags, "asked": asked_of(config)}
        enter(store, ledger, of_each_person(replace(asked, tags=about)))
    say_all(
        f"request {asked.request} ({asked.hash[:8]}) is answered: no base model of {config.registered_model} was "
        f"trained on its {counted(len(asked.recordings), 'recording')}. No later command reads them; @{UNLEARNED} "
        "stays as it is"
    )
