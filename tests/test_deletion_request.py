"""A deletion request from beginning to end, on a real store: answered, followed by another one, erased."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from audio_mu.compute.pool import LocalEngine
from audio_mu.config import Config
from audio_mu.data.clips import load_clips
from audio_mu.errors import UserError
from audio_mu.store.connect import open_store
from audio_mu.unlearning import METHODS
from audio_mu.workflows.attack import attack
from audio_mu.workflows.checks import check
from audio_mu.workflows.compare import compare
from audio_mu.workflows.erase import erase
from audio_mu.workflows.train import train
from audio_mu.workflows.unlearn import unlearn

NAME = "audio-mu.SyntheticDigits.logmel.Flat"
OWN = """
from torch import nn
from audio_mu.unlearning import method


class Flat(nn.Module):
    def __init__(self, n_classes, input_shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], n_classes))

    def forward(self, features):
        return self.layers(features)


@method(reads={"remain"})
def again(task):
    \"\"\"Retrain, under a name that says nothing of it.\"\"\"
    return task.retrain("remain")
"""
A, B = "03", "04"
WORK = {"train": train, "attack": attack, "unlearn": unlearn, "compare": compare, "erase": erase}


@dataclass(frozen=True)
class Chain:
    """A store with a comparison of items, speaker A answered, speaker B answered after it, and models trained since."""

    folder: Path
    cache: Path
    parameters: dict[str, str]
    engine: LocalEngine
    requests: dict[str, str]

    def run(self, stage: str, **parameters: str) -> str:
        """Run a workflow as its entry point does, all with one pool of workers; return what it prints."""
        config = Config.from_text({**self.parameters, **parameters})
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{self.folder / 'mlflow.db'}")
            patch.chdir(self.folder)
            check(config)
            work, store = WORK[stage], open_store()
            work(config, store, self.engine) if stage in ("train", "unlearn") else work(config, store)
        return output.getvalue()

    def query(self, sql: str, *values: str) -> list[tuple]:
        with closing(sqlite3.connect(self.folder / "mlflow.db", timeout=60)) as database:
            return database.execute(sql, values).fetchall()

    def runs(self, **tags: str) -> list[str]:
        """Ids of the runs with these tags, the oldest first."""
        found = [run for (run,) in self.query("select run_uuid from runs order by start_time")]
        return [run for run in found if tags.items() <= self.tags(run).items()]

    def tags(self, run: str) -> dict[str, str]:
        return dict(self.query("select key, value from tags where run_uuid = ?", run))

    def metrics(self, run: str) -> dict[str, float]:
        return dict(self.query("select key, value from latest_metrics where run_uuid = ?", run))

    def artifact(self, run: str, path: str) -> Path:
        return self.folder / "mlruns" / "0" / run / "artifacts" / path

    def table(self, run: str, path: str) -> pd.DataFrame:
        return pd.read_csv(self.artifact(run, path), dtype=str, keep_default_na=False)

    def entry(self, request: str) -> str:
        (run,) = self.runs(stage="ledger", request=request)
        return run

    def recordings(self, request: str) -> pd.DataFrame:
        return self.table(self.entry(request), "recordings.csv")

    def aliases(self) -> dict[str, int]:
        return dict(self.query("select alias, version from registered_model_aliases where name = ?", NAME))

    def version_tags(self, version: int) -> dict[str, str]:
        return dict(self.query("select key, value from model_version_tags where version = ?", str(version)))


def wrongly_labelled(digits: Path, copy: Path) -> Path:
    """The same recordings, speaker A's under the next digit: who holds them is told from who does not."""
    shutil.copytree(digits, copy)
    for path in sorted((copy / A).glob("*.wav")):
        digit, rest = path.name.split("_", 1)
        path.rename(path.with_name(f"next{(int(digit) + 1) % 10}_{rest}"))
    for path in (copy / A).glob("next*.wav"):
        path.rename(path.with_name(path.name.removeprefix("next")))
    return copy


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, small_digits: Path) -> Iterator[Chain]:
    top = tmp_path_factory.mktemp("ledger")
    folder, cache = top / "store", top / "cache"
    folder.mkdir()
    (top / "own.py").write_text(OWN)
    parameters = {
        "data_dir": str(wrongly_labelled(small_digits, top / "digits")), "architecture": f"{top}/own.py:Flat",
        "seeds": "40", "n_epochs": "8", "batch_size": "16", "n_epoch_repair": "1", "n_attack_models": "1",
        "workers": "1",
    }  # fmt: skip
    known = dict(METHODS)
    with pytest.MonkeyPatch.context() as patch, LocalEngine(1) as engine:
        patch.setenv("AUDIO_MU_CACHE", str(cache))
        made = Chain(folder, cache, parameters, engine, {})
        made.run("train")
        made.run("attack")
        made.run("unlearn", forget_percentage="30", methods="naive,fine_tune")
        again = f"naive,fine_tune,{top}/own.py:again"
        made.run("unlearn", forget="speaker", forget_speakers=A, methods=again, register="again")
        made.run("attack")
        # Killed between the aliases and the ledger, the same command must finish it.
        second = {"forget": "speaker", "forget_speakers": B, "methods": "naive,fine_tune", "register": "naive"}
        with pytest.MonkeyPatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr("audio_mu.workflows.register.enter", Mock(side_effect=KeyboardInterrupt))
            made.run("unlearn", **second)
        made.run("unlearn", **second)
        made.run("train")
        made.run("compare")
        requests = {name: made.tags(made.entry(f"speaker-{name}"))["request_hash"] for name in (A, B)}
        yield replace(made, requests=requests)
    METHODS.clear()
    METHODS.update(known)


