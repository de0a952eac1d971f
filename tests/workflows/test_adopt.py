"""Models that somebody else has trained, adopted as base models: all that follows is as if they were trained here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from audio_mu.models.waveform import network_state
from audio_mu.own_code import load
from audio_mu.store.weights import read_weights
from tests.answered import Answered
from tests.commands import ROOT
from tests.conftest import Command
from tests.servers import model_server

RECIPE = {"n_epochs": "6", "learning_rate": "0.001"}
OWN = """
import torch
from torch import nn


class Own(nn.Module):
    def __init__(self, n_classes, input_shape):
        super().__init__()
        channels, samples = input_shape
        self.normal = nn.BatchNorm1d(16)
        self.heard = nn.Conv1d(channels, 16, 64, stride=32)
        self.answer = nn.Linear(16, n_classes)

    def forward(self, waveforms):
        heard = self.normal(self.heard(waveforms)).relu()
        return self.answer(heard.mean(dim=2).view(waveforms.shape[0], -1))


class Shuffled(Own):
    def forward(self, waveforms):
        return super().forward(waveforms)[:, [2, 0, 1]]


class Branching(Own):
    def forward(self, waveforms):
        logits = super().forward(waveforms)
        return logits if logits.sum() > 0 else 2 * logits


class Counting(Own):
    def forward(self, waveforms):
        return super().forward(waveforms).view(len(waveforms), -1)
