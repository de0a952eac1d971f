"""Where to look in the UI."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from audio_mu.store.handle import Store
from audio_mu.store.private import SHARED_VIEW

LOCAL_UI = "http://127.0.0.1:5000"
VIEW = "audio-mu"
VIEW_TAG = SHARED_VIEW + VIEW


def share_charts(store: Store, cell: str) -> None:
    """Let the charts show the methods of one cell, averaged over the seeds: a shared view of MLflow's UI."""
    view = {
        "searchFilter": f"tags.role = 'method' and tags.cell = '{cell}'",
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "method"}]},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
    }
    store.client.set_experiment_tag(store.experiment_id, VIEW_TAG, json.dumps(view))


def charts_link(store: Store) -> str:
    """The experiment's chart view, as `share_charts` left it; MLflow would otherwise open another one."""
    base = store.uri if store.uri.startswith("http") else LOCAL_UI
    view = "workflowType=machine_learning&compareRunsMode=CHART"
    if VIEW_TAG in store.client.get_experiment(store.experiment_id).tags:
        view += f"&viewStateShareKey={VIEW}"
    return f"{base.rstrip('/')}/#/experiments/{store.experiment_id}/runs?{view}"


def where_to_look(store: Store) -> str:
    """One line for the end of a command."""
    if store.uri.startswith("http"):
        return f"open {charts_link(store)}"
    own = Path.cwd()  # where `make ui` looks; `mlflow run` of an address works in a copy of the project elsewhere
    is_here = (own / "Makefile").is_file() and store.database == own / "mlflow.db"
    start = "make ui" if is_here else f"mlflow server --backend-store-uri {shlex.quote(store.uri)}"
    return f"start the UI with `{start}`, then open {charts_link(store)}"