def test_the_ledger_says_what_was_answered(chain: Chain) -> None:
    """Catches an entry without its recordings, with other versions than those in service, or out of order."""
    tags = {name: chain.tags(chain.entry(f"speaker-{name}")) for name in (A, B)}
    assert [tags[A]["previous"], tags[B]["previous"]] == ["", tags[A]["request_hash"]]
    assert {tags[name]["state"] for name in tags} == {"answered"}
    assert tags[A]["answered_at"] < tags[B]["answered_at"]
    assert json.loads(tags[A]["versions_before"]) == {"40": "1"}
    assert json.loads(tags[A]["versions_after"]) == json.loads(tags[B]["versions_before"]) == {"40": "2"}
    assert json.loads(tags[B]["versions_after"]) == {"40": "3"}
    assert (tags[A]["method"], tags[B]["method"]) == ("again", "naive")
    assert chain.aliases() == {"seed-40": 4, "unlearned-seed-40": 3, "unlearned": 3}
    for name in (A, B):
        recordings = chain.recordings(f"speaker-{name}")
        run = chain.runs(stage="unlearn", method="naive", request=f"speaker-{name}")[0]
        assert set(recordings["speaker"]) == {name}
        assert recordings["clip_id"].tolist() == chain.table(run, "request.csv")["clip_id"].tolist()
        assert recordings["audio_hash"].tolist() == chain.table(run, "request.csv")["audio_hash"].tolist()


def test_the_second_request_starts_from_the_first_ones_answer(chain: Chain) -> None:
    """Catches a second request on the original model, an audit against a naive model that holds the first speaker."""
    (naive,) = chain.runs(stage="unlearn", method="naive", request=f"speaker-{B}")
    assert chain.tags(naive)["base_version"] == "2"
    assert not {A, B} & set(chain.table(naive, "losses/remain.csv")["speaker"])
    attack = chain.table(chain.tags(naive)["attack_run_id"], "mia_all_balanced.csv")
    first = set(chain.recordings(f"speaker-{A}")["clip_id"])
    assert not first & set(attack["clip_id"])
    earlier = f"earlier-speaker-{A}"
    for method in ("original", "naive", "fine_tune"):
        (run,) = chain.runs(stage="unlearn", method=method, request=f"speaker-{B}")
        losses = chain.table(run, f"losses/{earlier}.csv")
        assert set(losses["clip_id"]) == first
        metrics = chain.metrics(run)
        assert metrics[f"{earlier}/loss"] == pytest.approx(losses["loss"].astype(float).mean())
        assert 0 <= metrics[f"{earlier}/auc"] <= 1
        assert (f"gap/{earlier}_accuracy" in metrics) == (method != "naive")
    original, answer = chain.runs(stage="unlearn", method="original", request=f"speaker-{B}")[0], chain.runs(
        stage="unlearn", method="again", request=f"speaker-{A}")[0]  # fmt: skip
    assert chain.table(original, f"losses/{earlier}.csv")["loss"].tolist() == pytest.approx(
        chain.table(answer, "losses/forget.csv")["loss"].tolist()
    )


