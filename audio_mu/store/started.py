"""How this command was started, as far as process, environment and the run that `mlflow run` has made tell it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from audio_mu.config.commands import ENTRY, Call, own_words
from audio_mu.printable import without_passwords
from audio_mu.store.handle import Store
from audio_mu.store.runs import GIVEN_RUN

DEFAULT_EXPERIMENT = "0"
SOURCE, ENVIRONMENT, BRANCH = "mlflow.source.name", "mlflow.project.env", "mlflow.source.git.branch"
"""Tags that `mlflow run` gives to its run; of the environment none with `--env-manager local`."""


def started(store: Store, entry_point: str, given: Mapping[str, str]) -> Call:
    """How the command of this process was started; before its run is taken, which is no other command's."""
    run = os.environ.get(GIVEN_RUN)
    tags = store.client.get_run(run).data.tags if run else {}
    is_project = SOURCE in tags and "mlflow.project.entryPoint" in tags
    experiment = ""
    if store.experiment_id != DEFAULT_EXPERIMENT:
        experiment = store.client.get_experiment(store.experiment_id).name
    variables = {} if _is_found(store) else {"MLFLOW_TRACKING_URI": store.uri}
    if is_project:
        return Call(_project_words(tags, experiment), True, given, variables)
    if experiment:
        variables["MLFLOW_EXPERIMENT_NAME"] = experiment
    return Call(own_words(entry_point), False, given, variables)


def _is_found(store: Store) -> bool:
    """Whether the next command finds the store without being told, or its address must not be printed."""
    return store.database == Path.cwd() / "mlflow.db" or without_passwords(store.uri) != store.uri


def _project_words(tags: Mapping[str, str], experiment: str) -> tuple[str, ...]:
    """The words of `mlflow run`: of the folder, or the address that the project was copied from."""
    branch = ("-v", tags[BRANCH]) if BRANCH in tags else ()
    chosen = ("--experiment-name", experiment) if experiment else ()
    manager = tags.get(ENVIRONMENT, "local")
    return ("mlflow", "run", _place(tags[SOURCE]), *branch, "-e", ENTRY, "--env-manager", manager, *chosen)


def _place(source: str) -> str:
    """Where `mlflow run` finds the project: `.` where it was called there, as far as that can be known."""
    here = Path.cwd()
    if not here.is_relative_to(source.removeprefix("file://").partition("#")[0]):
        return source
    try:
        caller = Path(os.readlink(f"/proc/{os.getppid()}/cwd"))
    except OSError:
        return "."
    return "." if caller == here else str(here)
