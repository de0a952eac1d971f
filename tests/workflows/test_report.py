"""The report and the evidence record of a request, on a real store."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from audio_mu.compute.pool import LocalEngine
from tests.answered import Answered
from tests.conftest import FAST, Command
from tests.finished_store import Results


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, entry: Command, small_digits: Path) -> Results:
    """A finished chain of two methods."""
    folder = tmp_path_factory.mktemp("reported")
    done = entry("main", folder, data_dir=str(small_digits), **FAST, methods="naive,omp")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return Results(folder)


def report_of(chain: Results, run: object) -> str:
    """The page that a comparison has written."""
    (entry,) = chain.client.list_artifacts(run.info.run_id, "report")
    return chain.artifact(run, entry.path).read_text()


def test_compare_writes_the_report_and_descriptions(chain: Results) -> None:
    """Catches a report that is missing, too large, without sound, or of other figures; and blank descriptions."""
    run = chain.runs("tags.stage = 'compare'")[-1]
    page = report_of(chain, run)
    assert len(page) < 10_000_000
    assert page.count("data:audio/wav") > 5
    table = pd.read_csv(chain.artifact(run, "comparison.csv"))
    row = table[(table["method"] == "omp") & (table["metric"] == "forget/accuracy")].iloc[0]
    assert f">{100 * row['mean']:.1f}<span" in page
    size = re.search(r"To be forgotten: (\d+) of (\d+) training recordings \(1\d\.\d %", page)
    assert size is not None
    assert int(size[1]) == -(-int(size[2]) // 10)
    assert f"To be forgotten: {size[1]} of {size[2]}" in run.data.tags["mlflow.note.content"]
    tags = chain.client.get_experiment("0").tags
    assert tags["mlflow.note.content"].startswith("# audio-mu")
    assert run.data.tags["cell"] in tags["mlflow.sharedViewState.audio-mu"]
    assert "viewStateShareKey=audio-mu" in (chain.folder / "output.txt").read_text()
    for method in chain.methods().values():
        assert method.data.tags["mlflow.note.content"]
    assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["SyntheticDigits"]


def test_report_of_a_chosen_request_and_method(chain: Results, entry: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a record of another cell or method, recordings in a report that was to hold none."""
    monkeypatch.setenv("AUDIO_MU_REPORT_AUDIO", "0")
    done = entry("report", chain.folder, seeds="40,41", methods="omp", n_epoch_repair="1")
    assert done.returncode == 0, done.stdout + done.stderr
    newest = chain.runs("tags.stage = 'report'")[0]
    evidence = chain.artifact(newest, "evidence.md").read_text()
    assert evidence.startswith("# Evidence record: omp,")
    assert "| versions after | not registered |" in evidence
    (compared,) = chain.runs(f"tags.`mlflow.parentRunId` = '{newest.info.run_id}'")
    assert "data:audio" not in report_of(chain, compared)
    done = entry("report", chain.folder, seeds="40,41", forget_percentage="77")
    assert done.returncode == 2
    assert "no finished unlearning" in done.stderr
    assert "forget_percentage=77" in done.stderr
    done = entry("report", chain.folder, seeds="40,41", methods="pop")
    assert done.returncode == 2
    assert "'pop' has no finished run" in done.stderr


