"""The result tables of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import tables


def test_the_documented_tables_are_those_of_this_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches verdicts of an earlier rule, and figures of an earlier CSV file, in docs/results.md."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    documented, page = tables.PAGE.read_text(), tmp_path / "results.md"
    diagram = (tables.PAGE.parent / "images" / "ranking.svg").read_bytes()
    page.write_text(documented.replace("meets the rule", "once met the rule"))
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(tables, "PAGE", page)
    tables.make_tables()
    assert page.read_text().split(tables.BEGIN)[1] == documented.split(tables.BEGIN)[1]
    assert (tmp_path / "images" / "ranking.svg").read_bytes() == diagram
