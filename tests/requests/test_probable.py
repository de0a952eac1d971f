"""Probable copies in requests and after answers, through the commands: words that glide, a linear network, seconds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from audio_mu.requests import probable
from tests.alterations import ALTERATIONS, sweep
from tests.answered import FLAT, Answered

RATE = 16_000
WORDS, PEOPLE, TAKES = ("up", "down"), ("p1", "p2", "p3"), 4
ASKED = {"forget": "speaker", "forget_speakers": "p1"}
ALTERED = {
    "down/p2_mp3.mp3": "MP3, 64 kbit/s",
    "down/p2_ogg.ogg": "Ogg Vorbis",
    "down/p2_loud.wav": "6 dB louder, clipped",
    "up/p2_8k.wav": "8 kHz",
    "up/p3_cut.wav": "10 % trimmed at the start",
    "up/p3_late.wav": "100 ms of silence before",
    "up/p3_noise.wav": "white noise, 20 dB",
}
"""Another person's file → what was done to a recording of p1 to make it."""


def take(seed: int) -> np.ndarray:
    return sweep(seed, 0.8)


def recordings(folder: Path) -> Path:
    for i, word in enumerate(WORDS):
        for k, person in enumerate(PEOPLE):
            for n in range(TAKES):
                path = folder / word / f"{person}_{n}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, take(1 + n + 10 * k + 100 * i), RATE)
    return folder


def altered(folder: Path, names: dict[str, str] = ALTERED) -> dict[str, str]:
    """Write altered copies of p1's recordings under other names, one of each; copy → original."""
    originals = sorted(folder.glob("*/p1_*.wav"))
    of = {}
    for original, (name, alteration) in zip(originals, names.items()):
        made = ALTERATIONS[alteration](soundfile.read(original)[0], folder / "made")
        shutil.move(made, folder / name)
        of[name] = original.relative_to(folder).as_posix()
    return of


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(1) as made:
        yield made


@pytest.fixture
def project(tmp_path: Path, engine: LocalEngine) -> Answered:
    (tmp_path / "own.py").write_text(FLAT)
    parameters = {
        "dataset": "folder", "dataset_name": "words", "data_dir": str(recordings(tmp_path / "recordings")),
        "clip_seconds": "0.5", "speaker_pattern": r"(p\d+)_", "architecture": f"{tmp_path}/own.py:Flat",
        "seeds": "40", "n_epochs": "40", "batch_size": "8", "n_epoch_repair": "1", "n_attack_models": "1",
        "workers": "1", "methods": "naive",
    }  # fmt: skip
    return Answered(tmp_path, parameters, engine)


def trained(project: Answered) -> set[str]:
    """What the newest base model was trained on, by its own list."""
    losses = project.table(project.runs(stage="train", role="seed")[-1], "losses.csv")
    return set(losses.loc[losses["member"] == "1", "clip_id"])


def remaining(project: Answered) -> set[str]:
    """What the newest retrained model was trained on, by its own list."""
    return set(project.table(project.runs(stage="unlearn", method="naive")[-1], "losses/remain.csv")["clip_id"])