def test_a_named_class_is_found_again(chain: Results, entry: Command, small_digits: Path) -> None:
    """Catches a request that is looked for by parameters which its runs do not read, and so do not log."""
    asked = {"seeds": "40", "methods": "omp", "forget": "class", "forget_class_names": "3"}
    done = entry("unlearn", chain.folder, data_dir=str(small_digits), n_epoch_repair="1", **asked)
    assert done.returncode == 0, done.stdout + done.stderr
    done = entry("report", chain.folder, **asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "omp is not judged: there is no retrained model (naive) to compare with." in done.stdout
    _shows_classes(chain, "3")
    # A store of an earlier version has none of it.
    for run in chain.runs("tags.stage = 'unlearn' and tags.role = 'method' and tags.request = 'class-3'"):
        for name in ("per_class.csv", "confusion.csv"):
            chain.artifact(run, f"audit/{name}").unlink()
    with closing(sqlite3.connect(chain.folder / "mlflow.db")) as database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE key LIKE '%macro_f1' OR key LIKE '%worst_class_accuracy'")
        database.execute("DELETE FROM tags WHERE key LIKE 'worst_class_%'")
        database.commit()
    for command in ("compare", "report"):
        done = entry(command, chain.folder, **asked)
        assert done.returncode == 0, done.stdout + done.stderr
        newest = chain.runs("tags.stage = 'compare'")[0]
        assert 'id="by-class"' not in report_of(chain, newest)


def _shows_classes(chain: Results, removed: str) -> None:
    """Catches classes that are measured and not shown, and a removed class whose new names nobody learns."""
    newest = chain.runs("tags.stage = 'compare'")[0]
    page, long = report_of(chain, newest), pd.read_csv(chain.artifact(newest, "comparison.csv"))
    assert 'id="by-class"' in page and 'id="called-now"' in page
    wanted = {f"{name}/{figure}" for name in ("forget", "test") for figure in ("macro_f1", "worst_class_accuracy")}
    assert wanted <= set(long["metric"])
    assert "### Classes" in chain.artifact(newest, "comparison.md").read_text()
    run = chain.runs("tags.method = 'omp' and tags.request = 'class-3'")[0]
    classes = pd.read_csv(chain.artifact(run, "audit/per_class.csv"), dtype={"class": str})
    forget, test = (classes[classes["set"] == name] for name in ("forget", "test"))
    assert forget["class"].tolist() == [removed] and removed not in test["class"].tolist()
    assert test["f1"].mean() == pytest.approx(run.data.metrics["test/macro_f1"])
    assert test["accuracy"].min() == run.data.metrics["test/worst_class_accuracy"]
    assert run.data.tags["worst_class_forget"] == f"{removed} ({forget['n'].iloc[0]} recordings)"
    base = chain.runs("tags.stage = 'train' and tags.role = 'seed'")[0]
    assert set(pd.read_csv(chain.artifact(base, "per_class.csv"))["set"]) == {"train", "test"}
    assert base.data.metrics["train/macro_f1"] > 0


def evidence_of(store: Answered, stage: str) -> str:
    """The newest evidence record that a command of this kind has written."""
    run = store.runs(stage=stage, role="parent")[-1]
    return (store.place(run) / "evidence.md").read_text()


def test_the_record_is_of_what_is_in_service_with_its_audits(tmp_path: Path) -> None:
    """Catches evidence of a method that failed where naive is in service, and audits that only `compare` makes."""
    request = {"forget": "speaker", "forget_speakers": "p1", "seeds": "40,41,42"}
    with LocalEngine(1) as engine:
        store = Answered.new(tmp_path / "project", engine)
        store.run("train", seeds="40,41,42")
        store.run("attack", seeds="40,41,42")
        store.run("unlearn", methods="naive,fine_tune", register="naive", **request)
        registered = evidence_of(store, "unlearn")
        assert "RMIA, an attack with retrained models as references" in registered
        assert "naive was asked for by name; 1 method was compared with naive" in registered
        said = store.run("report", **request)
        assert "naive is the target itself" in said
        record = evidence_of(store, "report")
        assert "naive has answered the request" in record
        assert "| versions after | seed 40: 4, seed 41: 5, seed 42: 6 |" in record
        assert re.search(r"(\n|decide otherwise: )fine_tune ", store.run("report", methods="fine_tune", **request))
        other = evidence_of(store, "report")
        assert "U-LiRA reaches an AUC of" in other
        assert "retrained models of two seeds" in other
        assert "| versions after | not registered |" in other
        assert "left out" not in other


def test_audits_that_are_missing_are_listed(answered: Answered) -> None:
    """Catches a record that lacks RMIA, U-LiRA and the floor without a word."""
    record = evidence_of(answered, "unlearn")
    assert "U-LiRA left out: needs 3 seeds with naive, has 1." in record
    assert "The retrain-against-retrain floor left out: needs 2 seeds" in record
    assert "More seeds make them: \\`-e train\\`, \\`-e attack\\` and \\`-e unlearn\\` with seeds=40,41,42." in record


def test_a_rate_is_written_once_and_without_the_dust_of_binary(answered: Answered) -> None:
    """Catches 9.999999999999999e-05 for 0.0001, and a published rate beside the one that a method has trained with."""
    answered.run("attack")
    answered.run("unlearn", forget="speaker", forget_speakers="p2", methods="amnesiac,salun")
    answered.run("compare")
    run = answered.runs(stage="compare", role="parent")[-1]
    page = next((answered.place(run) / "report").glob("*.html")).read_text()
    assert "impair_learning_rate 0.0001" in page and "999999" not in page
    assert "impair_learning_rate 0.001, epochs 10, mask_share 0.5" in page
    assert "One seed, one model of each method: no figure has an interval" in page
