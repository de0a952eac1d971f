"""Which models of the store have learnt from given recordings, by what their runs say they were trained on."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pandas as pd

from audio_mu.erasure.content import Content
from audio_mu.names import NAIVE
from audio_mu.requests.ledger import Entry
from audio_mu.store.artifacts import unpacked
from audio_mu.store.removal import AnyRun

TRAINED_ON = {"train": "logits/train.npz", "unlearn": "logits/remain.npz", "attack": "mia_all_balanced.csv"}
"""Stage → the artifact that names the clips which its models were trained on."""


class Descent:
    """The descent of models from the recordings of a request; it ends at the models that answered the request."""

    def __init__(self, runs: Mapping[str, AnyRun], entry: Entry, content: Content | None = None) -> None:
        self._runs, self.content = runs, content or Content(runs, entry)
        self._known: dict[str, bool | None] = dict.fromkeys(entry.answering_runs, False)

    def holds(self, run_id: str) -> bool | None:
        """Whether the models of a run have learnt from the recordings, themselves or as a base; None: not known."""
        if run_id not in self._runs:
            return None
        if run_id not in self._known:
            self._known[run_id] = self._holds(self._runs[run_id])
        return self._known[run_id]

    def _holds(self, run: AnyRun) -> bool | None:
        own = self._trained(run)
        if own or run.tags.get("stage") != "unlearn" or run.tags.get("method") == NAIVE:
            return own
        base = self.holds(run.tags.get("base_run_id", ""))
        return base if base or own is False else None

    def _trained(self, run: AnyRun) -> bool | None:
        path = TRAINED_ON.get(run.tags.get("stage", ""))
        if (
            path is None
            or not run.is_own
            or not self.content.tells(run)
            or path not in run.files.listed(path.rpartition("/")[0] or None)
        ):
            return None
        data = io.BytesIO(run.files.read(path))
        if path.endswith(".csv"):
            ids = pd.read_csv(data, dtype=str, usecols=["clip_id"], keep_default_na=False)["clip_id"]
        else:
            ids = unpacked(data)["clip_id"]
        return not self.content.ids(run).isdisjoint(map(str, ids))
