"""The database behind an address is the one that SQLAlchemy reads out of it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from audio_mu.store.handle import sqlite_address, sqlite_file
from tests.answered import Answered


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////a b/ü/mlflow.db?timeout=60", "/a b/ü/mlflow.db"),
        ("sqlite:////a%20b/%C3%BC/mlflow.db", "/a b/ü/mlflow.db"),
        ("sqlite+pysqlite:////a/mlflow.db", "/a/mlflow.db"),
        ("sqlite:////a/100%25/what%3F/m.db?timeout=1", "/a/100%/what?/m.db"),
        ("sqlite:///file:/a/m.db?uri=true&mode=rwc", "/a/m.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://u:p@host/sqlite", None),
        ("http://host:5000/sqlite:///x", None),
        ("databricks", None),
    ],
)
def test_the_file_of_an_address(uri: str, path: str | None) -> None:
    """Catches a folder called `my%20project`, and a database called `mlflow.db?timeout=60`."""
    assert sqlite_file(uri) == (Path(path) if path else None)
    if path:
        assert sqlite_file(sqlite_address(Path(path), "timeout=1")) == Path(path)


@pytest.mark.slow
def test_an_erasure_compacts_the_database_itself(answered: Answered) -> None:
    """Catches an empty database that is compacted while deleted rows stay in the real one, and stray folders."""
    secret = "deleted with its version " * 20
    answered.query("insert into model_version_tags (name, version, key, value) select name, 1, 'note', ? from "
                   "registered_models", secret)  # fmt: skip
    assert secret.encode() in answered.database.read_bytes()
    before = {path.name for place in (answered.folder, answered.folder.parent) for path in place.iterdir()}
    encoded = f"sqlite:///{quote(str(answered.database))}?timeout=60"
    for uri in (encoded, f"sqlite:///{answered.database}?timeout=60"):
        answered.run("erase", uri, request=answered.hash("p1"), confirm="true")
    after = {path.name for place in (answered.folder, answered.folder.parent) for path in place.iterdir()}
    assert after == before
    assert secret.encode() not in answered.database.read_bytes()
    assert answered.tags(answered.entries()[0])["state"] == "erased"
