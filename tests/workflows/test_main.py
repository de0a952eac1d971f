"""What a command leaves where people look: the last block on the console, the first run in the UI, refusals."""

from __future__ import annotations

import json
import re
import subprocess

from audio_mu.report.answer import WIDTH
from audio_mu.report.tables import SHOWN
from tests.answered import Answered
from tests.commands import own_environment
from tests.conftest import Command

P2 = {"forget": "speaker", "forget_speakers": "p2"}


def status(answered: Answered, run: str) -> str:
    return answered.query("select status from runs where run_uuid = ?", run)[0][0]


def test_a_refused_registration_leaves_the_work_finished_and_a_command_that_goes_on(
    answered: Answered, entry: Command
) -> None:
    """Catches FAILED above finished work, a refusal without its reason or way on, and an answer in the middle."""
    done = entry("main", answered.folder, **answered.parameters, **P2, methods="naive,fine_tune", register="best")
    assert done.returncode == 2
    (run,) = answered.runs(stage="main")
    assert status(answered, run) == "FINISHED"
    assert answered.tags(run)["registration_refused"].startswith("fine_tune, ")
    assert done.stderr.count("\n") == 1, done.stderr
    error = done.stderr.strip()
    sentence, _, command = error.removeprefix("error: ").partition("; go on with ")
    assert sentence.startswith(
        "register='best' is refused: no method meets the rule, of 1 compared; highest ToW: fine_tune"
    )
    assert len(sentence.split()) <= 30
    asked, near, step, how = done.stdout.splitlines()[-4:]
    assert asked.startswith("asked: forget speaker-p2, ") and near.startswith("near naive: ")
    assert step == "next: to answer this request, put naive, the retrained model, into service:"
    assert how.strip() == command.strip("`")
    assert max(map(len, (asked, near, step))) <= WIDTH
    compared = done.stdout.partition("\nunlearning speaker-p2")[2]  # what `train` says before has no other place
    shown = [line for line in compared.splitlines() if line.startswith(("|", "note: "))]
    assert shown and max(map(len, shown)) <= WIDTH
    environment = own_environment(answered.folder / "cache")
    pasted = subprocess.run(
        ["bash", "-c", how], cwd=answered.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert pasted.returncode == 0, pasted.stderr
    assert re.search(r"in service: seed 40, .* test accuracy \d\.\d{3} → \d\.\d{3}, naive", pasted.stdout)
    assert "reusing 2 finished runs" in pasted.stdout


def test_the_run_that_people_open_first_tells_the_answer(answered: Answered) -> None:
    """Catches a run of `main` without words, figures or recordings, and an experiment that the UI takes for another."""
    answered.run("main", **P2, methods="naive,fine_tune")
    (run,) = answered.runs(stage="main")
    note = answered.tags(run)["mlflow.note.content"]
    assert "To be forgotten: " in note and "request speaker-p2" in note
    metrics = dict(answered.query("select key, value from latest_metrics where run_uuid = ?", run))
    assert {"original/forget/accuracy", "naive/test/accuracy", "fine_tune/gap/tow"} <= metrics.keys()
    assert len(metrics) <= 20
    assert answered.query("select count(*) from inputs where destination_id = ?", run) == [(1,)]
    kinds = "select value from experiment_tags where key = 'mlflow.experimentKind'"
    assert answered.query(kinds) == [("custom_model_development",)]


def test_the_comparison_is_a_table_of_the_ui(answered: Answered) -> None:
    """Catches a comparison that the UI offers as a download alone, or without the verdicts."""
    answered.run("compare")
    (run,) = answered.runs(stage="compare")
    assert json.loads(answered.tags(run)["mlflow.loggedArtifacts"]) == [{"path": "comparison.json", "type": "table"}]
    table = json.loads((answered.place(run) / "comparison.json").read_text())
    assert {"method", "forget/accuracy", "verdict"} <= {*table["columns"]}
    assert len(table["data"]) == 2
    metrics = [key for (key,) in answered.query("select key from metrics where run_uuid = ? order by rowid", run)]
    assert metrics[:3] == [f"original/{name}/accuracy" for name in ("forget", "remain", "test")]  # as the UI lists them
    shown = [metric for metric in metrics if metric.partition("/")[2] in SHOWN]
    assert metrics[: len(shown)] == shown and len(shown) < len(metrics)


def test_versions_tell_their_test_accuracy(answered: Answered) -> None:
    """Catches a list of versions that tells base models and unlearned ones apart by nothing."""
    told = dict(answered.query("select version, value from model_version_tags where key = 'test_accuracy'"))
    assert len(told) == answered.query("select count(*) from model_versions")[0][0] == 2
    assert all(re.fullmatch(r"[01]\.\d{3}", value) for value in told.values())


def test_a_refused_command_names_its_run_and_the_reason(answered: Answered, project: Command) -> None:
    """Catches a FAILED run with an invented name and nothing that says why, where `mlflow run` has made it."""
    done = project("train", answered.folder, n_epochs="none")
    assert done.returncode != 0
    (run,) = answered.query("select run_uuid, name, status from runs where name like 'train refused'")
    assert run[2] == "FAILED"
    assert answered.tags(run[0])["failed_reason"].startswith("n_epochs='none' is not allowed")
