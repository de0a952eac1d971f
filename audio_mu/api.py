"""The workflows as functions, for notebooks and scripts: the same parameters, the same store, tables as results.

    from audio_mu import api
    api.train(seeds=[40, 41], n_epochs=8)

Parameters are those of the entry points, as text or as Python values. The store is the one of MLFLOW_TRACKING_URI,
else `mlflow.db` in the current folder. Mistakes raise `audio_mu.errors.UserError`; of a task that fails the last lines
tell, and the tables hold the others. Work runs in worker processes: a
script must guard its calls with `if __name__ == "__main__":`, a notebook need not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from audio_mu.compute.engine import Engine, open_engine
from audio_mu.config import Config
from audio_mu.config.commands import remember
from audio_mu.config.parsers import quoted_name
from audio_mu.errors import UserError
from audio_mu.progress import say, say_once
from audio_mu.requests.ledger import ERASURE
from audio_mu.store import registry
from audio_mu.store.artifacts import read_csv, read_json
from audio_mu.store.connect import open_store
from audio_mu.store.failed import last_lines
from audio_mu.store.handle import Store
from audio_mu.store.started import started
from audio_mu.system.user import check_user
from audio_mu.workflows import adopt as adopt_workflow
from audio_mu.workflows import attack as attack_workflow
from audio_mu.workflows import compare as compare_workflow
from audio_mu.workflows import erase as erase_workflow
from audio_mu.workflows import train as train_workflow
from audio_mu.workflows import tune as tune_workflow
from audio_mu.workflows import unlearn as unlearn_workflow
from audio_mu.workflows.cells import CURVE_PREFIXES, load_cell
from audio_mu.workflows.checks import check


def train(**parameters: Any) -> pd.DataFrame:
    """Train and register the base models: seed, test_accuracy, model (the registered version's URI)."""
    with _session(parameters) as (config, store, engine):
        return _registered(store, config.registered_model, train_workflow.train(config, store, engine))


def adopt(**parameters: Any) -> pd.DataFrame:
    """Take models that somebody else has trained as base models; the same columns as of `train`."""
    with _session(parameters) as (config, store, _):
        return _registered(store, config.registered_model, adopt_workflow.adopt(config, store))


def attack(**parameters: Any) -> pd.DataFrame:
    """Train the membership attack models: one row each, with its balanced accuracy and interval."""
    with _session(parameters) as (config, store, engine):
        return read_csv(store, attack_workflow.attack(config, store, engine), "attack_models.csv")


def unlearn(**parameters: Any) -> pd.DataFrame:
    """Unlearn the request: method, seed, run_id, cell, and every metric of the run (contract names) as a column.

    The rows are those of the cell, earlier finished methods among them; none where no model has learnt anything of it.
    """
    with _session(parameters) as (config, store, engine):
        if not (of_request := unlearn_workflow.unlearn(config, store, engine)):
            return pd.DataFrame()
        cell = load_cell(store, of_request)
        rows = [
            {"method": method, "seed": seed, "run_id": run.id, "cell": cell.id}
            | {name: value for name, value in run.metrics.items() if not name.startswith(CURVE_PREFIXES)}
            for method in cell.methods
            for seed, run in cell.of(method).items()
        ]
        return pd.DataFrame(rows)


def compare(**parameters: Any) -> pd.DataFrame:
    """Compare the methods over the seeds: the long table, one row per cell, method and metric."""
    with _session(parameters) as (config, store, _):
        return compare_workflow.compare(config, store)


def tune(**parameters: Any) -> pd.DataFrame:
    """Search the methods' hyper-parameters in a rehearsal of the request: one row per trial, the best marked."""
    with _session(parameters) as (config, store, engine):
        return tune_workflow.tune(config, store, engine)


def erase(**parameters: Any) -> pd.DataFrame:
    """List, with `confirm=True` remove, what holds a request's recordings: what, where, action."""
    with _session(parameters) as (config, store, _):
        record = read_json(store, erase_workflow.erase(config, store), ERASURE)
        return pd.DataFrame(record["found"], columns=["what", "where", "action"])


def _registered(store: Store, name: str, accuracies: Mapping[int, float]) -> pd.DataFrame:
    rows = []
    for seed, accuracy in sorted(accuracies.items()):
        version = registry.by_alias(store, name, f"seed-{seed}")
        assert version is not None  # the command has just set the alias
        rows.append({"seed": seed, "test_accuracy": accuracy, "model": f"models:/{name}/{version.version}"})
    return pd.DataFrame(rows)


@contextmanager
def _session(parameters: dict[str, Any]) -> Iterator[tuple[Config, Store, Engine]]:
    given = {name: _as_text(name, value) for name, value in parameters.items()}
    config = Config.from_text(given)
    say_once.cache_clear()  # each call is a command
    check_user()
    check(config)
    store = open_store()
    remember(started(store, "", given))
    with open_engine(config.machine) as engine:
        yield config, store, engine
    for line in (*last_lines(store), *store.answer):
        say(line)


def _as_text(name: str, value: Any) -> str:
    """A Python value as it would stand on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float | Path):
        return str(value)
    if isinstance(value, Sequence):
        return ",".join(quoted_name(_as_text(name, part)) for part in value)
    raise UserError(f"{name}={value!r} is not allowed: give text, a number, true or false, or a list of them")
