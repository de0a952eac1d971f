"""Several people whom one command has answered: each has an entry of their own in the ledger."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from audio_mu.data.catalog import composed
from audio_mu.requests.ledger import OF_PERSON, SCOPE, Entry, clips_hash
from audio_mu.requests.named import request_name
from audio_mu.system.hashing import hash_of


def of_each_person(entry: Entry) -> Sequence[Entry]:
    """The entries of the people whom an entry is about, in the order of their names; itself where it is one or none.

    A copy under somebody else's name is in each of them, as a probable copy does not say whose it is. Held-out
    recordings of all are everybody's non-members: the attack was measured on them together.
    """
    people = sorted(entry.speakers)
    if len(people) < 2:
        return [entry]
    table = entry.recordings
    ours = table[SCOPE] == OF_PERSON
    entries = []
    for person in people:
        recordings = table[~ours | (table["speaker"].map(composed) == person)]
        tags = {
            **entry.tags,
            "request": request_name("speaker", (person,), 1),
            "request_hash": hash_of([entry.hash, person]),
            "clips_hash": clips_hash(recordings),
        }
        entries.append(dataclasses.replace(entry, tags=tags, recordings=recordings))
    return entries
