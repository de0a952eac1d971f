"""What a command leaves for people: the report and the evidence record."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import FAST, Command

NAME = "audio-mu.SyntheticDigits.logmel.VGGish"
# Long enough to learn more than guessing: models at chance are not judged.
TRAINED = {**FAST, "n_epochs": "16", "methods": "naive,omp,fine_tune"}


class Store:
    """A finished store, read with MLflow's own client."""

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.folder = folder
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(uri, uri)

    def runs(self, condition: str) -> list:
        return list(self.client.search_runs(["0"], condition, max_results=1000))

    def first(self, stage: str) -> object:
        """The chain's own run of a stage: later tests add others."""
        return self.runs(f"tags.stage = '{stage}' and tags.role = 'parent'")[-1]

    def methods(self) -> list:
        """The methods' runs of the chain's own cell."""
        return self.runs(f"tags.role = 'method' and tags.cell = '{self.first('unlearn').data.tags['cell']}'")

    def text(self, run_id: str, path: str) -> str:
        return Path(self.client.download_artifacts(run_id, path)).read_text()

    def report(self, run: object) -> str:
        (entry,) = self.client.list_artifacts(run.info.run_id, "report")
        return self.text(run.info.run_id, entry.path)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, entry: Command, small_digits: Path) -> Store:
    """A chain whose retrained models are registered: naive meets the rule by definition."""
    folder = tmp_path_factory.mktemp("registered")
    done = entry("main", folder, data_dir=str(small_digits), register="naive", **TRAINED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "truncated" not in done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return Store(folder)


def test_compare_writes_the_report_and_descriptions(chain: Store) -> None:
    """Catches a report that is missing, too large, without sound, or of other figures; and blank descriptions."""
    run = chain.first("compare")
    page = chain.report(run)
    assert len(page) < 10_000_000
    assert page.count("data:audio/wav") > 5
    table = pd.read_csv(chain.client.download_artifacts(run.info.run_id, "comparison.csv"))
    row = table[(table["method"] == "omp") & (table["metric"] == "forget/accuracy")].iloc[0]
    assert f">{100 * row['mean']:.1f}<span" in page
    assert "To be forgotten: 15 of 144 training recordings (10.4 %" in page
    assert "To be forgotten: 15 of 144" in run.data.tags["mlflow.note.content"]
    tags = chain.client.get_experiment("0").tags
    assert tags["mlflow.note.content"].startswith("# audio-mu")
    assert run.data.tags["cell"] in tags["mlflow.sharedViewState.audio-mu"]
    assert "viewStateShareKey=audio-mu" in (chain.folder / "output.txt").read_text()
    for method in chain.methods():
        assert method.data.tags["mlflow.note.content"]
    assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["SyntheticDigits"]


def test_report_of_a_chosen_request_and_method(
    chain: Store, entry: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Catches a record of another cell or method, recordings in a report that was to hold none."""
    monkeypatch.setenv("AUDIO_MU_REPORT_AUDIO", "0")
    done = entry("report", chain.folder, seeds="40,41", methods="omp", n_epoch_repair="1")
    assert done.returncode == 0, done.stdout + done.stderr
    newest = chain.runs("tags.stage = 'report'")[0]
    evidence = chain.text(newest.info.run_id, "evidence.md")
    assert evidence.startswith("# Evidence record: omp,")
    assert "| versions after | not registered |" in evidence
    (compared,) = chain.runs(f"tags.`mlflow.parentRunId` = '{newest.info.run_id}'")
    assert "data:audio" not in chain.report(compared)
    done = entry("report", chain.folder, seeds="40,41", forget_percentage="77")
    assert done.returncode == 2
    assert "no finished unlearning" in done.stderr
    assert "forget_percentage=77" in done.stderr
    done = entry("report", chain.folder, seeds="40,41", methods="pop")
    assert done.returncode == 2
    assert "'pop' has no finished run" in done.stderr


def test_skipped_recordings_are_listed_in_the_run(entry: Command, small_digits: Path, tmp_path: Path) -> None:
    """Catches recordings that are left out without a trace, and other recordings told by nothing but a digest."""
    data = shutil.copytree(small_digits, tmp_path / "data")
    (data / "01" / "0_01_8.wav").write_bytes(b"RIFF of nothing")
    (data / "01" / "0_01_9.wav").write_bytes(b"")
    parameters = {"data_dir": str(data), "n_epochs": "1", "seeds": "40"}
    folder = tmp_path / "run"
    folder.mkdir()
    done = entry("train", folder, **parameters)
    assert done.returncode == 2
    assert "01/0_01_8.wav" in done.stderr
    done = entry("train", folder, bad_files="skip", **parameters)
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(folder)
    (parent,) = store.runs("tags.stage = 'train' and tags.role = 'parent' and attributes.status = 'FINISHED'")
    skipped = pd.read_csv(store.client.download_artifacts(parent.info.run_id, "skipped.csv"))
    assert skipped["clip_id"].tolist() == ["01/0_01_8.wav", "01/0_01_9.wav"]
    assert skipped["reason"].str.len().min() > 5
    fewer = shutil.copytree(small_digits, tmp_path / "fewer")
    next(fewer.glob("02/*.wav")).unlink()
    done = entry("attack", folder, data_dir=str(fewer), seeds="40")
    assert done.returncode == 2
    assert f"give data_dir='{data}' (now '{fewer}'), bad_files='skip' (now 'fail') as then, or train" in done.stderr