def test_altered_copies_are_asked_about_forgotten_or_left(project: Answered) -> None:
    """Catches an MP3, Ogg, louder, 8 kHz, trimmed, delayed or noisy copy under another person's name that stays without
    a word, a refusal without the ways on, a copy on the test side that is not barred, and a record that hides the
    search or claims one."""
    folder = project.folder / "recordings"
    of = altered(folder)
    project.run("train")
    project.run("attack")
    copies_trained = trained(project) & of.keys()
    assert 0 < len(copies_trained) < len(of)
    ways_on = r"7 of the 23 other recordings would stay as probable copies .*copies=probable .* copies=exact"
    with pytest.raises(UserError, match=ways_on) as refused:
        project.run("unlearn", register="naive", **ASKED)
    assert "down/p2_8k.wav" not in str(refused.value)
    assert "down/p2_loud.wav (of " in str(refused.value)
    listed = pd.read_csv(str(refused.value).partition("all of them: ")[2].partition(";")[0], dtype=str)
    assert dict(zip(listed["clip_id"], listed["copy_of"])) == of
    assert project.runs(stage="unlearn") == []

    left = project.run("unlearn", copies="exact", **ASKED)
    assert "probable" not in left
    assert copies_trained < remaining(project)
    run = project.runs(stage="unlearn", method="naive")[-1]
    assert project.tags(run)["copies_sought"] == "false"

    project.run("unlearn", copies="probable", register="naive", **ASKED)
    assert remaining(project).isdisjoint(of)
    run = project.runs(stage="unlearn", method="naive")[-1]
    request = project.table(run, "request.csv").set_index("clip_id")
    assert request.loc[list(of), "copy_of"].to_dict() == of
    assert set(request.loc[list(of), "requested"]) == {"False"}
    assert {id_ for id_ in of if request.loc[id_, "trained"] == "True"} == copies_trained
    words = "8 recordings were compared with 23 others by the waveform (tau 0.95): 7 probable copies found"
    assert words in project.tags(run)["copies"]
    assert words in (project.place(run) / "evidence.md").read_text()
    (entry,) = project.finished_entries()
    assert project.tags(entry)["copies_sought"] == "true"
    assert {*of} < set(project.table(entry, "recordings.csv")["clip_id"])
    project.run("train")
    assert trained(project).isdisjoint(of)


def test_later_copies_of_an_answered_recording_stay_out_when_it_is_gone(project: Answered) -> None:
    """Catches a copy that comes after the answer and is trained on, at once or when its original has been deleted, and
    an erasure that leaves sounds of the person in the cache."""
    folder = project.folder / "recordings"
    project.run("train")
    said = project.answer("p1")
    assert "looking for probable copies of 8 recordings among 16 others" in said
    of = altered(folder)
    assert "7 probable copies that came since, for good: down/p2_loud.wav (of " in project.run("train")
    assert trained(project).isdisjoint(of)
    copied = folder / "down/p3_2.mp3"
    ALTERATIONS["MP3, 64 kbit/s"](soundfile.read(folder / "up/p2_0.wav")[0], copied.with_suffix("")).rename(copied)
    with pytest.raises(UserError, match=r"1 of the 10 other recordings .*to leave them in knowingly$"):
        project.run("main", forget="speaker", forget_speakers="p2")
    copied.unlink()
    (entry,) = project.finished_entries()
    recordings = project.table(entry, "recordings.csv").set_index("clip_id")
    assert set(recordings.loc[list(of), "forgotten"]) == {"False"}
    for path in folder.glob("*/p1_*"):
        path.unlink()
    assert "came since" not in project.run("train")
    assert trained(project)
    assert trained(project).isdisjoint(of)
    project.run("erase", request=project.hash("p1"), confirm="true")
    remains = json.loads((project.place(entry) / "erasure.json").read_text())["remains"]
    assert any("nothing to compare them with" in part["why"] for part in remains)
    cached = "".join(path.read_text() for path in (project.folder / "cache").rglob("*.json"))
    assert not any(id_ in cached for id_ in (*of, *(f"up/p1_{n}.wav" for n in range(TAKES))))
    (folder / "up/p2_mp3_again.mp3").write_bytes((folder / "down/p2_mp3.mp3").read_bytes())  # known by its hash
    project.run("train")
    assert "up/p2_mp3_again.mp3" not in trained(project)


def test_a_request_that_left_copies_knowingly_bars_none_later(project: Answered) -> None:
    """Catches `copies=exact` overruled by the next training, and a record that claims a search."""
    of = altered(project.folder / "recordings")
    project.run("train")
    project.run("attack")
    project.run("unlearn", register="naive", copies="exact", **ASKED)
    (entry,) = project.finished_entries()
    assert project.tags(entry)["copies_sought"] == "false"
    run = project.runs(stage="unlearn", method="naive")[-1]
    assert (
        "copies in another format, level, rate or length were not looked for"
        in (project.place(run) / "evidence.md").read_text()
    )
    assert "probable" not in project.run("train")
    assert trained(project) & of.keys()


