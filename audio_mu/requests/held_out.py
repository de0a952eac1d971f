"""What is held out of an answered request: the test recordings of its people and classes."""

from __future__ import annotations

import pandas as pd

from audio_mu.data.catalog import composed
from audio_mu.requests.ledger import Entry


def held_out(entry: Entry) -> pd.DataFrame:
    """The non-members of an entry that its own people say, or that are of its classes: recordings.csv's columns.

    They are never trained on, whatever name of a person or class their files have later.
    """
    table = entry.nonmembers
    return table[table["speaker"].map(composed).isin(entry.speakers) | table["label"].isin(entry.classes)]
