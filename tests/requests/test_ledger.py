"""The ledger: what an entry says, what is left out for it, and a second answer to the same request."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock, Timeout

from audio_mu.errors import UserError
from audio_mu.requests.ledger import (
    COLUMNS,
    OF_RECORDINGS,
    RECORDINGS,
    SCOPE,
    Answer,
    Entry,
    Ledger,
    enter,
    read_ledger,
    rows_once,
)
from audio_mu.store.connect import open_store
from audio_mu.store.locks import registry_locked
from tests.answered import Answered


def entry(hash_: str, request: str = "speaker-1", state: str = "answered", **answers: Answer) -> Entry:
    """An entry of one recording, `<hash>.wav`, which has the label and the audio hash of its request."""
    values = [f"{hash_}.wav", hash_, "s", "", f"audio {hash_}", f"file {hash_}", ""]
    row = pd.DataFrame([values], columns=list(COLUMNS))
    tags = {"request": request, "request_hash": hash_, "state": state, "dataset_name": "Few"}
    return Entry("", tags, row.assign(forgotten="True", scope=OF_RECORDINGS), row[:0], answers)


def answer(version: str) -> Answer:
    return Answer("cell", "naive", {"40": "1"}, {"40": version}, {"40": f"run of {version}"})


def test_only_what_is_gone_is_barred() -> None:
    """Catches an answered recording that cannot be read any more, and an erased one that an experiment reads again."""
    ledger = Ledger((entry("a"), entry("b", state="erasing"), entry("c", state="erased")))
    assert ledger.barred.ids == {"b.wav", "c.wav"}
    assert ledger.barred.hashes == {"audio b", "audio c", "file b", "file c"}
    assert ledger.barred.labels == {"a", "b", "c"}  # classes keep their numbers
    assert [[left.hash for left in ledger.left_out(how)] for how in ("respect", "ignore")] == [list("abc"), list("bc")]


def test_two_requests_of_one_name_have_two_sets() -> None:
    """Catches the figures of two requests under one name, and a name that MLflow refuses."""
    ledger = Ledger((entry("aaaaaaaa", "class-a b/c"), entry("bbbbbbbb", "class-a b/c")))
    assert [ledger.set_name(one) for one in ledger.entries] == ["earlier-class-a_b_c", "earlier-class-a_b_c-bbbbbb"]


def test_a_second_models_answer_is_added_to_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches one request as two entries, the first model's answer lost, and an entry that changes its place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store()
    for given in (entry("a", one=answer("2")), entry("b", "speaker-2", one=answer("3")), entry("a", two=answer("9"))):
        enter(store, read_ledger(store), [given])
    first, second = read_ledger(store).entries
    assert (first.hash, second.hash, second.tags["previous"]) == ("a", "b", "a")
    assert first.answers == {"one": answer("2"), "two": answer("9")}
    assert first.answering_runs == ("run of 2", "run of 9")
    assert (first.ids, first.hashes) == ({"a.wav"}, {"audio a", "file a"})
    assert json.loads(first.tags["versions_after"]) == {"40": "9"}
    assert [found.hash for found in read_ledger(store).of_model("two")] == ["a"]
    assert read_ledger(store, "Others").entries == ()


def test_two_entries_of_one_request_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an erasure that refuses for ever because two commands have entered one request at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store()
    enter(store, Ledger(), [entry("a", one=answer("2"))])
    enter(store, Ledger(), [entry("a", two=answer("3"))])
    enter(store, read_ledger(store), [entry("b", "speaker-2", one=answer("4"))])
    first, second = read_ledger(store).entries
    assert (first.hash, second.hash, second.tags["previous"]) == ("a", "b", "a")
    assert first.answers == {"one": answer("2"), "two": answer("3")}
    assert len(first.run_ids) == 2
    assert first.recordings["clip_id"].tolist() == ["a.wav"]
    store.client.set_tag(first.run_ids[1], "state", "erased")
    assert read_ledger(store).barred.ids == {"a.wav"}
    enter(store, read_ledger(store), [entry("a", one=answer("9"))])
    assert read_ledger(store).entries[0].answers == {"one": answer("9"), "two": answer("3")}


def test_entries_follow_one_another_whatever_the_clocks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches requests in the order of two machines' clocks, and two data sets' rows taken apart by each other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store()
    for hash_, at in (("c", "2030"), ("a", "2026"), ("b", "2028")):
        made = enter(store, read_ledger(store), [entry(hash_, one=answer("2"))])
        store.client.set_tag(made[0], "answered_at", at)
    assert [found.hash for found in read_ledger(store).entries] == ["c", "a", "b"]


def test_one_command_at_a_time_holds_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches two commands that register at once, and one that waits for itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store, other = open_store(), FileLock(str(tmp_path / ".mlflow.db.registry.lock"), timeout=0)
    with registry_locked(store), registry_locked(store), pytest.raises(Timeout):
        other.acquire()
    with other:
        pass


def test_rows_without_an_id_are_kept() -> None:
    """Catches hashes of an erased person that are lost where two commands have answered a request, or a copy comes."""
    columns = ["clip_id", "audio_hash", "source_hash"]
    first = pd.DataFrame([["a", "1", "x"], ["", "2", "y"]], columns=columns)
    again = pd.DataFrame([["a", "9", "x"], ["", "2", "y"], ["", "3", "z"]], columns=columns)
    assert rows_once([first, again])["audio_hash"].tolist() == ["1", "2", "3"]


@pytest.mark.parametrize("column", [*COLUMNS, SCOPE])
def test_a_list_without_a_column_is_refused(answered: Answered, column: str) -> None:
    """Catches a damaged list that names nobody any more, so that whoever was answered is learnt again, or a crash."""
    (run,) = answered.finished_entries()
    answered.table(run, RECORDINGS).rename(columns={column: "other"}).to_csv(answered.place(run) / RECORDINGS)
    before = answered.runs()
    with pytest.raises(UserError, match=f"recordings.csv of run {run} cannot be read .*it lacks {column}"):
        answered.run("train", force="true")
    assert answered.runs() == before
