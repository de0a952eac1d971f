"""Several people whom one command has answered: each has an entry of their own in the ledger."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from audio_mu.data.catalog import composed
from audio_mu.requests.ledger import OF_PERSON, SCOPE, Entry
from audio_mu.system.hashing import hash_of

LONGEST_NAME = 100  # characters of a person's name in the name of a request


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
        fits = re.fullmatch(r"[\w.-]+", person) and len(person.encode()) <= LONGEST_NAME
        asked = recordings.loc[recordings["forgotten"], ["clip_id", "audio_hash"]]
        hash_ = hash_of([entry.hash, person])
        tags = {
            **entry.tags,
            "request": f"speaker-{person if fits else hash_[:8]}",
            "request_hash": hash_,
            "clips_hash": hash_of(asked.to_numpy().tolist()),
        }
        entries.append(dataclasses.replace(entry, tags=tags, recordings=recordings))
    return entries