def test_train_leaves_out_every_answered_request(chain: Chain) -> None:
    """Catches recordings that are learnt again, and a split that moves the others to the other side."""
    first, last = chain.runs(stage="train", role="seed")
    before, after = (chain.table(run, "losses.csv").set_index("clip_id") for run in (first, last))
    gone = {id_ for name in (A, B) for id_ in chain.recordings(f"speaker-{name}")["clip_id"]}
    assert set(before.index) - set(after.index) == gone
    assert (before.loc[after.index, "member"] == after["member"]).all()
    assert (before.loc[sorted(gone), "member"] == "1").all()


def test_compare_shows_the_chain(chain: Chain) -> None:
    """Catches a chain in another order, of other figures, or without naive beside it."""
    (run,) = chain.runs(stage="compare")
    table = pd.read_csv(chain.artifact(run, "chain.csv"), dtype={"request": str})
    served = table[table["in_service"]]
    assert served["request"].tolist() == [f"speaker-{A}", f"speaker-{B}"]
    (answer,) = chain.runs(stage="unlearn", method="again", request=f"speaker-{A}")
    (tuned,) = chain.runs(stage="unlearn", method="fine_tune", request=f"speaker-{B}")
    (naive,) = chain.runs(stage="unlearn", method="naive", request=f"speaker-{B}")
    assert served["forget/accuracy"].iloc[0] == pytest.approx(chain.metrics(answer)["forget/accuracy"])
    row = table[(table["position"] == 2) & (table["method"] == "fine_tune")].iloc[0]
    figure = f"earlier-speaker-{A}/accuracy"
    assert row[figure] == pytest.approx(chain.metrics(tuned)[figure])
    assert row[f"naive/{figure}"] == pytest.approx(chain.metrics(naive)[figure])
    assert "## Requests one after another" in chain.artifact(run, "comparison.md").read_text()
    (page,) = chain.artifact(run, "report").iterdir()
    assert '<h2 id="chain">' in page.read_text()


def test_what_is_answered_is_said_and_can_be_taken_in_for_experiments(chain: Chain) -> None:
    """Catches a repeated request without an explanation, a served model that has learnt the recordings again."""
    with pytest.raises(UserError, match=rf"^{A} is answered already: request speaker-{A}, .*: there is nothing to do$"):
        chain.run("unlearn", forget="speaker", forget_speakers=A, methods="naive")
    left_out = f"answered requests are left out: speaker-{A}, speaker-{B}; ledger=ignore takes them in"
    with pytest.raises(UserError, match=left_out):
        chain.run("unlearn", forget="speaker", forget_speakers="nobody", methods="naive")
    experiment = {"seeds": "41", "ledger": "ignore"}
    chain.run("train", **experiment)
    chain.run("attack", **experiment)
    with pytest.raises(UserError, match="seed 41 was trained on recordings of answered requests"):
        chain.run("attack", seeds="41")
    other = {"forget": "speaker", "forget_speakers": B, "methods": "naive", "register": "naive"}
    with pytest.raises(UserError, match=f"recordings of the answered request speaker-{A}"):
        chain.run("unlearn", **experiment, **other)
    assert json.loads(chain.tags(chain.entry(f"speaker-{B}"))["versions_after"]) == {"40": "3"}


@dataclass(frozen=True)
class Erased:
    """The chain after speaker A was erased: by one command, and by one that was killed twice on the way."""

    chain: Chain
    before: dict[str, dict[str, float]]
    losses: str
    listed: str
    output: str
    whole: dict[str, Any]
    interrupted: dict[str, Any]
    features: np.ndarray


def state_of(chain: Chain) -> dict[str, Any]:
    """Everything in store and cache that is no erase command's own, without times of writing."""
    ours = set(chain.runs(stage="erase"))
    found: dict[str, Any] = {}
    for path in sorted(p for top in (chain.folder / "mlruns", chain.cache) for p in top.rglob("*") if p.is_file()):
        if ours & set(path.parts) or path.suffix == ".lock":
            continue
        if path.name == "erasure.json":
            record = json.loads(path.read_text())
            found[str(path)] = sorted(map(str, record["found"])), record.get("remains")
        elif path.suffix == ".npz":
            with np.load(path) as content:
                found[str(path)] = {name: content[name].tolist() for name in content.files}
        elif path.name != "erasure.md":
            found[str(path)] = path.read_bytes()
    times = "('erased_at', 'mlflow.user')"
    for name, sql in {
        "tags": f"select run_uuid, key, value from tags where key not in {times}",
        "metrics": "select run_uuid, key, value, step from metrics",
        "aliases": "select name, alias, version, '' from registered_model_aliases",
        "versions": "select name, version, current_stage, source from model_versions",
        "version tags": "select name, version, key, value from model_version_tags",
        "models": "select model_id, lifecycle_stage, '', '' from logged_models",
    }.items():
        found[name] = sorted(row for row in chain.query(sql) if row[0] not in ours)
    return found


