"""Which models of the store have learnt from given recordings, by what their runs say they were trained on."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd

from audio_mu.requests.ledger import Entry
from audio_mu.store.removal import AnyRun
from audio_mu.workflows.unlearning_cell import RETRAINS

TRAINED_ON = {"train": "logits/train.npz", "unlearn": "logits/remain.npz", "attack": "mia_all_balanced.csv"}
"""Stage → the artifact that names the clips which its models were trained on."""


class Lineage:
    """Descent of models from recordings; it ends at the models that answered the request."""

    def __init__(self, runs: Mapping[str, AnyRun], entry: Entry) -> None:
        self.runs, self.entry = runs, entry
        self.answers = {run for answer in entry.answers.values() for run in answer.runs.values()}
        self._known: dict[str, bool | None] = {}

    def holds(self, run_id: str) -> bool | None:
        """Whether the models of a run were trained on the recordings or derive from such; None: it cannot be told."""
        if run_id not in self._known:
            self._known[run_id] = self._holds(run_id)
        return self._known[run_id]

    def _holds(self, run_id: str) -> bool | None:
        run = self.runs.get(run_id)
        if run is None:
            return None
        if run_id in self.answers:
            return False
        own = self._trained(run)
        if own or run.tags.get("stage") != "unlearn" or run.tags.get("method") in RETRAINS:
            return own
        base = self.holds(run.tags.get("base_run_id", ""))
        return base if base or own is False else None

    def _trained(self, run: AnyRun) -> bool | None:
        path = TRAINED_ON.get(run.tags.get("stage", ""))
        if path is None or path not in run.files.paths(path.rpartition("/")[0] or None):
            return None
        data = io.BytesIO(run.files.read(path))
        if path.endswith(".csv"):
            ids = pd.read_csv(data, dtype=str, usecols=["clip_id"], keep_default_na=False)["clip_id"]
        else:
            with np.load(data, allow_pickle=False) as content:
                ids = content["clip_id"]
        return bool(self.entry.ids & set(map(str, ids)))
