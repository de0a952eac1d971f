"""Where to look in the UI."""

from __future__ import annotations

from audio_mu.store.runs import Store

LOCAL_UI = "http://127.0.0.1:5000"


def charts_link(store: Store) -> str:
    """The experiment's chart view; MLflow would otherwise open another one."""
    base = store.uri if store.uri.startswith("http") else LOCAL_UI
    view = "workflowType=machine_learning&compareRunsMode=CHART"
    return f"{base.rstrip('/')}/#/experiments/{store.experiment_id}/runs?{view}"


def where_to_look(store: Store) -> str:
    """One line for the end of a command."""
    start = "" if store.uri.startswith("http") else "start the UI with `make ui`, then "
    return f"{start}open {charts_link(store)}"
