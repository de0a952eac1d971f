"""Connecting to the tracking store; what killed commands have left RUNNING is ended."""

from __future__ import annotations

import os
import platform
import socket
import sqlite3
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlsplit

import mlflow
from mlflow.entities import Experiment, LifecycleStage
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from audio_mu.errors import UserError, first_of, one_line
from audio_mu.printable import storable
from audio_mu.progress import say
from audio_mu.store.faults import HTTP_RETRIES, LOCKED, Patient, explain, open_connections, patiently, silence_told
from audio_mu.store.files import Files
from audio_mu.store.handle import SQLITE, Store, sqlite_address, sqlite_file
from audio_mu.store.journal import refuse_half_undone
from audio_mu.store.moved import refuse_moved
from audio_mu.store.places import is_own_run
from audio_mu.store.private import close_connections, quiet, schema
from audio_mu.store.queries import PAGE, RUNNING, every, run_of
from audio_mu.store.runs import GIVEN_RUN, Run, process_tags
from audio_mu.system.processes import is_gone, users_of
from audio_mu.system.writing import locked, sweep

REGISTRY = "MLFLOW_REGISTRY_URI"
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}
KIND, OF_MODELS = "mlflow.experimentKind", "custom_model_development"
CLOCK_TOLERANCE = 0.1  # seconds
FILLED_AT_CREATION = {"experiments", "workspaces"}  # tables with a row before anybody has written one
SECONDS_OF_CREATION = 30  # after which another process is no longer waited for


def open_store() -> Store:
    """Open the configured store, or `mlflow.db` in the current folder, creating it once.

    Raises `UserError` where it cannot be opened.
    """
    quiet()
    open_connections()  # from the first one on
    given = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(Path.cwd() / "mlflow.db")
    _refuse_malformed(given)
    file = sqlite_file(given)
    # Of the address that names a file as a URI of SQLite's own every word counts.
    uri = given if file is None or "uri=" in given else sqlite_address(file, given.partition("?")[2])
    _refuse_other_registry(given, file)
    mlflow.set_tracking_uri(uri)
    _keep_registry(uri)
    silent = _tell_silence(uri)
    try:
        with silence_told() if file is None and not silent else nullcontext():
            client, experiment_id = _open() if file is None else _open_sqlite(file, uri)
    except UserError:
        raise
    except Exception as error:
        told = explain(error) or (
            f"it does not answer ({silent}): see that the address is right and that it is up"
            if silent
            else f"is it a tracking store of this MLflow version? ({one_line(error)})"
        )
        raise UserError(f"MLFLOW_TRACKING_URI={uri!r} cannot be used: {told}") from None
    if file is not None:
        _remove_strays(file, given, uri)
        refuse_moved(client, file)
    store = Store(client, experiment_id, uri)
    if run := os.environ.get(GIVEN_RUN):
        _take_given(store, run, given)
    end_orphans(store)
    _tell_kind(store)
    return store


def _refuse_malformed(given: str) -> None:
    """Raise `UserError` for an address that nothing can be asked at, as one whose password is not encoded."""
    try:
        if given.startswith("//"):
            raise ValueError("it lacks http:, postgresql: or the like before its //")
        if "://" in given and not given.startswith((SQLITE, "file:")):
            _ = urlsplit(given).port if given.startswith("http") else make_url(given)
    except (ValueError, ArgumentError) as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI={given!r} is no address of a store ({one_line(error)}): mend it; in a password write "
            "% / ? # @ : as %25 %2F %3F %23 %40 %3A"
        ) from None


def _take_given(store: Store, run_id: str, given: str) -> None:
    """Put this process's name on the run that `mlflow run` has made. Raises `UserError` where the store lacks it."""
    if run_of(store, run_id) is None:
        raise UserError(
            f"{GIVEN_RUN}={run_id}: the store {given!r} has no such run: with `mlflow run` give MLFLOW_TRACKING_URI as "
            f"a whole path, a relative one starts in {str(Path.cwd())!r}; else unset {GIVEN_RUN}"
        )
    Run(store, run_id, "").tags(process_tags())


def _refuse_other_registry(given: str, file: Path | None) -> None:
    """Raise `UserError` where the models would be in another store than the runs.

    Versions, ledger and the lock over both belong together.
    """
    registry = os.environ.get(REGISTRY) or given
    if registry != given and (file is None or sqlite_file(registry) != file):
        raise UserError(
            f"{REGISTRY}={registry!r} is another store than {given!r}: the ledger of answered requests and "
            "the models that answer them are kept in one: unset it"
        )


def _keep_registry(uri: str) -> None:
    """Have the registry in the store, whatever this process had before: unset, it is where the runs are."""
    mlflow.set_registry_uri(uri if REGISTRY in os.environ else "")


def _remove_strays(file: Path, *addresses: str) -> None:
    """Remove the empty folders that MLflow has made because it takes an encoded address for a path."""
    for address in addresses:
        folder = Path(address.removeprefix(SQLITE).partition("?")[0]).parent
        while "%" in str(folder) and not file.is_relative_to(folder.absolute()):
            try:
                folder.rmdir()
            except OSError:  # it is not there, or not empty
                break
            folder = folder.parent


