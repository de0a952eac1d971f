"""The whole chain as a user runs it, on a real store: what it writes, what it reuses, what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audio_mu.system.hashing import sha256
from tests.conftest import FAST, ROOT, Command
from tests.finished_store import Results

METHODS = [
    "naive", "gradient_ascent", "stochastic_teacher", "omp", "cosine", "pop", "amnesiac", "label_smoothing",
    "fine_tune",
]  # fmt: skip
TAGS = [
    "contract_version", "dataset", "dataset_name", "pipeline", "architecture", "request", "request_hash", "cell",
    "fingerprint", "base_run_id", "base_version", "attack_run_id", "git_commit", "git_dirty",
]  # fmt: skip
COLUMNS = ["cell", "request", "method", "metric", "mean", "std", "n", "seeds", "values", "ci_low", "ci_high"]
NAME = "audio-mu.SyntheticDigits.logmel.VGGish"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, project: Command, small_digits: Path) -> Results:
    folder = tmp_path_factory.mktemp("chain")
    done = project("main", folder, data_dir=str(small_digits), **FAST)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return Results(folder)


def test_every_run_is_finished_and_below_its_parent(chain: Results) -> None:
    """Catches runs left open, or a hierarchy that the UI cannot fold."""
    runs = {run.info.run_id: run for run in chain.runs()}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run in runs.values():
        parent = run.data.tags.get("mlflow.parentRunId")
        stage, role = run.data.tags["stage"], run.data.tags["role"]
        if stage in ("main", "sides"):
            assert parent is None
        elif role == "parent":
            assert runs[parent].data.tags["stage"] == "main"
            assert "method" not in run.data.tags
        else:
            assert runs[parent].data.tags["stage"] == stage
    assert len(chain.methods()) == 2 * (len(METHODS) + 1)


def test_tags_metrics_and_artifacts_of_the_contract(chain: Results) -> None:
    """Catches a name of the public contract that is missing or changed."""
    losses = pd.read_csv(chain.artifact(chain.runs("tags.stage = 'train' and tags.role = 'seed'")[0], "losses.csv"))
    n_train, n_test = (int((losses["member"] == member).sum()) for member in (1, 0))
    n_forget = -(-n_train // 10)
    sizes = {"forget": n_forget, "remain": n_train - n_forget, "test": n_test}
    for (method, seed), run in chain.methods().items():
        tags, metrics = run.data.tags, run.data.metrics
        assert run.info.run_name == f"{method} seed-{seed}"
        for name in TAGS:
            assert tags[name], name
        wanted = {f"{s}/{m}" for s in sizes for m in ("accuracy", "loss", "ece")} | {"mia/score", "mia/auc"}
        if method != "original":
            wanted |= {"time/impair_s", "time/repair_s", "time/total_s", "time/cpu_s"}
        if method != "naive":
            wanted |= {"distance/activation", "distance/js"}
        assert wanted <= set(metrics)
        assert method != "naive" or "distance/js" not in metrics
        assert method in ("original", "naive") or metrics["time/speedup"] > 0
        for name, size in sizes.items():
            losses = pd.read_csv(chain.artifact(run, f"losses/{name}.csv"))
            assert list(losses.columns) == ["clip_id", "label", "speaker", "audio_hash", "source_hash", "loss"]
            assert len(losses) == size
            with np.load(chain.artifact(run, f"logits/{name}.npz"), allow_pickle=False) as stored:
                assert stored["logits"].shape == (size, 10)
                assert stored["logits"].dtype == np.float32
                assert list(stored["clip_id"]) == list(losses["clip_id"])
                z = stored["logits"].astype(np.float64)
                own = z[np.arange(size), stored["label"]]
            expected = np.log(np.exp(z).sum(axis=1)) - own
            np.testing.assert_allclose(losses["loss"], expected, atol=1e-9)
            assert metrics[f"{name}/loss"] == pytest.approx(losses["loss"].mean(), abs=1e-9)


def test_train_and_attack_artifacts(chain: Results) -> None:
    """Catches member labels the wrong way round and an attack data set that is not balanced."""
    for run in chain.runs("tags.stage = 'train' and tags.role = 'seed'"):
        losses = pd.read_csv(chain.artifact(run, "losses.csv"))
        hashes = ["audio_hash", "source_hash"]
        assert list(losses.columns) == ["clip_id", "label", "speaker", *hashes, "loss", "member"]
        assert len(losses) == 180
        assert 24 <= (losses["member"] == 0).sum() <= 48  # a fifth, each by its own hash
        assert losses.groupby("label")["member"].nunique().tolist() == [2] * 10
        assert losses.groupby("member")["loss"].mean()[1] == pytest.approx(run.data.metrics["train/loss"], abs=1e-9)
    (attack,) = chain.runs("tags.stage = 'attack'")
    rows = pd.read_csv(chain.artifact(attack, "mia_all_balanced.csv"))
    assert rows.groupby("seed")["label"].mean().tolist() == [0.5, 0.5]
    assert rows.groupby("clip_id")["part"].nunique().max() == 1
    assert {"attack/accuracy", "attack/balanced_accuracy", "attack/auc", "attack/collapsed"} <= set(attack.data.metrics)


def test_no_two_methods_are_the_same(chain: Results) -> None:
    """Catches a method that does nothing, or one that is another under a second name."""
    seen: dict[str, str] = {}
    for (method, seed), run in chain.methods().items():
        if seed == "40":
            losses = pd.read_csv(chain.artifact(run, "losses/forget.csv"))["loss"]
            key = sha256(losses.to_numpy().tobytes())
            assert key not in seen, f"{method} equals {seen.get(key)}"
            seen[key] = method


def test_models_carry_the_figures_of_their_runs(chain: Results) -> None:
    """Catches models that MLflow's view of models shows without a figure, or with another one's."""
    models = chain.client.search_logged_models(["0"])
    assert {chain.client.get_run(model.source_run_id).data.tags["stage"] for model in models} >= {"train", "unlearn"}
    for model in models:
        run = chain.client.get_run(model.source_run_id).data
        if run.tags["stage"] != "attack":  # several models, one set of figures
            own = {metric.key: metric.value for metric in model.metrics}
            assert own["test/accuracy"] == run.metrics["test/accuracy"]


def test_comparison_averages_the_seeds(chain: Results) -> None:
    """Catches a mean over other runs than the two seeds', or a deviation with ddof 0."""
    (run,) = chain.runs("tags.stage = 'compare'")
    table = pd.read_csv(chain.artifact(run, "comparison.csv"))
    assert list(table.columns) == COLUMNS
    values = [chain.methods()["pop", seed].data.metrics["forget/loss"] for seed in ("40", "41")]
    row = table[(table["method"] == "pop") & (table["metric"] == "forget/loss")].iloc[0]
    assert (row["n"], row["seeds"]) == (2, "40 41")
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    assert run.data.metrics["pop/forget/loss"] == pytest.approx(np.mean(values))
    (folder,) = chain.client.list_artifacts(run.info.run_id, "figures")
    drawn = chain.client.list_artifacts(run.info.run_id, folder.path)
    assert {Path(figure.path).name for figure in drawn} >= {"accuracy.png", "mia.png", "forget_loss.png"}
    output = (chain.folder / "output.txt").read_text()
    assert "| pop " in output
    assert "compareRunsMode=CHART" in output