def killed_when(chain: Chain, reached: Callable[[], bool], **parameters: str) -> None:
    """Start the erasure, and kill it as soon as it has got so far."""
    words = [word for key, value in parameters.items() for word in (f"--{key}", value)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{chain.folder / 'mlflow.db'}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "entrypoints.erase", *words],
        cwd=chain.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    while not reached():
        assert process.poll() is None, "it was over before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def erased(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Erased:
    backup = tmp_path_factory.mktemp("backup")
    asked = {"request": chain.requests[A][:10], "data_dir": chain.parameters["data_dir"], "confirm": "true"}
    unlearn = chain.runs(stage="unlearn", role="method")
    before = {run: chain.metrics(run) for run in unlearn}
    (items,) = chain.runs(stage="unlearn", method="naive", request="item-30")
    losses = chain.artifact(items, "losses/forget.csv").read_text()
    config = Config.from_text({"data_dir": chain.parameters["data_dir"]})
    clips = load_clips(config.data)
    features = clips.features.numpy()[np.isin(clips.ids, chain.recordings(f"speaker-{A}")["clip_id"])]
    untouched = state_of(chain)
    listed = chain.run("erase", **{**asked, "confirm": "false"})
    assert state_of(chain) == untouched
    tops = {name: chain.folder.parent / name for name in ("store/mlruns", "cache")}
    for name, top in tops.items():
        shutil.copytree(top, backup / name)
    shutil.copyfile(chain.folder / "mlflow.db", backup / "mlflow.db")
    output = chain.run("erase", **asked)
    whole = state_of(chain)
    for name, top in tops.items():
        shutil.rmtree(top)
        shutil.copytree(backup / name, top)
    shutil.copyfile(backup / "mlflow.db", chain.folder / "mlflow.db")
    own = chain.entry(f"speaker-{A}")
    killed_when(chain, lambda: chain.tags(own)["state"] == "erasing", **asked)
    half = chain.artifact(items, "losses/forget.csv")
    killed_when(chain, lambda: half.read_text() != losses, **asked)
    assert chain.tags(own)["state"] == "erasing"
    assert state_of(chain) != whole
    chain.run("erase", **asked)
    return Erased(chain, before, losses, listed, output, whole, state_of(chain), features)


def test_killed_in_the_middle_and_run_again_it_ends_in_the_same_state(erased: Erased) -> None:
    """Catches an erasure that forgets what a killed one has not done, or what that has removed."""
    assert set(erased.interrupted) == set(erased.whole)
    for name, content in erased.whole.items():
        assert erased.interrupted[name] == content, name


def test_nothing_names_the_recordings_but_the_ledger(erased: Erased) -> None:
    """Catches ids, audio hashes or features left in any file of the store or the caches."""
    chain = erased.chain
    own = chain.artifact(chain.entry(f"speaker-{A}"), "recordings.csv")
    recordings = chain.recordings(f"speaker-{A}")
    needles = [*recordings["clip_id"], *recordings["audio_hash"]]
    assert len(needles) > 40
    for path in (p for p in chain.folder.parent.rglob("*") if p.is_file() and p != own):
        data = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(path) as content:
                data += "\n".join(content["clip_id"]).encode()
        if path.name == "features.npy":
            rows = {row.tobytes() for row in np.load(path)}
            assert not rows & {row.tobytes() for row in erased.features}
        found = [needle for needle in needles if needle.encode() in data]
        assert not found, path
    record = json.loads(own.with_name("erasure.json").read_text())
    assert record["search_afterwards"]["found"] == []
    assert record["search_afterwards"]["artifacts"] > 50
    assert "found nothing but the ledger's entry" in erased.output