def _open_sqlite(file: Path, uri: str) -> tuple[MlflowClient, str]:
    with locked(file):  # two creators at once break the schema
        refuse_half_undone(file)
        for _ in range(SECONDS_OF_CREATION):
            try:
                return _open()
            except UserError:
                raise
            except Exception:
                # MLflow takes seconds to create its tables and cannot go on where it was killed.
                if not _is_half_made(file):
                    raise
            close_connections(uri)
            if users_of(file):  # `mlflow run` creates it at this moment, and asks no lock
                time.sleep(1)
                continue
            say(f"{file}: its creation was interrupted, made anew")
            for suffix in ("", "-journal", "-wal", "-shm"):  # a journal would bring the old tables back
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        return _open()


def _is_half_made(file: Path) -> bool:
    """Whether a database holds some of what this MLflow version creates, nothing else, and nothing in it yet."""
    if not file.is_file():
        return False
    tables, revisions, newest = schema()
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
        try:
            names = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            told = database.execute("select version_num from alembic_version") if "alembic_version" in names else ()
            reached = {version for (version,) in told}
            own = {name for name in names if not name.startswith(("alembic_", "_alembic_", "sqlite_"))}
            if not (own <= tables and reached <= revisions):
                return False  # another program's, or a newer MLflow's
            whole = own == tables and reached == newest
            filled = {name for name in own if database.execute(f'select 1 from "{name}" limit 1').fetchone()}
            return not whole and filled <= FILLED_AT_CREATION
        except sqlite3.Error:
            return False


def _open() -> tuple[MlflowClient, str]:
    """A client, and the id of the experiment that MLflow's variables name, which is made where it is missing."""
    # It reads the database already.
    client = cast(MlflowClient, Patient(patiently(MlflowClient, signs=LOCKED)))
    given, name = os.environ.get("MLFLOW_EXPERIMENT_ID"), os.environ.get("MLFLOW_EXPERIMENT_NAME")
    for variable, value in (("MLFLOW_EXPERIMENT_ID", given or ""), ("MLFLOW_EXPERIMENT_NAME", name or "")):
        if value != storable(value):
            raise UserError(f"{variable}={os.fsencode(value)!r} is not valid UTF-8: set it to another")
    if given is not None or not name:
        return client, _active(_experiment(client, given or "0"))
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client, client.create_experiment(name)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # no other process has made it in between
                raise
    return client, _active(found)


def _experiment(client: MlflowClient, number: str) -> Experiment:
    """The experiment of an id. Raises `UserError` where the store has none."""
    try:
        return client.get_experiment(number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        known = [f"{e.experiment_id} ({e.name})" for e in every(client.search_experiments, max_results=PAGE)]
        raise UserError(
            f"MLFLOW_EXPERIMENT_ID={number!r}: this store has no such experiment ({first_of(known) or 'it has none'}): "
            "give the id of one, or MLFLOW_EXPERIMENT_NAME, which is made where it is missing"
        ) from None


def _active(found: Experiment) -> str:
    """The id of an experiment. Raises `UserError` where it is deleted: nothing can be written into it."""
    if found.lifecycle_stage == LifecycleStage.ACTIVE:
        return found.experiment_id
    raise UserError(
        f"experiment {found.name!r} ({found.experiment_id}) of this store is deleted: run `mlflow experiments restore "
        f"-x {found.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to another"
    )


def _tell_silence(uri: str) -> str:
    """Say that a server or a database does not answer: MLflow tries for minutes without a word. Return why, or ''."""
    try:
        address = make_url(uri)
    except ArgumentError:  # a folder
        return ""
    kind = address.get_backend_name()
    if not address.host or kind not in PORTS:
        return ""
    try:
        socket.create_connection((address.host, address.port or PORTS[kind]), timeout=10).close()
        return ""
    except (OSError, UnicodeError) as error:  # the latter of a name that cannot be one
        limit = f" ({HTTP_RETRIES})" if kind.startswith("http") else ""
        say(f"{uri} does not answer ({error}): trying for some minutes{limit}")
        return one_line(error)


def _tell_kind(store: Store) -> None:
    """Have the UI open the experiment as one of models, unless somebody has said what it is: it guesses otherwise."""
    if KIND not in store.client.get_experiment(store.experiment_id).tags:
        store.client.set_experiment_tag(store.experiment_id, KIND, OF_MODELS)


def end_orphans(store: Store) -> None:
    """Mark the experiment's RUNNING runs of this host whose process is gone as KILLED; others' are left alone."""
    root = store.client.get_experiment(store.experiment_id).artifact_location
    # All of them before the first one ends: the pages that follow would begin further on.
    for found in list(every(store.client.search_runs, [store.experiment_id], RUNNING, max_results=PAGE)):
        tags = found.data.tags
        if tags.get("pid", "").isdigit():
            gone = tags.get("host") == platform.node() and is_gone(int(tags["pid"]), tags.get("pid_started", ""))
        else:
            gone = tags.get("mlflow.source.type") == "PROJECT" and not _has_maker(store, found)
        if gone:
            store.client.set_terminated(found.info.run_id, "KILLED")
            address = found.info.artifact_uri
            if is_own_run(root, address, found.info.run_id) and (folder := Files(address).folder) is not None:
                sweep(folder, "**/.*.tmp")


def _has_maker(store: Store, run: StoredRun) -> bool:
    """Whether a process may be alive that made this run with `mlflow run` and has not come to our code yet.

    It has the database open, and was there before the run or was given it; ancestors of this process do not count.
    True where that cannot be known: the store is on a server.
    """
    if store.database is None:
        return True
    made = run.info.start_time / 1000
    return any(
        given == run.info.run_id or process_start <= made + CLOCK_TOLERANCE
        for process_start, given in users_of(store.database, GIVEN_RUN)
    )