def test_a_jingle_and_other_takes_are_no_copies(project: Answered) -> None:
    """Catches a request refused because recordings of different people begin alike, and silence taken for a copy."""
    folder = project.folder / "recordings"
    jingle = 4 * sweep(999, 0.5)
    for path in folder.glob("*/*.wav"):
        sound = soundfile.read(path)[0]
        soundfile.write(path, 0.2 * np.r_[jingle, sound], RATE)
    for person in PEOPLE:
        soundfile.write(folder / f"up/{person}_silent.wav", np.zeros(RATE), RATE)
        hum = 0.1 * np.sin(np.arange(RATE) / 7) + 1e-4 * np.random.default_rng([*person.encode()]).normal(size=RATE)
        soundfile.write(folder / f"up/{person}_hum.wav", hum, RATE)
    project = dataclasses.replace(project, parameters={**project.parameters, "clip_seconds": "1.2"})
    project.run("train")
    project.run("attack")
    project.run("unlearn", **ASKED)
    tags = project.tags(project.runs(stage="unlearn", method="naive")[-1])
    assert "but for 2 without a sound of their own: 0 probable copies found" in tags["copies"]


def test_draws_are_searched_only_where_it_is_asked_for(project: Answered) -> None:
    """Catches the study's draw slowed down or refused by copies that nobody asked about."""
    altered(project.folder / "recordings")
    project.run("train")
    project.run("attack")
    for request in ({"forget": "item"}, {"forget": "class"}, {"forget": "speaker"}):
        assert "looking for" not in project.run("unlearn", **request)
    assert not list((project.folder / "cache").rglob("descriptions*"))
    with pytest.raises(UserError, match="would stay as probable copies of requested ones"):
        project.run("unlearn", forget="item", forget_percentage="60", copies="ask")


def test_the_whole_chain_asks_before_it_trains(project: Answered) -> None:
    """Catches hours of training before the question."""
    altered(project.folder / "recordings")
    with pytest.raises(UserError, match="7 of the 23 other recordings"):
        project.run("main", **ASKED)
    assert project.runs(stage="train") == []


def test_a_search_is_made_once_and_again_for_other_recordings(project: Answered) -> None:
    """Catches every command of a living folder that searches anew, and finds of an earlier folder taken for today's."""
    folder = project.folder / "recordings"
    project.run("train")
    assert project.answer("p1").count("looking for") == 1
    assert "looking for" not in project.run("train")
    altered(folder, {"up/p3_cut.wav": "10 % trimmed at the start"})
    assert "1 probable copy that came since" in project.run("train")
    for path in (project.folder / "cache").rglob("sounds.npy"):
        path.write_bytes(path.read_bytes()[:1_000])
    altered(folder, {"up/p3_noise.wav": "white noise, 20 dB"})
    assert "1 probable copy that came since" in project.run("train")


def test_finds_that_were_damaged_are_none(tmp_path: Path) -> None:
    """Catches a pair that a cut or altered file has lost, so that a copy stays."""
    file = tmp_path / "copies.csv"
    pairs = pd.DataFrame({"clip_id": ["b.wav", "c.wav"], "copy_of": "a.wav", "peak": ["0.9000", "0.8000"]})
    probable._keep(file, pairs)
    assert probable._kept(file).equals(pairs)
    whole = file.read_text()
    for damaged in (whole[:-1], whole.replace("c.wav", "d.wav"), whole.replace("c.wav,a.wav,0.8000\n", ""), ""):
        file.write_text(damaged)
        assert probable._kept(file) is None, damaged
    file.write_bytes(b"\xff")
    assert probable._kept(file) is None
    assert probable._kept(tmp_path / "none") is None
