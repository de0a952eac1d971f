"""Whether recordings are still of the same people, by what says whose they are: a pattern, or a table of labels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from audio_mu.config import DataParameters
from audio_mu.data.catalog import composed, looks, quoted
from audio_mu.data.clips import Clips
from audio_mu.data.datasets import DATASETS
from audio_mu.errors import UserError, counted, first_of, typed
from audio_mu.progress import say_once
from audio_mu.requests.held_out import held_out
from audio_mu.requests.ledger import Entry
from audio_mu.requests.other_names import names_here

FOR_AN_EXPERIMENT = " (ledger=ignore for an experiment)"
PEOPLE = ("speaker_pattern", "labels")
"""Parameters that say whose a recording is."""


def refuse_other_people(data: DataParameters, then: Mapping[str, str], what: str) -> None:
    """Raise `UserError` where recordings of today are of others by the speaker_pattern and labels of a run.

    `then`: the run's parameters. `what`: what was done with them, and the way out. A table that was
    moved tells nothing.
    """
    table = then.get("labels", "")
    was = replace(data, labels=Path(table) if table else None,
                  speaker_pattern=then.get("speaker_pattern", data.speaker_pattern))  # fmt: skip
    if not then or was == data or (data.labels and table and not Path(table).is_file()):
        return
    people = _people(data)
    with redirect_stdout(io.StringIO()):  # what is told of the recordings by the parameters of then is not so today
        before = _people(was)
    if people == before or (people and before and all(people[i] == before[i] for i in people.keys() & before)):
        return
    now, other = (
        " ".join(typed(key, str(getattr(of, key) or "")) for key in PEOPLE if getattr(data, key) != getattr(was, key))
        for of in (data, was)
    )
    raise UserError(f"{now} finds other speakers than {other}{_first_other(people or {}, before or {})}, with {what}")


def _first_other(people: Mapping[str, str], before: Mapping[str, str]) -> str:
    """A recording that has another speaker now than before, if there is one, as a part of a sentence."""
    for id_ in sorted(id_ for id_ in people.keys() & before.keys() if people[id_] != before[id_]):
        now, then = (f"of {found[id_]!r}" if found[id_] else "of nobody" for found in (people, before))
        return f" ({id_!r} is {now} now, {then} then)"
    return ""


def _people(data: DataParameters) -> dict[str, str] | None:
    """Recording → speaker, None where the pattern finds nobody."""
    dataset = DATASETS[data.dataset]
    try:
        return {recording.id: recording.speaker for recording in dataset.catalog(dataset.root(data), data).recordings}
    except UserError:
        return None


def unread_of(clips: Clips, entry: Entry) -> tuple[int, int]:
    """How many recordings of a request of another data set are in the folder and no clips: by sound, and by name."""
    by_sound = sum(not recording.hashes.isdisjoint(entry.hashes) for recording in clips.unread)
    by_name = (r for r in clips.unread if not r.hashes and composed(r.speaker) in entry.speakers)
    return by_sound, sum(1 for _ in by_name)


def check_people(clips: Clips, entry: Entry, scope: np.ndarray, elsewhere: bool, respect: bool) -> None:
    """Tell whose names look like those of answered people, and who has lost a name or has another one.

    Raises `UserError`, where the ledger is respected and the very file of then has another person's name or none, or in
    another data set the names of several: what the person has said since cannot be known.
    """
    if not entry.speakers:
        return
    request, person = f"request {entry.request} ({entry.hash[:8]})", first_of(sorted(entry.speakers))
    if elsewhere:
        _tell_names(clips, entry, request, person, respect)
    tables = pd.concat([entry.recordings, held_out(entry)])  # with copies that have somebody else's name
    then = set(tables.loc[tables["speaker"].map(composed).isin(entry.speakers), "clip_id"])
    found = [(clips.ids[i], clips.speakers[i]) for i in np.flatnonzero(scope)]
    found += [(r.id, r.speaker) for r in clips.unread if r.id in then or not r.hashes.isdisjoint(entry.hashes)]
    others = [(id_, name) for id_, name in found if composed(name) not in entry.speakers]
    renamed = [(id_, name) for id_, name in others if id_ in then and not elsewhere and respect]
    for id_, whose in renamed[:1]:
        raise UserError(
            f"{request} is about {person}, whose recording {id_!r} is now "
            f"{f'of {whose!r}' if whose else 'of nobody'}: new recordings of the person could not be told; give the "
            f"speaker_pattern, labels or speakers.csv of then{'' if entry.gone else FOR_AN_EXPERIMENT}"
        )
    if nameless := sum(not name for _, name in others):
        say_once(
            f"WARNING: {counted(nameless, 'recording')} of {request} have no speaker here and are left out by their "
            "sound; new recordings of the person cannot be told: give speaker_pattern, labels or speakers.csv"
        )
    alike = {looks(name) for name in entry.speakers}
    similar = sorted(n for n in {*clips.speakers} if looks(n) in alike and composed(n) not in entry.speakers)
    known = names_here(clips, entry).names if elsewhere else frozenset()
    if similar := [name for name in similar if name and composed(name) not in known]:
        say_once(
            f"WARNING: {quoted(similar)} looks like {person} of the answered {request} and is "
            "not left out: if it is the same person, give the recordings the same name"
        )


def _tell_names(clips: Clips, entry: Entry, request: str, person: str, respect: bool) -> None:
    here = names_here(clips, entry)
    names = quoted(sorted(here.names))
    if here.several and respect:
        raise UserError(
            f"{request} is about {person}, whose recordings are of {names} here: new recordings of the person could "
            "not be told; give a speaker_pattern, labels or speakers.csv with one name for each person, or none "
            "(ledger=ignore for an experiment)"
        )
    if here.names:
        say_once(f"ledger: {names} is {person} of {request} here, by the recordings' sound: left out as the person")
    elif here.own:
        say_once(
            f"WARNING: recordings of {request} have somebody else's name here and are left out by their sound; if it "
            f"is {person}, give the recordings the same name"
        )
