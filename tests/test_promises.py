"""The promise to a person whose recordings were forgotten, when something else happens as well."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from mlflow import MlflowClient

from audio_mu.erasure.find import Search
from audio_mu.errors import UserError
from audio_mu.requests.ledger import read_ledger
from audio_mu.store import registry
from audio_mu.store.connect import open_store
from audio_mu.workflows import cells, train
from tests.answered import Answered, meanwhile

NAME = "audio-mu.tones.logmel.Flat"
P2 = {"forget": "speaker", "forget_speakers": "p2", "methods": "naive"}
P3 = {**P2, "forget_speakers": "p3"}


def half(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: 1 + len(lines) // 2]))


def not_finite(path: Path) -> None:
    """Give the first weight of a model NaN, in an archive that is whole."""
    with zipfile.ZipFile(path) as content:
        members = {info.filename: content.read(info) for info in content.infolist()}
    name = max(
        (name for name in members if "/weights/" in name and "config" not in name), key=lambda n: len(members[n])
    )
    members[name] = np.full(len(members[name]) // 4, np.nan, np.float32).tobytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for member, data in members.items():
            content.writestr(member, data)
    path.write_bytes(buffer.getvalue())


def test_nothing_goes_into_service_with_lists_or_weights_that_are_broken(answered: Answered) -> None:
    """Catches a ledger's entry with half of the recordings, and an unreadable model behind the alias."""
    answered.run("attack")
    answered.run("unlearn", **P2)
    naive = answered.runs(stage="unlearn", method="naive", request="speaker-p2")[0]
    ((model,),) = answered.query("select artifact_location from logged_models where source_run_id = ?", naive)
    weights, lists = Path(model.removeprefix("file://")) / "data" / "model.pt2", answered.place(naive)
    before = answered.aliases(), answered.entries()

    def renamed(path: Path) -> None:
        path.write_text(path.read_text().replace("p2_0.wav", "p3_0.wav"))

    def truncated(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    for path, breaks, told in (
        (lists / "request.csv", half, "request.csv has [0-9]+ of [0-9]+ recordings"),
        (lists / "request.csv", renamed, "recordings of request.csv are not those of request_hash="),
        (lists / "request.csv", lambda path: path.write_text("clip_id\n"), "lacks .*audio_hash"),
        (lists / "audit" / "per_clip.csv", half, "per_clip.csv has [0-9]+ of [0-9]+ recordings"),
        (lists / "audit" / "audit.json", half, "audit.json .* cannot be read"),
        (weights, truncated, "cannot be read"),
        (weights, not_finite, "is not finite"),
    ):
        whole = path.read_bytes()
        breaks(path)
        with pytest.raises(UserError, match=told) as raised:
            answered.run("unlearn", **P2, register="naive")
        assert "\n" not in str(raised.value)
        assert (answered.aliases(), answered.entries()) == before
        path.write_bytes(whole)
    answered.run("unlearn", **P2, register="naive")
    assert len(answered.entries()) == 2


def test_a_training_that_crosses_an_answer(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a base model behind its alias that has learnt the recordings of a request answered while it trained."""
    answered.run("attack")
    own = train._publish

    def late(*arguments):
        monkeypatch.setattr(train, "_publish", own)
        answered.run("unlearn", **P2, register="naive")
        return own(*arguments)

    monkeypatch.setattr(train, "_publish", late)
    with pytest.raises(UserError, match=r"request speaker-p2 \(\w{8}\) was answered in between.*same command again"):
        answered.run("train", n_epochs="5")
    assert {alias: version for _, alias, version in answered.aliases()}["seed-40"] == 1
    answered.run("train", n_epochs="5")
    new = answered.runs(stage="train", role="seed")[-1]
    (entry,) = [run for run in answered.entries() if answered.tags(run)["request"] == "speaker-p2"]
    forgotten = set(answered.table(entry, "recordings.csv")["clip_id"])
    assert not forgotten & set(answered.table(new, "losses.csv")["clip_id"])


def test_an_alias_that_was_moved_back_is_told(answered: Answered, tmp_path: Path) -> None:
    """Catches a model of an answered person behind the alias of the model in service, which no command notices."""
    client = MlflowClient(f"sqlite:///{answered.database}")
    assert "WARNING" not in answered.run("compare")
    client.set_registered_model_alias(NAME, "unlearned", "1")
    base = answered.runs(stage="train", role="seed")[0]
    forgotten = set(answered.table(answered.entries()[0], "recordings.csv").query("forgotten == 'True'")["clip_id"])
    n = len(forgotten & answered.trained(base))
    told = (
        rf"WARNING: {NAME}@unlearned serves version 1, which was trained on {n} recordings of the answered request "
        rf"speaker-p1 \({answered.hash('p1')[:8]}\): version 2 has answered it, .*'{NAME}', 'unlearned', '2'\)"
    )
    again = {"forget": "speaker", "forget_speakers": "p1", "methods": "naive", "register": "naive"}
    for stage, more in (("compare", {}), ("attack", {}), ("unlearn", again), ("train", {})):
        assert len(re.findall(told, answered.run(stage, **more))) == 1, stage
    client.set_registered_model_alias(NAME, "unlearned", "2")
    answered.run("attack")  # of what `train` has made
    client.set_registered_model_alias(NAME, "shown", "1")  # somebody's own
    assert f"{NAME}@shown serves version 1" in answered.run("unlearn", **P2, register="naive")
    client.delete_registered_model_alias(NAME, "shown")
    client.set_registered_model_alias(NAME, "unlearned", "2")  # has answered p1, and learnt p2
    assert "serves version 2, which was trained on" in answered.run("compare")
    answered.answer("p3")
    assert "WARNING" not in answered.run("compare")


def test_the_next_step_after_an_answer(answered: Answered) -> None:
    """Catches a comparison that ends with the registration of what is in service already, or erased."""
    request = answered.tags(answered.entries()[0])["request_hash"][:8]
    ended = answered.run("compare").splitlines()
    assert ended[-2] == "next: list what the store still holds of the recordings, to erase it:"
    assert f"request={request}" in ended[-1]
    answered.run("erase", request=request, confirm="true")
    assert answered.run("compare").splitlines()[-1] == "next: nothing, the request is answered and erased"
    answered.run("attack")
    answered.run("unlearn", **P2)
    said = answered.run("compare")
    assert "next: to answer this request, put naive, the retrained model, into service:" in said
    assert re.search(r"\nfor a paper: /.*/paper/speaker-p2-\w+\.tex \(LaTeX\), and seeds\.csv", said)


def test_two_networks_answer_one_request_at_once(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches two entries of one request, which no erasure can choose between."""
    other = {"architecture": f"{answered.folder}/own.py:Other"}
    answered.run("train", **other)
    answered.run("attack", **other)
    answered.run("attack")
    meanwhile(monkeypatch, lambda: answered.run("unlearn", **P2, **other, register="naive"))
    answered.run("unlearn", **P2, register="naive")
    assert len(answered.entries()) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{answered.database}")
        (_, entry) = read_ledger(open_store()).entries
    assert set(entry.answers) == {NAME, NAME.replace("Flat", "Other")}
    answered.run("erase", request=answered.hash("p2"), confirm="true")

    def answer_and_erase() -> None:
        answered.run("unlearn", **P3, **other, register="naive")
        answered.run("erase", request=answered.hash("p3"), confirm="true")

    for network in ({}, other):
        answered.run("attack", **network)
    meanwhile(monkeypatch, answer_and_erase)
    with pytest.raises(UserError, match=r"request speaker-p3 \(\w{8}\) was erased in between"):
        answered.run("unlearn", **P3, register="naive")
    assert NAME not in {name for name, _, _ in answered.aliases()}  # what answered p2 there had learnt p3


def test_one_ledger_for_every_experiment_of_a_registry(answered: Answered) -> None:
    """Catches an answered person who is learnt again under another experiment's name, and no erasure's find."""
    entry = answered.entries()[0]
    forgotten = set(answered.table(entry, "recordings.csv")["clip_id"])
    output = answered.run("train", experiment="other")
    assert "ledger: request speaker-p1" in output
    new = answered.runs(stage="train", role="seed")[-1]
    assert not forgotten & set(answered.table(new, "losses.csv")["clip_id"])
    answered.run("train", experiment="third", ledger="ignore", seeds="41")
    last = answered.runs(stage="train", role="seed")[-1]
    assert forgotten & set(answered.table(last, "losses.csv")["clip_id"])
    assert (NAME, "seed-41") in {alias[:2] for alias in answered.aliases()}
    answered.run("erase", experiment="other", request=answered.hash("p1"), confirm="true")
    assert answered.tags(entry)["state"] == "erased"
    assert not forgotten & set(answered.table(last, "losses.csv")["clip_id"])
    assert "retired" in answered.tags(last)
    assert (NAME, "seed-41") not in {alias[:2] for alias in answered.aliases()}
    assert not answered.query("select * from logged_models where source_run_id = ?", last)


def test_a_copy_of_the_folder_under_another_name_is_found_by_its_audio(answered: Answered) -> None:
    """Catches a prototype that holds the person, with other names for the files and for the data set."""
    copy = answered.folder / "copy"
    for path in (answered.folder / "recordings").rglob("*.wav"):
        target = copy / path.parent.name.upper() / path.name.replace("p", "person")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    other = {"data_dir": str(copy), "dataset_name": "prototype", "speaker_pattern": r"(person\d+)_"}
    other["ledger"] = "ignore"  # as it was before the answer
    answered.run("train", **other)
    answered.run("attack", **other)
    answered.run("unlearn", **other, forget_percentage="20", methods="naive")
    base = answered.runs(stage="train", role="seed")[-1]
    hashes = set(answered.table(answered.entries()[0], "recordings.csv")["audio_hash"])
    lists = answered.table(base, "losses.csv")
    named = set(lists.loc[lists["audio_hash"].isin(hashes), "clip_id"])
    assert len(named) > 5
    assert all("/person1_" in id_ for id_ in named)

    # Killed in the middle, as often as there are finds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIO_MU_CACHE", str(answered.folder / "cache"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{answered.database}")
        store = open_store()
        entry = read_ledger(store).entries[0]
        while len(found := Search(store, entry).findings()) > 1:
            for finding in found[: len(found) // 2]:
                finding.act()
    output = answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert "found nothing but the ledger's entry" in output
    assert not any(name.startswith("audio-mu.prototype") for name, _, _ in answered.aliases())
    assert not answered.query("select * from logged_models where source_run_id = ?", base)
    own = answered.place(answered.entries()[0])
    for path in (answered.folder / "mlruns").rglob("*"):
        if path.is_file() and not path.is_relative_to(own) and "models" not in path.parts:
            data = path.read_bytes()
            if path.suffix == ".npz":
                with np.load(path) as content:
                    data = " ".join(map(str, content.get("clip_id", []))).encode()
            assert not [id_ for id_ in named if id_.encode() in data], path


@pytest.mark.parametrize("command", ["train", "unlearn"])
def test_killed_between_alias_and_entry_the_next_command_ends_it(
    command: str, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a model in service whose request nobody knows, and a train that learns the person again."""
    answered.run("attack")
    before, own = answered.aliases(), registry.set_alias

    def killed(store, version, alias):
        if alias == "unlearned":
            raise KeyboardInterrupt
        own(store, version, alias)

    request = {**P2, "register": "naive"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("audio_mu.store.registry.set_alias", killed)
        answered.run("unlearn", **request)
    assert before != answered.aliases()
    assert len(answered.finished_entries()) == 1
    output = answered.run(command, **({} if command == "train" else request))
    assert "was killed while it put its models into service: done now" in output
    _, entry = answered.finished_entries()
    assert answered.tags(entry)["request"] == "speaker-p2"
    behind = {alias: version for _, alias, version in answered.aliases()}
    assert behind["unlearned"] == behind["unlearned-seed-40"] == 3
    if command == "train":
        new = answered.runs(stage="train", role="seed")[-1]
        forgotten = set(answered.table(entry, "recordings.csv")["clip_id"])
        assert not forgotten & set(answered.table(new, "losses.csv")["clip_id"])
    else:
        assert "request speaker-p2 is answered: its unlearned models are in service" in output
    assert "done now" not in answered.run("compare")


def test_a_restored_backup_is_told_what_to_repeat(
    answered: Answered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a backup that brings back an erased person, or a store that has forgotten a request, without a word."""
    file = tmp_path / "somewhere" / "ledger.jsonl"
    monkeypatch.setenv("AUDIO_MU_LEDGER", str(file))
    answered.run("compare")  # p1 was answered before there was a file
    answered.save(tmp_path / "backup")
    answered.run("erase", request=answered.hash("p1"), confirm="true")
    answered.answer("p2")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["state"] for line in lines] == ["answered", "erased", "answered"]
    for person in ("p1", "p2", "tones", "low"):
        assert person not in file.read_text()
    first, second = answered.hash("p1"), answered.hash("p2")
    content = file.read_bytes()

    answered.restore(tmp_path / "backup")
    output = answered.run("compare")
    n = len(answered.ids("p1"))  # held-out ones too
    assert f"request {first[:8]} ({n} recordings) was erased at" in output
    assert "-e erase -P request=all" in output
    assert f"request {second[:8]} (" in output
    assert "this store does not know it (is it a restored backup?): answer it again" in output
    (entry,) = answered.entries()
    answered.run("erase", request="all", confirm="true")
    assert answered.tags(entry)["state"] == "erased"
    assert file.read_bytes() == content
    forgotten = set(answered.table(entry, "recordings.csv")["clip_id"])
    base = answered.runs(stage="train", role="seed")[0]
    assert not forgotten & set(answered.table(base, "losses.csv")["clip_id"])

    file.write_text(file.read_text()[:-20])
    with pytest.raises(UserError, match=r"AUDIO_MU_LEDGER=.*line 3 is no entry"):
        answered.run("compare")
    monkeypatch.delenv("AUDIO_MU_LEDGER")
    assert ": 0 finds" in answered.run("erase", request="all", confirm="true")  # what the store itself knows


def test_all_repeats_erasures_and_makes_none(answered: Answered) -> None:
    """Catches `request=all` that erases requests nobody has had erased."""
    with pytest.raises(UserError, match="there was none"):
        answered.run("erase", request="all", confirm="true")
    assert answered.tags(answered.entries()[0])["state"] == "answered"


def test_a_comparison_beside_an_erasure(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback, or a report without recordings, where they are erased between ledger and lists."""
    read = cells.read_losses

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        answered.run("erase", request=answered.hash("p1"), confirm="true")
        return read(*arguments, **options)

    monkeypatch.setattr("audio_mu.workflows.cells.read_losses", late)
    with pytest.raises(UserError, match="erased while this command read them: run it again"):
        answered.run("compare")
    assert "erased" in answered.run("compare")


def test_nothing_that_the_person_said_outlives_the_erasure(answered: Answered) -> None:
    """Catches later recordings of a person on the test side, held-out ones in lists after the erasure, and one of them
    that is trained on under somebody else's name afterwards."""
    root = answered.folder / "recordings"
    for source in sorted(root.glob("*/p[234]_*.wav")):  # more of p1, on either side
        wave, rate = soundfile.read(source)
        soundfile.write(source.with_name(f"p1_new_{source.name}"), wave[::-1], rate)
    answered.run("train", dataset_name="others", clip_seconds="0.4")  # p1 is barred there, the test side stays
    answered.run("train", n_epochs="5")
    losses = answered.table(answered.runs(stage="train", role="seed")[-1], "losses.csv")
    held_out = losses[losses["speaker"] == "p1"]
    assert set(held_out["member"]) == {"0"}
    assert not held_out["clip_id"].str.contains("new").any()  # the request was for the person
    answered.run("erase", request=answered.hash("p1"), confirm="true")

    own = answered.place(answered.entries()[0]) / "recordings.csv"
    ids, needles = answered.ids("p1"), {*held_out["source_hash"], *held_out["audio_hash"]}
    assert needles <= set(own.read_text().replace("\n", ",").split(","))
    for path in (path for top in ("mlruns", "cache") for path in (answered.folder / top).rglob("*")):
        if path.is_file() and path != own:
            data = path.read_bytes()
            if path.suffix == ".npz":
                with np.load(path) as content:
                    data = " ".join(map(str, content.get("clip_id", []))).encode()
            assert not [text for text in {*ids, *needles} if text.encode() in data], path
    pages = answered.database.read_bytes()
    assert not [text for text in {*ids, *needles} if text.encode() in pages]

    for i, id_ in enumerate(sorted(ids)):
        (root / id_).rename(root / Path(id_).with_name(f"p3_again{i}.wav"))
    answered.run("train")
    last = answered.table(answered.runs(stage="train", role="seed")[-1], "losses.csv")
    assert not {*last["source_hash"]} & {*pd.read_csv(own)["source_hash"]}
    assert last["clip_id"].str.contains("again").sum() == 0


def test_what_another_data_set_has_answered_is_told(answered: Answered) -> None:
    """Catches "the recordings have changed" where nothing has but the ledger, and a model in service without a name."""
    request = {"forget": "speaker", "forget_speakers": "p2", "methods": "naive", "register": "naive"}
    answered.run("train", dataset_name="second")
    answered.run("attack", dataset_name="second")
    output = answered.run("unlearn", dataset_name="second", **request)
    served = r"WARNING: audio-mu.tones.logmel.Flat@unlearned @unlearned-seed-40 serves version 2, which was trained on"
    assert re.search(served + r" \d+ recordings of the answered request speaker-p2 .*delete the alias", output)
    with pytest.raises(
        UserError, match=r"in another data set \(speaker-p2 .* of second\).*in service knows them until"
    ):
        answered.run("attack")
    answered.run("train")
    answered.run("attack")
    newest = answered.runs(stage="train", role="seed", dataset_name="tones")[-1]
    assert {id_.split("/")[1].split("_")[0] for id_ in answered.trained(newest)} == {"p3", "p4"}
