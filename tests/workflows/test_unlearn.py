"""Unlearning in two passes: results alone as they come, then the distances to naive; and what its runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Command
from tests.finished_store import Results

SEED = {"seeds": "40"}


@pytest.fixture(scope="module")
def alone(entry: Command, small_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A store in which a request was unlearned by methods other than naive."""
    folder = tmp_path_factory.mktemp("alone")
    data = {**SEED, "data_dir": str(small_digits)}
    settings = folder / "methods.yaml"
    settings.write_text("scrub: {alpha: 0.25, epochs: 1}\ngradient_ascent: {n_epoch_impair: 2}\n")
    methods = {"methods": "gradient_ascent,scrub", "n_epoch_repair": "1", "method_config": str(settings)}
    for name, parameters in (
        ("train", {"n_epochs": "1", "batch_size": "16"}),
        ("attack", {"n_attack_models": "1"}),
        ("unlearn", methods),
    ):
        done = entry(name, folder, **data, **parameters)
        assert done.returncode == 0, done.stdout + done.stderr
    return Results(folder)


def test_without_naive_there_are_no_distances(alone: Results) -> None:
    """Catches a distance, a gap or a speed-up of 0 where nothing was compared."""
    for run in alone.methods().values():
        assert not [name for name in run.data.metrics if name.startswith(("distance/", "gap/", "time/speedup"))]
        per_clip = pd.read_csv(alone.artifact(run, "audit/per_clip.csv"))
        assert per_clip[["js", "activation"]].isna().all(axis=None)


def test_a_run_logs_the_parameters_that_were_in_force(alone: Results) -> None:
    """Catches `auto` instead of the rate that was trained with, and parameters of other steps or other requests."""
    runs = alone.methods()
    ascent, scrub = runs["gradient_ascent", "40"].data.params, runs["scrub", "40"].data.params
    assert (ascent["n_epoch_impair"], ascent["n_epoch_repair"]) == ("2", "1")
    assert float(ascent["repair_learning_rate"]) > 0
    assert (scrub["method.alpha"], scrub["method.epochs"], scrub["method.msteps"]) == ("0.25", "1", "3")
    for params in (ascent, scrub):
        assert (params["forget"], params["forget_percentage"], params["n_epochs"]) == ("item", "10", "1")
        assert not {"forget_speakers", "forget_classes_num", "n_trials", "n_attack_models", "force"} & set(params)
    assert json.loads(runs["scrub", "40"].data.tags["repair"])["n_epoch_repair"] == "1"
    assert "n_epoch_impair" not in runs["original", "40"].data.params


def test_naive_gives_earlier_runs_their_distances(alone: Results, entry: Command, small_digits: Path) -> None:
    """Catches runs of an earlier command that stay without distances once naive is there, and a second set of runs."""
    before = {key: run.info.run_id for key, run in alone.methods().items()}
    settings = {"n_epoch_repair": "1", "method_config": str(alone.folder / "methods.yaml")}
    done = entry("unlearn", alone.folder, **SEED, data_dir=str(small_digits), methods="naive,scrub", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reusing 2 finished runs of this cell" in done.stdout
    after = alone.methods()
    assert {key: after[key].info.run_id for key in before} == before
    naive = after["naive", "40"]
    for (method, _), run in after.items():
        if method == "naive":
            continue
        gap = run.data.metrics["forget/accuracy"] - naive.data.metrics["forget/accuracy"]
        assert run.data.metrics["gap/forget_accuracy"] == pytest.approx(gap, abs=1e-12)
        assert run.data.metrics["distance/js"] >= 0
        per_clip = pd.read_csv(alone.artifact(run, "audit/per_clip.csv"))
        forget = per_clip[per_clip["role"] == "forget"]
        assert forget["js"].mean() == pytest.approx(run.data.metrics["distance/js"], rel=1e-5)


def test_a_given_value_contradicts_even_where_it_is_the_default(
    alone: Results, entry: Command, small_digits: Path
) -> None:
    """Catches a value of the user that is taken for a default because it is one: the recipe's 10 epochs, after 1."""
    done = entry("unlearn", alone.folder, **SEED, data_dir=str(small_digits), n_epochs="10")
    assert done.returncode == 2
    assert done.stderr.startswith("error: n_epochs=10 contradicts the base models of ")
    done = entry("unlearn", alone.folder, **SEED, data_dir=str(small_digits), split_seed="42", methods="scrub",
                 n_epoch_repair="1", method_config=str(alone.folder / "methods.yaml"))  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_undeclared_parameters_pass_through_mlflow_run(alone: Results, project: Command, small_digits: Path) -> None:
    """Catches an undeclared parameter that `mlflow run` loses, and a misspelt one that it takes."""
    given = {**SEED, "data_dir": str(small_digits), "methods": "scrub", "n_epoch_repair": "1"}
    settings = str(alone.folder / "methods.yaml")
    done = project("unlearn", alone.folder, **given, method_config=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reusing 2 finished runs of this cell" in done.stdout + done.stderr
    done = project("unlearn", alone.folder, **given, metod_config=settings)
    assert done.returncode != 0
    assert "error: unknown parameter metod_config=" in done.stderr
    assert "did you mean method_config?" in done.stderr
