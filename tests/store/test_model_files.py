"""What the database names outside of the store is refused before anything there is read."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from audio_mu.errors import UserError
from audio_mu.store import registry
from audio_mu.store.artifacts import Unreadable, read_csv, told_of
from audio_mu.store.handle import Store
from tests.answered import Answered
from tests.mounts import small_disk

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


def test_a_full_temporary_folder_is_not_the_models_fault(
    answered: Answered, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a healthy model that is to be restored because TMPDIR is full, and torch that aborts while it writes."""
    uri = f"models:/{next((answered.folder / 'mlruns/0/models').glob('m-*')).name}"
    with small_disk(tmp_path / "disk", "12k") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk.path))
        full = rf"the temporary folder {disk.path} is full \(.*: free space, or set TMPDIR"
        with pytest.raises(UserError, match=full), registry.fetched(uri, lambda path: True):
            pass
        with pytest.raises(UserError, match=full):
            registry.try_writing(registry.Traced(torch.nn.Linear(4, 2), 4), 2)


def test_faults_of_the_machine_while_the_store_is_read(answered: Answered, victim: Path) -> None:
    """Catches a run that is left out, and a model that is to be restored, because this process has no more files."""
    naive = answered.runs(stage="unlearn", method="naive")[-1]
    uri = f"models:/{next((answered.folder / 'mlruns/0/models').glob('m-*')).name}"
    store = Store(MlflowClient(), "0", f"sqlite:///{answered.database}")
    assert len(read_csv(store, naive, "audit/per_clip.csv"))
    registry.load_state(uri)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, before[1]))
    try:
        os.close(spare.pop())
        with pytest.raises(UserError, match="no more files can be opened") as raised, open(os.devnull):
            read_csv(store, naive, "audit/per_clip.csv")
        assert not isinstance(raised.value, Unreadable)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for number in spare:
            os.close(number)
    for told in ("##### File x #####\n[Errno 28] No space left", "[Errno 30] Read-only file system: 'x'"):
        with pytest.raises(UserError, match=r"free space|writable|mend that") as raised, told_of(store, naive, "x"):
            raise MlflowException(told)
        assert not isinstance(raised.value, Unreadable)
