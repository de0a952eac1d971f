"""Names of MLflow that are not public, each behind a helper that says what breaks when MLflow changes it.

MLflow is pinned to one version. Whoever raises the pin reads this file first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

if TYPE_CHECKING:
    import torch

HALF_WRITTEN = ".artifact.uploading."
"""How names of files begin that MLflow is writing. With another beginning, an erasure misses what a kill has left."""

SHARED_VIEW = "mlflow.sharedViewState."
"""How the tags begin that hold views of the UI. With another beginning, the printed link opens the UI's own view."""


def quiet() -> None:
    """Silence the parts of MLflow that tell what our errors tell. Under other names they print again, no more."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # It prints the traceback of an error that it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def close_connections(uri: str) -> None:
    """Close what MLflow keeps open of a database: it has one engine an address and process.

    With engines elsewhere, a database that is made anew would be written through the connections to the deleted file.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore._get_or_create_engine(uri).dispose()


def schema() -> tuple[set[str], set[str], set[str]]:
    """The database that this MLflow version makes: tables, known revisions, newest revisions.

    Without them a database whose making was interrupted cannot be told from another program's, and stays broken.
    """
    from alembic.script import ScriptDirectory
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import _get_alembic_config

    script = ScriptDirectory.from_config(_get_alembic_config(""))
    return set(Base.metadata.tables), {known.revision for known in script.walk_revisions()}, set(script.get_heads())


def _backend(client: MlflowClient) -> Any:
    """What a client asks: the database's own store, or the one that sends requests to a server."""
    return client._tracking_client.store


def model_record(client: MlflowClient, model_id: str, *, deleted: bool) -> LoggedModel | None:
    """The record of a logged model, of a deleted one with `deleted` alone; None where there is none.

    The public call finds no deleted model. Without this one an erasure misses the files of deleted models.
    """
    try:
        return _backend(client).get_logged_model(model_id, allow_deleted=deleted)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise


def collects(client: MlflowClient) -> bool:
    """Whether records of models can be removed for good; a tracking server only hides them.

    Under another name of the removal, models of a database are hidden too, and stay until `mlflow gc`.
    """
    return hasattr(_backend(client), "_hard_delete_logged_model")


def collect_model(client: MlflowClient, model_id: str) -> None:
    """Remove a logged model's record, as `mlflow gc` does; see `collects`."""
    _backend(client)._hard_delete_logged_model(model_id)


@contextmanager
def traced_as(program: torch.export.ExportedProgram) -> Iterator[None]:
    """Have `mlflow.pytorch.log_model` save this graph, which it would otherwise trace from the module.

    It takes no traced one, and tracing takes longer than all the rest of logging. Where MLflow traces by another call,
    each model is traced anew: slower, and as right. Nothing else in the process may export a module meanwhile.
    """
    from torch import export

    own = export.export
    export.export = lambda *_, **__: program
    try:
        yield
    finally:
        export.export = own