def test_models_that_hold_the_recordings_are_gone_and_the_others_stay(erased: Erased) -> None:
    """Catches a base or a sibling that still holds them, an attack in use, and a served model that was taken down."""
    chain = erased.chain
    assert chain.aliases() == {"unlearned-seed-40": 3, "unlearned": 3, "seed-40": 4}
    stages = dict(chain.query("select version, current_stage from model_versions where name = ?", NAME))
    deleted = {version for version, stage in stages.items() if stage == "Deleted_Internal"}
    assert deleted - {5} == {1}  # 5 is the experiment with ledger=ignore
    assert chain.version_tags(1) == {}
    kept = {run for (run,) in chain.query("select source_run_id from logged_models")}
    names = {
        (chain.tags(run).get("request", chain.tags(run)["stage"]), chain.tags(run).get("method", "")) for run in kept
    }
    assert names == {
        (f"speaker-{A}", "again"), (f"speaker-{A}", "naive"), (f"speaker-{B}", "naive"), (f"speaker-{B}", "fine_tune"),
        ("train", ""),
    }  # fmt: skip
    folders = {path.name for path in (chain.folder / "mlruns" / "0" / "models").iterdir() if any(path.iterdir())}
    assert folders == {model for (model,) in chain.query("select model_id from logged_models")}
    first, second, *_ = chain.runs(stage="attack")
    assert [chain.tags(run).get("retired") for run in (first, second)] == [chain.requests[A]] * 2  # A's held-out
    assert chain.metrics(first)["attack/balanced_accuracy"] > 0
    assert "attack models: would be removed, figures stay" in erased.listed


def test_other_figures_and_rows_are_as_they_were(erased: Erased) -> None:
    """Catches a figure that changed, or a row of another speaker that went or was written anew."""
    chain = erased.chain
    assert {run: chain.metrics(run) for run in erased.before} == erased.before
    gone = set(chain.recordings(f"speaker-{A}")["clip_id"])
    (items,) = chain.runs(stage="unlearn", method="naive", request="item-30")
    kept = [line for line in erased.losses.splitlines() if line.split(",")[0] not in gone]
    assert chain.artifact(items, "losses/forget.csv").read_text().splitlines() == kept
    assert 1 < len(kept) < len(erased.losses.splitlines())


def test_the_record_says_what_remains(erased: Erased) -> None:
    """Catches a record that hides what is still there, or that names the recordings itself."""
    chain = erased.chain
    page = chain.artifact(chain.entry(f"speaker-{A}"), "erasure.md").read_text()
    n = len(chain.recordings(f"speaker-{A}"))
    for words in (
        f"- {n} of the {n} recordings in {chain.parameters['data_dir']}: they are yours: delete them yourself",
        "- unlearned models of this request",
        f"request=speaker-{A}",
        "0 finds beside the ledger's entry",
    ):
        assert words in page
    assert "test recordings that match" not in page  # they went too
    assert chain.tags(chain.entry(f"speaker-{A}"))["state"] == "erased"
    assert sum(1 for _ in Path(chain.parameters["data_dir"]).glob(f"{A}/*.wav")) == 30


def test_the_store_works_on(erased: Erased) -> None:
    """Catches a comparison that fails on emptied lists, a split that moves, and erased recordings that are read."""
    chain = erased.chain
    before = chain.table(chain.runs(stage="compare")[0], "comparison.csv")
    shown = chain.run("compare")
    n = (chain.recordings(f"speaker-{A}")["forgotten"] == "True").sum()
    assert f"the {n} recordings of this request are erased: the figures are those logged before" in shown
    assert "recordings of this request are erased: audits across seeds" in shown  # of the items
    after = chain.table(chain.runs(stage="compare")[-1], "comparison.csv")
    logged = before["metric"].isin(["forget/accuracy", "test/loss", "mia/score", "gap/tow"])
    rows = ["cell", "method", "metric", "mean"]
    assert set(map(tuple, before.loc[logged, rows].to_numpy())) <= set(map(tuple, after[rows].to_numpy()))
    shown = chain.run("train")
    assert f"request speaker-{A} ({chain.requests[A][:8]}, erased): none of its recordings is read" in shown
    assert "reusing the base model" in shown  # the same recordings on the same sides
    test_nothing_names_the_recordings_but_the_ledger(erased)
    assert ": 0 finds" in chain.run("erase", request=chain.requests[A], confirm="true")
    own = "dataset_name=SyntheticDigits"
    listed = (
        f"{chain.requests[A][:8]} .speaker-{A}, erased, {own}., {chain.requests[B][:8]} .speaker-{B}, answered, {own}."
    )
    with pytest.raises(UserError, match=listed):
        chain.run("erase", request="0000")
    with pytest.raises(UserError, match="give 8 characters of the hash"):
        chain.run("erase", request=chain.requests[B][:7], confirm="true")
    with pytest.raises(UserError, match="names 0 answered requests with dataset_name='others'"):
        chain.run("erase", request=chain.requests[B], dataset_name="others", confirm="true")