"""


@dataclass(frozen=True)
class Foreign:
    """A project in which a network was trained, its weights in a file, and the list of what it was trained on."""

    project: Answered
    weights: Path
    trained_on: Path

    @property
    def state(self) -> dict[str, Tensor]:
        return load_file(self.weights)

    @property
    def of_it(self) -> dict[str, str]:
        return {"weights": str(self.weights), "trained_on": str(self.trained_on)}

    def adopt(self, name: str, **parameters: str) -> str:
        """Adopt under another name of the data set."""
        return self.project.run("adopt", **{"dataset_name": name, **self.of_it, **parameters})

    def saved(self, name: str, state: Mapping[str, Tensor]) -> str:
        path = self.project.folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        return str(path)

    def refused(self, **parameters: str) -> str:
        """What an adoption is refused with, in one line, the store left as it was."""
        count = "select (select count(*) from runs), (select count(*) from tags)"
        before = self.project.query(count)
        with pytest.raises(UserError) as raised:
            self.adopt(**{"name": "refused", **parameters})
        assert before == self.project.query(count)
        assert "\n" not in str(raised.value)
        return str(raised.value)


def trained_elsewhere(project: Answered, **parameters: str) -> Foreign:
    """Train, and take the weights out of the store as a stranger would have them."""
    project.run("train", **parameters)
    run = project.runs(stage="train", role="seed")[-1]
    newest = max((project.folder / "mlruns").rglob("model.pt2"), key=lambda path: path.stat().st_mtime_ns)
    state = network_state(read_weights(newest))
    save_file(state, project.folder / "theirs.safetensors")
    torch.save({"epoch": 6, "state_dict": state}, project.folder / "theirs.pt")
    losses = project.table(run, "losses.csv")
    listed = project.folder / "training.csv"
    members = losses.loc[losses["member"] == "1", ["clip_id", "label"]]
    members.rename(columns={"clip_id": "id"}).to_csv(listed, index=False)
    return Foreign(project, project.folder / "theirs.safetensors", listed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Foreign, Path]]:
    """A network on logmel trained here, and a backup of the project."""
    top = tmp_path_factory.mktemp("foreign")
    with LocalEngine(1) as engine:
        foreign = trained_elsewhere(Answered.new(top / "project", engine), **RECIPE)
        foreign.project.save(top / "backup")
        yield foreign, top / "backup"


@pytest.fixture
def foreign(made: tuple[Foreign, Path]) -> Foreign:
    made[0].project.restore(made[1])
    return made[0]


def newest(project: Answered, **tags: str) -> str:
    return project.runs(**tags)[-1]


def figures(project: Answered, run: str) -> dict[str, float]:
    rows = project.query("select key, value from latest_metrics where run_uuid = ?", run)
    return {key: value for key, value in rows if not key.startswith("time/") and key != "gap/speedup"}


def test_an_adopted_model_is_as_one_that_was_trained_here(foreign: Foreign) -> None:
    """Catches other sides, logits, membership or retraining for weights that came from outside."""
    project = foreign.project
    said = foreign.adopt("again", **RECIPE)
    assert "adopted as base models of audio-mu.again.logmel.Flat" in said
    base = {name: newest(project, stage="train", role="seed", dataset_name=name) for name in ("tones", "again")}
    assert project.table(base["tones"], "losses.csv").equals(project.table(base["again"], "losses.csv"))
    for name in ("train", "test"):
        one, two = (np.load(project.place(run) / f"logits/{name}.npz") for run in base.values())
        assert (one["clip_id"] == two["clip_id"]).all()
        np.testing.assert_array_equal(one["logits"], two["logits"])
    tags = project.tags(base["again"])
    assert len(tags["adopted"]) == 64 and tags["adopted_from"] == str(foreign.weights)
    card = (project.place(base["again"]) / "model_card.md").read_text()
    assert "trained elsewhere" in card and str(foreign.weights) in card

    for name in ("tones", "again"):
        project.run("attack", dataset_name=name)
        request = {"forget": "speaker", "forget_speakers": "p1", "methods": "naive,fine_tune"}
        project.run("unlearn", dataset_name=name, **request)
    for method in ("original", "naive", "fine_tune"):
        one, two = (figures(project, newest(project, method=method, dataset_name=n)) for n in ("tones", "again"))
        assert one == two and len(one) >= 20


def test_a_speaker_is_removed_from_an_adopted_model(foreign: Foreign) -> None:
    """Catches an adopted base that cannot be answered from, served, trained beside, or erased."""
    project = foreign.project
    foreign.adopt("again", **RECIPE)
    theirs = replace(project, parameters={**project.parameters, "dataset_name": "again"})
    theirs.answer("p1")
    answered = {f"{name.rpartition('.')[2]}@{alias}" for name, alias, _ in project.aliases() if ".again." in name}
    assert answered == {"Flat@seed-40", "Flat@unlearned-seed-40", "Flat@unlearned"}
    record = (project.place(newest(project, stage="unlearn", role="parent")) / "evidence.md").read_text()
    assert "# Evidence record: naive, again, sides of trained_on, Flat on logmel" in record
    assert "the one before (trained elsewhere, and adopted), one model each, of one seed: their answers" in record
    assert "split by the sides of trained_on" in record and "split_seed" not in record
    assert "further trainings of the same model, adopted with \\`-e adopt -P weights=41=FILE,42=FILE\\`" in record
    told = theirs.run("erase", request=theirs.hash("p1"), dataset_name="again", confirm="true")
    assert str(foreign.weights) in told  # theirs to delete
    assert not any(".again." in name and alias == "seed-40" for name, alias, _ in project.aliases())
    theirs.run("train", seeds="41")
    later = newest(project, stage="train", role="seed", dataset_name="again")
    sides = {id_ for id_ in pd.read_csv(foreign.trained_on)["id"] if "/p1_" not in id_}
    assert project.trained(later) == sides


def test_training_replaces_an_adopted_model_only_with_force(foreign: Foreign) -> None:
    """Catches an adopted model whose place a network trained from scratch takes, because of the same seed."""
    project = foreign.project
    said = foreign.adopt("again", **RECIPE)
    assert "4 speakers; sides of trained_on: " in said
    before = project.aliases()
    for stage in ("train", "main"):
        with pytest.raises(UserError, match=r"has adopted models \(version 1 for seed 40\).* force=true to replace"):
            project.run(stage, dataset_name="again")
    assert project.aliases() == before
    said = project.run("train", dataset_name="again", force="true", n_epochs="1")
    assert "adopted models of audio-mu.again.logmel.Flat (version 1 for seed 40) are replaced" in said
    assert ("audio-mu.again.logmel.Flat", "seed-40", 2) in project.aliases()
    project.run("train", dataset_name="again", n_epochs="1")


def test_without_a_recipe_there_is_no_naive(foreign: Foreign) -> None:
    """Catches a retrained model by a recipe that nobody has given, and methods without it that are refused too."""
    bare = {k: v for k, v in foreign.project.parameters.items() if k not in ("n_epochs", "batch_size")}
    theirs = replace(foreign, project=replace(foreign.project, parameters={**bare, "dataset_name": "bare"}))
    said = theirs.adopt("bare")
    assert "no naive" in said and "n_epochs=… learning_rate=…" in said
    project = theirs.project
    project.run("attack")
    speaker = {"forget": "speaker", "forget_speakers": "p1"}
    for methods in ("study", "naive,fine_tune"):
        with pytest.raises(UserError, match=r"has naive, .*adopt .* again with n_epochs=… learning_rate=…"):
            project.run("unlearn", **speaker, methods=methods)
    with pytest.raises(UserError, match=r"tune trains .*adopt .* again"):
        project.run("tune", **speaker, methods="fine_tune")
    with pytest.raises(UserError, match=r"n_epochs was given, but .* adopted without a recipe"):
        project.run("unlearn", **speaker, methods="fine_tune", n_epochs="3")
    with pytest.raises(UserError, match=r"register='fine_tune' needs naive .*adopt .* again"):
        project.run("unlearn", **speaker, methods="fine_tune", register="fine_tune")
    project.run("unlearn", **speaker, methods="fine_tune")
    assert "no naive model in this cell" in project.run("compare")
    project.run("report", **speaker, methods="fine_tune")
    record = (project.place(newest(project, stage="report", role="parent")) / "evidence.md").read_text()
    assert "1 method was measured, without a naive to compare with" in record
    assert "| base training | elsewhere, in a way that is not known |" in record
    assert project.tags(newest(project, stage="train", role="seed"))["adopted"] in record
    run = newest(project, stage="train", role="seed", dataset_name="bare")
    assert "not known here" in (project.place(run) / "model_card.md").read_text()
    assert project.tags(run)["recipe_known"] == "false"


@pytest.mark.parametrize("form", [".pt", "models:/", "runs:/"])
def test_every_form_of_weights_is_the_same_model(foreign: Foreign, form: str) -> None:
    """Catches a form that is read differently: the hash of the weights and the fingerprint are the same."""
    project = foreign.project
    base = newest(project, stage="train", role="seed")
    places = {
        ".pt": str(foreign.weights.with_suffix(".pt")),
        "models:/": "models:/audio-mu.tones.logmel.Flat/1",
        "runs:/": f"runs:/{base}/model",
    }
    foreign.adopt("again", **RECIPE)
    said = foreign.adopt("again", **{**RECIPE, "weights": places[form]})
    assert "reusing the base model" in said


def test_a_waveform_network_for_two_seeds(foreign: Foreign, entry: Command) -> None:
    """Catches features where samples are wanted, a memory format that `view` fails in, and lost batch statistics."""
    project = foreign.project
    (project.folder / "wave.py").write_text(OWN)
    recipe = {"n_epochs": "12", "learning_rate": "0.02"}
    wave = {"architecture": f"{project.folder}/wave.py:Own", "pipeline": "waveform", **recipe}
    theirs = trained_elsewhere(project, **wave)
    order = theirs.refused(**{**wave, "architecture": f"{project.folder}/wave.py:Shuffled"})
    assert "not in the order of the classes (high, low, middle)" in order and "logits[:, [" in order
    for name in ("Branching", "Counting"):
        told = theirs.refused(**{**wave, "architecture": f"{project.folder}/wave.py:{name}"})
        assert "cannot be exported" in told and "not len(x)" in told
    both = {**wave, "weights": f"40={theirs.weights},41={theirs.weights.with_suffix('.pt')}"}
    given = {k: v for k, v in project.parameters.items() if k != "seeds"} | theirs.of_it
    environment = {**given, **both, "dataset_name": "outside"}
    done = entry("adopt", project.folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seeds=40,41" in done.stdout
    outside = replace(project, parameters={**project.parameters, **wave, "seeds": "40,41", "dataset_name": "outside"})
    outside.answer("p1")
    served = max((project.folder / "mlruns").rglob("model.pt2"), key=lambda path: path.stat().st_mtime_ns)
    answers = torch.export.load(served).module()(torch.zeros(5, 8_000))
    assert answers.shape == (5, 3) and answers.isfinite().all()


def test_a_speaker_is_removed_from_others_model_of_real_words_and_it_is_served(
    tmp_path: Path, real_speech: Path
) -> None:
    """Catches an unlearned version of an adopted model that is served with other weights, samples or names of classes
    than its class has: the answers to a recording are those of the class itself, outside of the store."""
    words, people = ("down", "right", "stop"), [f"{number:08}" for number in range(1, 7)]
    for word in words:
        (tmp_path / "words" / word).mkdir(parents=True)
        for person in people:
            for path in (real_speech / "arabic_commands_folder" / word).glob(f"{person}_*.flac"):
                shutil.copy(path, tmp_path / "words" / word)
    script = ROOT / "experiments" / "outside.py"
    subprocess.run([sys.executable, str(script), "words", "0"], cwd=tmp_path, check=True)
    weights = tmp_path / "without-nobody-0.safetensors"
    with LocalEngine(1) as engine:
        project = replace(
            Answered.new(tmp_path / "project", engine),
            parameters={
                "dataset": "folder", "dataset_name": "words", "data_dir": str(tmp_path / "words"),
                "clip_seconds": "1", "speaker_pattern": r"(\d+)_", "pipeline": "waveform",
                "architecture": f"{script}:Commands", "seeds": "40", "n_epochs": "25", "batch_size": "32",
                "optimizer": "adam", "learning_rate": "0.003", "n_attack_models": "1", "workers": "1",
            },
        )  # fmt: skip
        project.run("adopt", weights=str(weights), trained_on=str(tmp_path / "training.csv"))
        project.answer(people[2])
    newest_model = max((project.folder / "mlruns").rglob("model.pt2"), key=lambda path: path.stat().st_mtime_ns)
    state = network_state(read_weights(newest_model))
    assert not torch.equal(state["answer.weight"], load_file(weights)["answer.weight"])  # the adopted ones
    network = load(f"{script}:Commands")(len(words)).eval()
    network.load_state_dict(state)
    run = newest(project, stage="unlearn", role="method", method="naive")
    with np.load(project.place(run) / "logits" / "test.npz") as stored:
        clip, logits = str(stored["clip_id"][0]), stored["logits"][0]
    sound = soundfile.read(tmp_path / "words" / clip, dtype="float32")[0]
    soundfile.write(tmp_path / "recording.wav", sound, 16_000)
    with torch.no_grad():
        own = network(torch.from_numpy(sound)[None, None])[0]
    np.testing.assert_allclose(own.numpy(), logits, atol=1e-4)

    name, database = "audio-mu.words.waveform.Commands", f"sqlite:///{project.database}"
    asked = [sys.executable, "-m", "audio_mu.ask"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": database}
    with model_server(f"models:/{name}@unlearned", database, tmp_path / "serve.txt") as url:
        done = subprocess.run(
            [*asked, url, "recording.wav"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
    shares = own.double().softmax(dim=0)
    told = ", ".join(f"{words[i]} {shares[i]:.3f}" for i in shares.argsort(descending=True).tolist())
    assert done.stdout.splitlines()[-1] == f"recording.wav: {told}"


def test_what_cannot_be_adopted_is_told_in_one_line(foreign: Foreign) -> None:
    """Catches a traceback, or a store that is written, for a file, a list or a name that does not fit."""
    folder, state = foreign.project.folder, foreign.state
    (first, weight), *_ = state.items()
    (folder / "none.safetensors").write_bytes(b"nothing")
    torch.save(torch.nn.Linear(2, 2), folder / "code.pt")
    (folder / "all.csv").write_text("id\n" + "\n".join(sorted(foreign.project.ids("p1"))) + "\nlow/p9_0.wav\n")
    everything = [f"{path.relative_to(folder / 'recordings')}" for path in (folder / "recordings").rglob("*.wav")]
    (folder / "whole.csv").write_text("path\n" + "\n".join(everything))
    damaged = {name: value.clone() for name, value in state.items()}
    damaged[first].view(-1)[0] = float("nan")
    cases = {
        "is not a file": {"weights": "nowhere.safetensors"},
        "is damaged, or no file of weights": {"weights": str(folder / "none.safetensors")},
        "without running code": {"weights": str(folder / "code.pt")},
        "cannot be read from this store": {"weights": "models:/nobody/3"},
        f"lacks {first!r}": {"weights": foreign.saved("less", {n: v for n, v in state.items() if n != first})},
        "has 'more' (of 1)": {"weights": foreign.saved("more", {**state, "more": weight.clone()})},
        f"{first!r} has the shape": {"weights": foreign.saved("shape", {**state, first: torch.zeros(2, 2)})},
        "holds NaN": {"weights": foreign.saved("nan", damaged)},
        "several models": {"weights": f"{foreign.weights},{foreign.weights}x"},
        "is one model": {"seeds": "40,41"},
        "adopt needs weights": {"weights": ""},
        "adopt needs trained_on": {"trained_on": ""},
        "1 recording of 13 unknown (line 14 'low/p9_0.wav')": {"trained_on": str(folder / "all.csv")},
        "names 48 of 48 recordings": {"trained_on": str(folder / "whole.csv")},
        "-P split=random": {"split": "official"},
        "has some recordings of": {"split": "speaker"},
    }
    for words, parameters in cases.items():
        assert words in foreign.refused(**parameters)
    ids = pd.read_csv(foreign.trained_on)["id"]
    (folder / "fewer.csv").write_text("id\n" + "\n".join(ids[:-1]) + "\n")
    assert "has sides already" in foreign.refused(name="tones", trained_on=str(folder / "fewer.csv"))


def test_a_list_that_is_wrong_is_said(foreign: Foreign) -> None:
    """Catches a silent adoption with the two sides exchanged."""
    folder = foreign.project.folder
    trained = set(pd.read_csv(foreign.trained_on)["id"])
    others = sorted(f"{p.relative_to(folder / 'recordings')}" for p in (folder / "recordings").rglob("*.wav"))
    (folder / "other.csv").write_text("id\n" + "\n".join(id_ for id_ in others if id_ not in trained) + "\n")
    said = foreign.adopt("exchanged", trained_on=str(folder / "other.csv"))
    assert "WARNING: the adopted models recognise" in said and "trained_on is not what they were trained on" in said


def test_a_model_of_an_answered_person_is_refused(
    foreign: Foreign, made: tuple[Foreign, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a way back into service for recordings whose request was answered, after the store's restoring too."""
    project = foreign.project
    monkeypatch.setenv("AUDIO_MU_LEDGER", str(made[1].parent / "ledger.jsonl"))
    project.answer("p1")
    project.restore(made[1])
    theirs = foreign.saved("strange", {name: 1.01 * value for name, value in foreign.state.items()})
    assert "request of AUDIO_MU_LEDGER" in foreign.refused(name="again", weights=theirs)
    project.answer("p1")
    assert "was answered, and this model was trained on" in foreign.refused(name="tones", weights=theirs)
    project.run("erase", request=project.hash("p1"), dataset_name="tones", confirm="true")
    assert "was answered, and this model was trained on" in foreign.refused(name="tones", weights=theirs)


