"""Compare on a real store: one model alone, then several seeds with their audits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from audio_mu.report.rule import LEARNED
from audio_mu.store.queries import Finished
from audio_mu.workflows.cells import CellRuns
from tests.conftest import FAST, Command

QUICK = {**FAST, "n_epochs": "2", "save_models": "none", "n_attack_models": "1"}


class Stored:
    """The newest comparison and the runs of a store."""

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(uri, uri)

    def newest(self, stage: str, condition: str = "") -> object:
        wanted = f"tags.stage = '{stage}'" + (f" and {condition}" if condition else "")
        return self.client.search_runs(["0"], wanted, order_by=["attributes.start_time DESC"], max_results=1)[0]

    def artifact(self, run: object, path: str) -> Path:
        return Path(self.client.download_artifacts(run.info.run_id, path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_one_model_alone(folder: Path, entry: Command, small_digits: Path) -> None:
    """Catches gaps against nothing, and one-sided evidence that is not called so."""
    done = entry("main", folder, data_dir=str(small_digits), **QUICK | {"seeds": "40", "methods": "pop"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no naive model in this cell" in done.stdout
    stored = Stored(folder)
    comparison = stored.newest("compare")
    table = pd.read_csv(stored.artifact(comparison, "comparison.csv"))
    assert set(table["method"]) == {"original", "pop"}
    assert not table["metric"].str.startswith(("gap/", "distance/", "audit/")).any()
    assert "time/speedup" not in set(table["metric"])
    text = stored.artifact(comparison, "comparison.md").read_text()
    assert "Differences to naive" not in text and "The evidence is one-sided" in text
    assert "- pop: population attack AUC" in text
    assert len(pd.read_csv(stored.artifact(comparison, "paired.csv"))) == 0


def test_several_seeds_are_audited(folder: Path, entry: Command, small_digits: Path) -> None:
    """Catches audits that are computed and lost, and a run without its evidence."""
    options = QUICK | {"seeds": "40,41,42", "methods": "naive,pop", "deep_audits": "true", "robust_audits": "true"}
    options |= {"forget": "speaker"}
    done = entry("main", folder, data_dir=str(small_digits), **options)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = Stored(folder)
    comparison = stored.newest("compare")
    table = pd.read_csv(stored.artifact(comparison, "comparison.csv")).set_index(["method", "metric"])
    assert table.loc[("pop", "audit/rmia_auc"), "n"] == table.loc[("pop", "audit/epsilon_bound"), "n"] == 3
    assert table.loc[("retrain_floor", "distance/js"), "mean"] > 0
    assert ("naive", "audit/epsilon_bound") not in table.index
    asked = {"deep/relearn_epochs", "deep/probe_accuracy", "robust/mp3_auc", "robust/mean_auc", "robust/noise_accuracy"}
    assert asked <= set(table.loc["pop"].index) & set(table.loc["naive"].index)
    assert table.loc[("original", "robust/trimmed_auc"), "n"] == 3
    paths = [f.path for f in stored.client.list_artifacts(comparison.info.run_id, "audits")]
    clips = pd.read_csv(stored.artifact(comparison, f"{paths[0]}/per_clip.csv"))
    assert set(clips["method"]) == {"original", "naive", "retrain_floor", "pop"}
    paired = pd.read_csv(stored.artifact(comparison, "paired.csv"))
    assert set(paired["p_floor"]) == {0.25}
    text = stored.artifact(comparison, "comparison.md").read_text()
    assert "With 3 pairs no exact p can go below 0.25: no difference of this cell can be significant" in text
    assert "U-LiRA AUC" in text
    run = stored.newest("unlearn", "tags.method = 'pop' and tags.seed = '40'")
    about = json.loads(stored.artifact(run, "audit/audit.json").read_text())
    request = pd.read_csv(stored.artifact(run, "request.csv"))
    losses = pd.read_csv(stored.artifact(run, "losses/forget.csv"))
    per_clip = pd.read_csv(stored.artifact(run, "audit/per_clip.csv"))
    assert request["clip_id"].tolist() == losses["clip_id"].tolist()
    assert len(request) == about["request"]["n_forget"]
    assert about["request"]["hash"] == run.data.tags["request_hash"]
    forget = per_clip[per_clip["role"] == "forget"].reset_index()
    assert forget["loss"].mean() == pytest.approx(run.data.metrics["forget/loss"])
    assert forget["js"].mean() == pytest.approx(run.data.metrics["distance/js"])
    assert forget["called_nonmember"].mean() == pytest.approx(run.data.metrics["mia/score"])
    assert run.data.tags["audit"].startswith("population attack")


def test_the_request_is_replayed_from_the_store(folder: Path, entry: Command, small_digits: Path) -> None:
    """Catches a stored request that does not forget the same recordings again."""
    stored = Stored(folder)
    first = stored.newest("unlearn", "tags.role = 'parent'")
    listed = stored.artifact(first, "request.csv")
    options = QUICK | {"seeds": "40", "methods": "pop", "forget": "list", "forget_list": str(listed)}
    done = entry("unlearn", folder, data_dir=str(small_digits), **options)
    assert done.returncode == 0, done.stdout + done.stderr
    again = stored.newest("unlearn", "tags.role = 'method' and tags.method = 'pop'")
    assert again.data.tags["request"].startswith("list-")
    abouts = [
        json.loads(stored.artifact(run, "audit/audit.json").read_text())
        for run in (again, stored.newest("unlearn", "tags.request = 'speaker-1' and tags.method = 'pop'"))
    ]
    assert abouts[0]["request"]["clips_hash"] == abouts[1]["request"]["clips_hash"]
    assert abouts[0]["request"]["hash"] != abouts[1]["request"]["hash"]
    assert abouts[0]["nonmembers"]["n"] == abouts[1]["nonmembers"]["n"]


def test_other_attack_models_make_another_cell(folder: Path, entry: Command, small_digits: Path) -> None:
    """Catches scores of two attacks side by side, as if the difference were the method's."""
    options = QUICK | {"seeds": "40", "methods": "pop"}
    wanted = "tags.role = 'method' and tags.method = 'pop' and tags.request = 'item-10'"
    stored = Stored(folder)
    before = stored.newest("unlearn", wanted)
    for stage, changed in (("attack", {"n_attack_models": "2"}), ("unlearn", {})):
        done = entry(stage, folder, data_dir=str(small_digits), **options | changed)
        assert done.returncode == 0, done.stdout + done.stderr
    after = stored.newest("unlearn", wanted)
    assert after.data.tags["attack_run_id"] != before.data.tags["attack_run_id"]
    assert after.data.tags["cell"] != before.data.tags["cell"]


@pytest.mark.parametrize("command", ["compare", "report", "erase"])
def test_commands_that_compute_no_network_do_without_torch(command: str) -> None:
    """Catches an import that makes every such command seconds longer."""
    looks = f"import sys, audio_mu.workflows.{command}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", looks], timeout=120, check=False).returncode == 0


def test_a_seed_whose_retraining_failed_is_in_the_table() -> None:
    """Catches verdicts that cannot know of it: they read the long table alone."""
    remain = {"naive": (0.9, 0.1), "original": (0.95, 0.95), "pop": (0.8, 0.8)}
    runs = {
        (method, seed): Finished(f"{method}{seed}", "", {}, {"remain/accuracy": value}, 0)
        for method, values in remain.items()
        for seed, value in zip((40, 41), values, strict=True)
    }
    cell = CellRuns("c", "item-10", runs)
    assert cell.not_learned == [41]
    long = cell.long()
    learned = long[long["metric"] == LEARNED].set_index("method")["mean"]
    assert learned.to_dict() == {"original": 0.5, "naive": 0.5, "pop": 0.5}