def test_base_model_answers_waveforms_without_unpickling(chain: Results, small_digits: Path) -> None:
    """Catches a registered model that needs features, code of this project, or unpickling, or has another's weights."""
    import mlflow
    import soundfile

    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    mlflow.set_tracking_uri(f"sqlite:///{chain.folder / 'mlflow.db'}")
    for alias in ("seed-40", "seed-41"):
        version = chain.client.get_model_version_by_alias(NAME, alias)
        model = mlflow.pyfunc.load_model(f"models:/{NAME}@{alias}")
        run = chain.client.get_run(version.run_id)
        with np.load(chain.artifact(run, "logits/test.npz"), allow_pickle=False) as stored:
            ids, logits = stored["clip_id"][:5], stored["logits"][:5]
        waveforms = np.stack([soundfile.read(small_digits / id_, dtype="float32")[0] for id_ in ids])
        np.testing.assert_allclose(model.predict(waveforms), logits, atol=1e-4)
    (attack,) = chain.runs("tags.stage = 'attack'")
    for output in chain.client.get_run(attack.info.run_id).outputs.model_outputs:
        answers = mlflow.pyfunc.load_model(f"models:/{output.model_id}").predict(np.zeros((3, 1), np.float32))
        assert answers.shape == (3, 2)


def test_models_predict_command(chain: Results) -> None:
    """Catches a model that loads in this process but not through MLflow's own command."""
    request = chain.folder / "request.json"
    request.write_text(json.dumps({"inputs": np.zeros((2, 16_000)).tolist()}))
    done = subprocess.run(
        ["mlflow", "models", "predict", "-m", f"models:/{NAME}@seed-40", "-i", str(request), "--env-manager", "local"],
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{chain.folder / 'mlflow.db'}",
             "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        cwd=chain.folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(re.search(r"\{.*\}", done.stdout, flags=re.DOTALL)[0])
    assert np.shape(answer["predictions"]) == (2, 10)


def test_next_request_reuses_the_base_models(chain: Results, project: Command, small_digits: Path) -> None:
    """Catches base models or finished steps being computed again, and cells being mixed."""
    parameters = {"seeds": "40,41", "data_dir": str(small_digits), "n_epoch_repair": "1", "methods": "naive,pop"}
    before = {run.info.run_id for run in chain.runs("tags.stage = 'train'")}
    for repeat in range(2):
        done = project("unlearn", chain.folder, forget_percentage="30", **parameters)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("reusing 6 finished runs" in done.stdout) == bool(repeat)
    assert {run.info.run_id for run in chain.runs("tags.stage = 'train'")} == before
    assert set(chain.methods("item-30")) == {(m, s) for m in ("original", "naive", "pop") for s in ("40", "41")}
    cells = {run.data.tags["cell"] for run in chain.methods("item-30").values()}
    assert len(cells) == 1
    assert cells.isdisjoint(run.data.tags["cell"] for run in chain.methods().values())
    assert {run.data.tags["base_run_id"] for run in chain.methods("item-30").values()} <= before


def test_other_repair_settings_share_naive(chain: Results, entry: Command, small_digits: Path) -> None:
    """Catches naive being retrained for a setting that it does not read, or missing from the new cell."""
    parameters = {"seeds": "40", "data_dir": str(small_digits), "n_epoch_repair": "2", "methods": "naive,fine_tune"}
    done = entry("unlearn", chain.folder, **parameters)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [r for r in chain.runs("tags.role = 'method' and tags.method = 'naive' and tags.request = 'item-10'")
            if r.data.tags["seed"] == "40"]  # fmt: skip
    assert len({run.data.tags["cell"] for run in runs}) == 2
    assert len({run.data.metrics["time/total_s"] for run in runs}) == 1
    done = entry("compare", chain.folder, seeds="40,41")
    assert "naive has no finished run for seeds [41]" in done.stdout


def test_contradicting_the_base_recipe_is_refused(chain: Results, entry: Command, small_digits: Path) -> None:
    """Catches unlearning with another recipe than the base models were trained with."""
    done = entry("unlearn", chain.folder, seeds="40,41", data_dir=str(small_digits), n_epochs="9")
    assert done.returncode != 0
    assert "n_epochs=9 contradicts" in done.stderr
    assert "n_epochs=4" in done.stderr
    done = entry("unlearn", chain.folder, seeds="40,99", data_dir=str(small_digits))
    assert done.returncode != 0
    assert "seeds=99" in done.stderr
    assert f"-m entrypoints.train --data_dir {small_digits} --seeds 40,99`" in done.stderr


def test_changed_recordings_are_refused(chain: Results, entry: Command, tmp_path: Path) -> None:
    """Catches unlearning on other recordings than the base models were trained on."""
    from audio_mu.data.synthetic import generate

    other = generate(tmp_path / "other", n_speakers=3, n_takes=3)
    done = entry("unlearn", chain.folder, seeds="40,41", data_dir=str(other))
    assert done.returncode != 0
    assert "have changed" in done.stderr


WRONG = [
    {"forget_percentage": "abc"},
    {"forget_percentage": "100"},
    {"seeds": "40,40"},
    {"methods": "foo"},
    {"dataset": "foo"},
    {"batch_size": "0"},
    {"learning_rate": "inf"},
    {"forget_pct": "30"},
    {"architecture": "VGGishSpec", "pipeline": "mel"},
    {"data_dir": "/no/such/folder"},
]


@pytest.mark.parametrize("parameters", WRONG, ids=",".join)
def test_wrong_parameters_get_one_line(parameters: dict[str, str], entry: Command, tmp_path: Path) -> None:
    """Catches a traceback, a usage block, exit code 0, or work begun in spite of a wrong parameter."""
    done = entry("main", tmp_path, **parameters)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for name, value in parameters.items():
        assert name in done.stderr
        assert value in done.stderr or name == "forget_pct"
    assert not list(tmp_path.iterdir())


def test_a_folder_without_recordings_is_refused(entry: Command, tmp_path: Path) -> None:
    """Catches an empty data set that is only noticed after work has begun."""
    (tmp_path / "empty").mkdir()
    done = entry("train", tmp_path, data_dir=str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "holds no recordings" in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_a_misspelt_project_parameter_fails_the_run(project: Command, tmp_path: Path) -> None:
    """Catches `-P forget_pct=30` being ignored: MLflow passes unknown parameters on."""
    done = project("unlearn", tmp_path, forget_pct="30")
    assert done.returncode != 0
    assert re.search(r"error: unknown parameter forget_pct='30': did you mean .*forget_percentage.*\n", done.stderr)
    assert [run.info.status for run in Results(tmp_path).runs()] == ["FAILED"]


def test_unlearn_before_train_names_the_command(entry: Command, tmp_path: Path, small_digits: Path) -> None:
    """Catches an empty store that is answered with a traceback."""
    for name in ("unlearn", "attack"):
        done = entry(name, tmp_path, data_dir=str(small_digits))
        assert done.returncode == 2
        assert f"run `{sys.executable} -m entrypoints.train --data_dir {small_digits}` first" in done.stderr
    done = entry("compare", tmp_path)
    assert f"run `{sys.executable} -m entrypoints.unlearn` first" in done.stderr


def figures(folder: Path) -> dict[tuple[str, ...], dict[str, float]]:
    """Every metric but times, by what the run is."""
    found = {}
    for run in Results(folder).runs():
        key = tuple(run.data.tags.get(tag, "") for tag in ("stage", "role", "seed", "method"))
        found[key] = {name: value for name, value in run.data.metrics.items() if "time/" not in name}
    return found


def test_figures_do_not_depend_on_the_number_of_workers(entry: Command, tmp_path: Path, small_digits: Path) -> None:
    """Catches results that depend on scheduling, on what ran before, or on anything but seed and inputs."""
    found = []
    for workers in ("1", "2"):
        folder = tmp_path / workers
        folder.mkdir()
        done = entry("main", folder, data_dir=str(small_digits), workers=workers, **FAST | {"n_epochs": "2"})
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(figures(folder))
    assert found[0] == found[1]
    assert len(found[0]) == 2 + 2 * 10 + 6


def test_help_lists_every_parameter_at_once() -> None:
    """Catches help that waits for torch, or a parameter that it leaves out."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "entrypoints.unlearn", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "--forget_percentage" in done.stdout
    assert "| torch" not in done.stderr
    assert "| mlflow" not in done.stderr


def test_a_comparison_does_without_torch(
    chain: Results, entry: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an import that makes every comparison and report a second longer."""
    shutil.copy(chain.folder / "mlflow.db", tmp_path)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    done = entry("compare", tmp_path, pipeline="logmel")
    assert "| naive" in done.stdout
    assert "report: " in done.stdout
    assert re.search(r"\| +mlflow\n", done.stderr)  # so that what follows can be seen at all
    assert not re.search(r"\| +torch\n", done.stderr)


def test_real_speech_through_the_project(project: Command, real_speech: Path, tmp_path: Path) -> None:
    """Catches a chain that works on synthetic digits alone."""
    done = project(
        "main", tmp_path, dataset="audioMNIST", data_dir=str(real_speech / "audiomnist_layout"), pipeline="logmel",
        optimizer="adam", learning_rate="0.001", batch_size="64", n_epochs="5", n_epoch_repair="1", seeds="40",
        methods="naive,pop",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = Results(tmp_path)
    original = results.methods()["original", "40"].data.metrics
    assert original["test/accuracy"] > 0.6
    (parent,) = results.runs("tags.stage = 'unlearn' and tags.role = 'parent'")
    assert parent.data.metrics["request/n_forget"] == 144
