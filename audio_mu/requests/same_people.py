"""Whether recordings are still of the same people, by what says whose they are: a pattern, or a table of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from audio_mu.config import DataParameters
from audio_mu.data.datasets import DATASETS
from audio_mu.errors import UserError, typed

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
    people, before = _people(data), _people(was)
    if people == before or (people and before and all(people[i] == before[i] for i in people.keys() & before)):
        return
    now, other = (
        " ".join(typed(key, str(getattr(of, key) or "")) for key in PEOPLE if getattr(data, key) != getattr(was, key))
        for of in (data, was)
    )
    raise UserError(f"{now} finds other speakers than {other}, with {what}")


def _people(data: DataParameters) -> dict[str, str] | None:
    """Recording → speaker, None where the pattern finds nobody."""
    dataset = DATASETS[data.dataset]
    try:
        return {recording.id: recording.speaker for recording in dataset.catalog(dataset.root(data), data).recordings}
    except UserError:
        return None
