"""What the database names outside of the store is refused before anything there is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from audio_mu.errors import UserError
from audio_mu.store import registry
from tests.answered import Answered

REQUEST = {"forget": "speaker", "forget_speakers": "p2", "methods": "naive"}
BASE = "audio-mu.tones.logmel.Flat"


@pytest.fixture
def victim(answered: Answered, tmp_path: Path) -> Path:
    """A whole copy of the base model outside of the store: whoever reads it finds nothing wrong."""
    mlflow.set_tracking_uri(f"sqlite:///{answered.database}")
    (base,) = answered.query("select storage_location from model_versions where version = 1")[0]
    return Path(shutil.copytree(base.removeprefix("file://"), tmp_path / "victim"))


def test_a_version_that_names_another_folder(answered: Answered, victim: Path, tmp_path: Path) -> None:
    """Catches `unlearn` and the question to a served model that read wherever a row of the registry leads."""
    for named in (str(victim), "/etc", f"file://{victim}", f"{answered.folder}/mlruns/0/models/../../../../{victim}"):
        answered.query("update model_versions set source = ?, storage_location = ?", named, named)
        with pytest.raises(UserError, match=r"version \d of .* names a folder outside of this store: '"):
            answered.run("unlearn", **REQUEST)
        with pytest.raises(UserError, match="outside of this store"):
            registry.served(f"models:/{BASE}/1")
        with pytest.raises(UserError, match="outside of this store"):
            registry.load_state(named)


@pytest.mark.parametrize("stage", ["train", "attack"])
def test_a_logged_model_that_lies_elsewhere(answered: Answered, victim: Path, stage: str) -> None:
    """Catches a location that is followed because the version before it looks like ours."""
    sql = (
        "update logged_models set artifact_location = ? where source_run_id in "
        "(select run_uuid from tags where key = 'stage' and value = ?)"
    )
    answered.query(sql, str(victim), stage)
    with pytest.raises(UserError, match="names a folder outside of this store"):
        answered.run("unlearn", **REQUEST, ledger="ignore")


def test_a_run_whose_artifacts_lie_elsewhere(answered: Answered, victim: Path) -> None:
    """Catches tables and logits that are read, or written, where a row of the runs leads; the other runs go on."""
    naive = answered.runs(stage="unlearn", method="naive")[-1]
    answered.query("update runs set artifact_uri = ? where run_uuid = ?", str(victim), naive)
    assert f"LEFT OUT naive seed-40: run {naive} names a folder outside" in answered.run("compare")
    answered.query("update runs set artifact_uri = ?", str(victim))
    before = sorted(victim.rglob("*"))
    with pytest.raises(UserError, match="names a folder outside of this store"):
        answered.run("unlearn", **REQUEST)
    assert sorted(victim.rglob("*")) == before


def test_a_link_in_place_of_a_file(answered: Answered, victim: Path, tmp_path: Path) -> None:
    """Catches weights and tables read through a link that somebody has put into a folder of the store's own."""
    naive = answered.runs(stage="unlearn", method="naive")[-1]
    weights = next((answered.folder / "mlruns/0/models").glob("*/artifacts/data/model.pt2"))
    for file in (weights, answered.place(naive) / "audit" / "per_clip.csv"):
        file.rename(tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    with pytest.raises(UserError, match="is a link, and none is followed"):
        registry.load_state(f"models:/{weights.parents[2].name}")
    assert f"per_clip.csv of run {naive} cannot be read (OSError: audit/per_clip.csv is a link" in answered.run(
        "compare"
    )


def test_a_version_of_elsewhere_can_be_adopted(answered: Answered, victim: Path) -> None:
    """Catches a registered model of another store that cannot be adopted any more, and /etc that is copied for it."""
    answered.query("update model_versions set source = ?, storage_location = ? where version = 1", *[str(victim)] * 2)
    with registry.fetched(f"models:/{BASE}/1", lambda path: path.endswith(".pt2")) as folder:
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["model.pt2"]
    (victim / "MLmodel").unlink()
    outside = pytest.raises(UserError, match=r"'models:/.*/1' names a folder outside of this store: '.*victim'")
    with outside, registry.fetched(f"models:/{BASE}/1", lambda path: True):
        pass