OF_STORE = "models:/audio-mu.tones.logmel.Flat/1"
RENAMED = """
from torch import nn


class Renamed(nn.Module):
    def __init__(self, n_classes, input_shape):
        super().__init__()
        self.answer = nn.Linear(input_shape[0] * input_shape[1], n_classes)

    def forward(self, features):
        return self.answer(features.flatten(1))
"""


def served_by_hand(foreign: Foreign, version: str, dtype: torch.dtype | None = None, prefix: str = "1.") -> str:
    """The weights of a version of the registry, saved into a file by its user."""
    (source,) = foreign.project.query("select source from model_versions where version = ?", version)[0]
    ((folder,),) = foreign.project.query(
        "select artifact_location from logged_models where model_id = ?", source.removeprefix("models:/")
    )
    state = network_state(read_weights(Path(folder.removeprefix("file://")) / "data" / "model.pt2"))
    kept = {name: value.to(dtype) if dtype else value for name, value in state.items()}
    return foreign.saved("by_hand", {prefix + name.removeprefix("1."): value for name, value in kept.items()})


@pytest.mark.parametrize("form", ["models:/", "runs:/", "file", "float16", "bfloat16", "renamed", "adopted in 16 bits"])
def test_a_model_of_this_store_is_known_whatever_the_list_says(foreign: Foreign, form: str) -> None:
    """Catches the model of an answered person that comes back by a list from which the person was deleted, by its
    address or by a file of its weights, in 16 bits or under other names too."""
    project, own = foreign.project, {}
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16, "adopted in 16 bits": torch.float16}.get(form)
    place = {
        "models:/": OF_STORE,
        "runs:/": f"runs:/{newest(project, stage='train', role='seed')}/model",
        "renamed": served_by_hand(foreign, "1", prefix="answer."),
    }.get(form) or served_by_hand(foreign, "1", dtype)
    if form == "renamed":
        (project.folder / "renamed.py").write_text(RENAMED)
        own = {"architecture": f"{project.folder}/renamed.py:Renamed"}
    if form == "adopted in 16 bits":
        foreign.adopt("before", weights=place, **RECIPE)
    project.answer("p1")
    without = project.folder / "without.csv"
    ids = [id_ for id_ in pd.read_csv(foreign.trained_on)["id"] if "/p1_" not in id_]
    without.write_text("id\n" + "\n".join(ids) + "\n")
    told = foreign.refused(name="again", weights=place, trained_on=str(without), **own)
    n = len(pd.read_csv(foreign.trained_on)) - len(ids)
    assert "request speaker-p1 (" in told and f"of this store, were trained on {n} of its recordings" in told
    if form in ("models:/", "file"):  # the answer
        answer = OF_STORE.replace("/1", "/2") if form == "models:/" else served_by_hand(foreign, "2")
        assert "adopted as base models" in foreign.adopt("again", weights=answer, trained_on=str(without))
        assert project.tags(newest(project, dataset_name="again", role="seed"))["adopted_run_id"] in project.runs(
            stage="unlearn", method="naive"
        )


