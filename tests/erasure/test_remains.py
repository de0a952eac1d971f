"""What an erasure leaves is told."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from audio_mu.config import Config
from audio_mu.erasure.find import Search
from audio_mu.erasure.remains import remaining
from audio_mu.requests.ledger import COLUMNS, Entry
from audio_mu.store.connect import open_store
from audio_mu.store.runs import open_run
from tests.answered import Answered


def test_a_run_that_goes_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an erasure that is called whole while a training still writes what it has seen."""
    monkeypatch.chdir(tmp_path)
    store = open_store()
    config = Config.from_text({})
    tags = {"dataset": config.data.dataset, "request": "speaker-1", "request_hash": "1"}
    entry = Entry("", tags, pd.DataFrame(columns=list(COLUMNS)), pd.DataFrame(columns=list(COLUMNS)), {})

    def told() -> list[str]:
        return [part.what for part in remaining(config.data, Search(store, entry)) if "ended" in part.why]

    with open_run(store, "train", "train digits", {}, {}, {}):
        assert told() == ["1 run without an end (train digits)"]
    assert told() == []


@pytest.mark.slow
def test_versions_that_another_erasure_removed_are_not_named(answered: Answered) -> None:
    """Catches a model told to remain that went with a later request, whose recordings it had learned."""
    answered.answer("p2")
    answered.run("erase", request=answered.hash("p2"), confirm="true")
    output = answered.run("erase", request=answered.hash("p1"), confirm="true")
    there = answered.query("select version from model_versions where current_stage != 'Deleted_Internal'")
    named = re.findall(r"remains: unlearned models of this request .*?version (\d+)", output)
    assert {int(number) for number in named} <= {number for (number,) in there}


def test_files_that_came_after_the_answer_are_counted(answered: Answered) -> None:
    """Catches "12 of the 12 recordings" of a folder that holds 13 of the person."""
    old = answered.folder / "recordings" / "low" / "p1_0.wav"
    wave, rate = soundfile.read(old)
    soundfile.write(old.with_name("p1_later.wav"), wave[::-1], rate)
    assert "remains: 13 of the 13 recordings in" in answered.run("erase", request=answered.hash("p1"), confirm="true")
    old.unlink()
    assert "remains: 12 of the 13 recordings in" in answered.run("erase", request=answered.hash("p1"), confirm="true")


def test_what_remains_of_a_set_of_one_recording_is_told(answered: Answered) -> None:
    """Catches a recording's own loss that is called an average, and a person's name in the runs of others' requests."""
    answered.run("attack")
    trained = answered.trained(answered.runs(stage="train", role="seed")[-1]) - answered.ids("p1")
    (answered.folder / "one.csv").write_text(f"id\n{min(trained)}\n")
    one = {"forget": "list", "forget_list": str(answered.folder / "one.csv"), "copies": "exact"}
    answered.run("unlearn", **one, methods="naive,fine_tune", register="naive")
    entry = answered.finished_entries()[-1]
    output = answered.run("erase", request=answered.tags(entry)["request_hash"], confirm="true")
    assert "remains: accuracy, loss and attack figures of a set of one recording (forget)" in output
    worst = {answered.tags(run).get("worst_speaker", "") for run in answered.runs(stage="unlearn")} - {""}
    person = sorted(worst)[0].partition(" ")[0]
    answered.answer(person)
    output = answered.run("erase", request=answered.hash(person), confirm="true")
    assert "a set of one recording" not in output
    left = {answered.tags(run).get("worst_speaker", "") for run in answered.runs(stage="unlearn")}
    assert not {text for text in left if text.startswith(f"{person} ")}


def test_a_listing_is_no_record(answered: Answered) -> None:
    """Catches a listing that reads as if something had been removed, and an evidence record that knows no erasure."""

    def page() -> str:
        return (answered.place(answered.runs(stage="erase")[-1]) / "erasure.md").read_text()

    answered.run("erase", request=answered.hash("p1"))
    assert "no record of an erasure: nothing was changed" in page()
    assert ": would be " in page() and "finished" not in page()
    answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert "listing" not in page() and "would be" not in page() and "finished" in page()
    answered.run("report", forget="speaker", forget_speakers="p1")
    record = (answered.place(answered.runs(stage="report")[-1]) / "evidence.md").read_text()
    assert "**Remains.** Erased on 20" in record and "; nothing left beside what is named here." in record
    assert "Not erased yet" not in record
