"""Which artifacts are the store's own: those at the address that MLflow gives them, links resolved.

Whoever can write into the store can have a run name any folder, and a link can lead anywhere.
"""

from __future__ import annotations

from mlflow.exceptions import MlflowException

from audio_mu.store.files import Files


def is_own_run(root: str, address: str, run_id: str) -> bool:
    """Whether a run's artifacts lie where MLflow puts them below the artifact root of its experiment."""
    return _lies(root, address, run_id, "artifacts")


def is_own_model(root: str, address: str, model_id: str) -> bool:
    """The same of the files of a logged model."""
    return _lies(root, address, "models", model_id, "artifacts")


def outside(what: str, address: str) -> str:
    """What is said of a place that is not the store's own: nothing there is read or touched."""
    return (
        f"{what} names a folder outside of this store: {address!r}: it is not read, somebody has written that into the "
        "store; look through it yourself, or restore the store from a backup"
    )


def _lies(root: str, address: str, *parts: str) -> bool:
    try:
        own, given = Files(root), Files(address)
    except MlflowException:  # an address of no kind that MLflow knows
        return False
    if own.folder is not None and given.folder is not None:
        return given.folder.resolve() == own.folder.resolve().joinpath(*parts)
    base, mark, query = root.partition("?")
    return own.folder is given.folder is None and address == "/".join([base.rstrip("/"), *parts]) + mark + query