@pytest.mark.parametrize("by_file", [False, True])
def test_an_adopted_model_of_this_store_goes_with_what_it_was_read_from(foreign: Foreign, by_file: bool) -> None:
    """Catches an erasure that leaves a copy of a model, read by its address or from a file that somebody has saved,
    whose list, folder and name say nothing of the person."""
    project = foreign.project
    copy = project.folder / "without"
    shutil.copytree(project.folder / "recordings", copy, ignore=shutil.ignore_patterns("p1_*"))
    without = project.folder / "without.csv"
    ids = [id_ for id_ in pd.read_csv(foreign.trained_on)["id"] if "/p1_" not in id_]
    without.write_text("id\n" + "\n".join(ids) + "\n")
    place = served_by_hand(foreign, "1") if by_file else OF_STORE
    foreign.adopt("again", weights=place, trained_on=str(without), data_dir=str(copy), **RECIPE)
    project.answer("p1")
    project.run("erase", request=project.hash("p1"), confirm="true")
    assert {name for name, alias, _ in project.aliases()} == {"audio-mu.tones.logmel.Flat"}
    run = newest(project, stage="train", role="seed", dataset_name="again")
    assert not project.query("select * from logged_models where source_run_id = ?", run)
    if by_file:  # the weights are the user's, and known
        assert "were removed" in foreign.refused(
            name="fourth", weights=place, trained_on=str(without), data_dir=str(copy)
        )


