"""Where to look in the UI."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from audio_mu.store.handle import Store
from audio_mu.store.private import SHARED_VIEW

LOCAL_UI = "http://127.0.0.1:5000"
VIEW = "audio-mu"
VIEW_TAG = SHARED_VIEW + VIEW
CHARTS = ("forget/accuracy", "remain/accuracy", "test/accuracy", "mia/auc")
"""Metrics that the charts open with."""
COLUMNS = (*(f"tags.`{tag}`" for tag in ("method", "seed")), *(f"metrics.`{name}`" for name in (*CHARTS, "gap/tow")))
"""Columns that the table of runs opens with."""


def share_charts(store: Store, cell: str, methods: Sequence[str]) -> None:
    """Let the charts show the methods of one cell, averaged over the seeds: a shared view of MLflow's UI.

    It opens with the metrics of `CHARTS` and the groups folded; whoever clears the field above sees all charts.
    """
    section = {"uuid": VIEW, "name": "Methods beside naive", "display": True, "isReordered": True, "deleted": False}
    charts = [
        {"type": "BAR", "uuid": metric, "metricKey": metric, "metricSectionId": VIEW, "runsCountToCompare": 100,
         "deleted": False, "isGenerated": False}
        for metric in CHARTS
    ]  # fmt: skip
    view = {
        "searchFilter": f"tags.role = 'method' and tags.cell = '{cell}'",
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "method"}]},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "chartsSearchFilter": f"^({'|'.join(CHARTS)})$",
        "compareRunSections": [{**section, "isGenerated": False}],
        "compareRunCharts": charts,
        "groupsExpanded": {f"tag.method.{method}": False for method in methods},
        "selectedColumns": list(COLUMNS),
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
    # Where `make ui` looks; `mlflow run` of an address works in a copy of the project elsewhere.
    is_here = _is_project(Path.cwd()) and store.database == Path.cwd() / "mlflow.db"
    start = "make ui" if is_here else f"{_mlflow()} server --backend-store-uri {shlex.quote(store.uri)}"
    return f"start the UI with `{start}`, then open {charts_link(store)}"


def _is_project(folder: Path) -> bool:
    """Whether a folder is this project, whose Makefile has `ui`; other folders have a Makefile too."""
    try:
        named = "\nname: audio-mu\n" in (folder / "MLproject").read_text()
        return named and "\nui:" in (folder / "Makefile").read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _mlflow() -> str:
    """The command `mlflow` of this environment: a console script of ours may be called where it is not activated."""
    own = Path(sys.executable).parent / "mlflow"
    found = shutil.which("mlflow")
    return "mlflow" if found and Path(found) == own else shlex.join([sys.executable, "-m", "mlflow"])