@pytest.mark.parametrize("by_file", [False, True])
def test_an_adopted_base_of_somebody_answered_elsewhere_is_refused(
    foreign: Foreign, by_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an unlearning that starts from weights which have learnt the person of another data set, whose own list
    and folder know nothing of them, and a record that says no model has learnt them."""
    project = foreign.project
    without = project.folder / "without.csv"
    ids = [id_ for id_ in pd.read_csv(foreign.trained_on)["id"] if "/p1_" not in id_]
    without.write_text("id\n" + "\n".join(ids) + "\n")
    place = served_by_hand(foreign, "1") if by_file else OF_STORE
    n = len(pd.read_csv(foreign.trained_on)) - len(ids)
    theirs = replace(project, parameters={**project.parameters, "dataset_name": "again", "methods": "naive,fine_tune"})
    theirs.run("adopt", weights=place, trained_on=str(without), **RECIPE)
    theirs.run("attack")
    with pytest.raises(
        UserError, match=rf"again.* descends from the weights .* trained on {n} recordings of speaker-p1"
    ):
        theirs.run("unlearn", forget="speaker", forget_speakers="p1", register="naive", methods="naive")
    assert not project.entries()
    shutil.copytree(project.folder / "recordings", project.folder / "less", ignore=shutil.ignore_patterns("p1_*"))
    theirs.parameters["data_dir"] = str(project.folder / "less")
    project.answer("p1")
    request = {"forget": "speaker", "forget_speakers": "p2"}
    told = rf"descends from the weights .* trained on {n} recordings of the answered request speaker-p1 \(.*\) of tones"
    for stage in ("attack", "unlearn", "tune"):
        with pytest.raises(UserError, match=told + r": run `.*train.*or adopt .* ledger=ignore$"):
            theirs.run(stage, **request if stage != "attack" else {})
    theirs.run("unlearn", **request, ledger="ignore")
    monkeypatch.setattr("audio_mu.workflows.register.allowed_method", lambda asked, *_: asked)  # as if it met the rule
    with pytest.raises(UserError, match=rf"with ledger=ignore the model holds {n} recordings"):
        theirs.run("unlearn", **request, ledger="ignore", methods="naive,fine_tune", register="fine_tune")
    assert len(project.entries()) == 1
