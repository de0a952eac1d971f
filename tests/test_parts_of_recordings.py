"""Recordings that are cut into clips, by a table's segments and by windows: from training to erasure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from tests.answered import Answered

RATE, TAKE, GAP = 16_000, 0.5, 0.1


def joined(folder: Path, engine: LocalEngine) -> Answered:
    """A project of stereo recordings, each of four takes with gaps, which a table of segments names.

    Takes of the classes come mixed: each recording has one take of each class and one more of the first.
    """
    made = Answered.new(folder, engine)
    root, takes = folder / "recordings", {}
    for path in sorted(root.glob("*/*.wav")):
        takes.setdefault(path.stem.split("_")[0], []).append((path.parent.name, soundfile.read(path)[0]))
        path.unlink()
    rows = []
    for person, own in takes.items():
        for place in range(4):
            pieces = []
            for i, (label, take) in enumerate(own[place::4]):
                start = i * (TAKE + GAP)
                rows.append(f"{person}-{place}.wav,{label},{person},{start:.1f},{start + TAKE:.1f}")
                pieces += [take, np.zeros(round(GAP * RATE))]
            sound = np.concatenate(pieces)
            soundfile.write(root / f"{person}-{place}.wav", np.c_[sound, sound / 2], RATE)
    table = folder / "labels.csv"
    table.write_text("path,label,speaker,start,end\n" + "\n".join(rows) + "\n")
    parameters = {name: value for name, value in made.parameters.items() if name != "speaker_pattern"}
    return replace(made, parameters={**parameters, "labels": str(table)})


def heard(project: Answered) -> pd.DataFrame:
    """What the newest base model was trained and tested on."""
    return project.table(project.runs(stage="train", role="seed")[-1], "losses.csv")


def metrics(project: Answered, run: str) -> dict[str, float]:
    return dict(project.query("select key, value from latest_metrics where run_uuid = ?", run))


def traces(project: Answered, text: str) -> list[Path]:
    """Files of store and cache that name a recording, but for the ledger's own list."""
    kept = {project.place(entry) / "recordings.csv" for entry in project.entries()}
    own = (project.folder / "recordings", project.folder / "labels.csv", project.folder / "list.txt")
    files = [path for path in project.folder.rglob("*") if path.is_file() and path not in kept]
    files = [path for path in files if not any(path.is_relative_to(place) for place in own)]
    return [path for path in files if text.encode() in path.read_bytes() and path != project.database]


def recording(id_: str) -> str:
    return id_.partition("#")[0]


def test_a_person_of_segments_is_answered_and_erased(tmp_path: Path) -> None:
    """Catches parts of a recording on both sides, a person who is forgotten in part, figures without the recordings,
    a report that plays the file's beginning, and parts that an erasure leaves in lists and caches or lets come back."""
    with LocalEngine(1) as engine:
        project = joined(tmp_path / "project", engine)
        said = project.run("train")
        assert "48 clips" in said and "sound: 24.0 of 28.8 s are used\n" in said
        losses = heard(project)
        sides = losses.groupby(losses["clip_id"].map(recording))["member"].nunique()
        assert len(losses) == 48 and len(sides) == 16 and set(sides) == {1}
        run = project.runs(stage="train", role="seed")[-1]
        assert "train/recording_accuracy" not in metrics(project, run)  # one clip of each class in a recording
        assert "request speaker-p1" in project.answer("p1")
        (entry,) = project.entries()
        theirs = project.table(entry, "recordings.csv")
        forgotten = theirs[theirs["forgotten"] == "True"]
        trained = losses[(losses["speaker"] == "p1") & (losses["member"] == "1")]
        assert set(forgotten["clip_id"]) == set(trained["clip_id"]) and len(trained) % 3 == 0
        assert all(row["clip_id"].partition("#")[2] == row["within"].partition("#")[2] for _, row in theirs.iterrows())
        project.run("train", force="true")
        left = heard(project)
        assert set(left.loc[left["member"] == "1", "speaker"]) == {"p2", "p3", "p4"}
        request = project.tags(entry)["request_hash"]
        project.run("erase", request=request[:10], confirm="true")
        assert not traces(project, "p1-0.wav")
        # The person's sound stays out however it is cut: by the name alone it would come back here.
        table = project.folder / "labels.csv"
        table.write_text(table.read_text().replace(",p1,", ",p5,"))
        for path in (project.folder / "recordings").glob("p1-*.wav"):
            path.rename(path.with_name(path.name.replace("p1", "x")))
        table.write_text(table.read_text().replace("p1-", "x-").replace(",0.0,0.5", ",0.1,0.4"))
        project.run("train", force="true")
        back = heard(project)
        assert not set(back["within"]) & set(theirs["within"]) and not any(back["clip_id"].str.startswith("x-"))


def test_a_recording_in_windows_is_forgotten_whole(tmp_path: Path) -> None:
    """Catches a path that names one window, windows of one that are on both sides, other windows that bring it back,
    models that are taken for those of other windows, and figures that do not average a recording's windows."""
    with LocalEngine(1) as engine:
        project = Answered.new(tmp_path / "project", engine)
        root = project.folder / "recordings"
        for path in (root / "low").glob("*.wav"):
            samples, _ = soundfile.read(path)
            soundfile.write(path, np.tile(samples, 3), RATE)
        said = project.run("train")
        assert "sound: 24.0 of 40.0 s are used; 16 of 48 clips cut after 0.5 s: -P window=0.5 cuts recordings" in said
        cut = {"window": "0.5", "hop": "0.25"}
        said = project.run("train", **cut)
        assert "112 clips" in said and "sound:" not in said
        losses, base = heard(project), project.runs(stage="train", role="seed")[-1]
        sides = losses.groupby(losses["clip_id"].map(recording))["member"].nunique()
        assert len(sides) == 48 and set(sides) == {1}
        assert {"train/recording_accuracy", "test/recording_accuracy"} <= metrics(project, base).keys()
        with pytest.raises(UserError, match=r"hop=0\.5 contradicts the base models .* trained with hop=0\.25"):
            project.run("attack", window="0.5", hop="0.5")
        project.run("attack")
        id_ = next(i for i in losses.loc[losses["member"] == "1", "clip_id"] if i.startswith("low/p1"))
        asked = project.folder / "list.txt"
        asked.write_text(f"{recording(id_)}\n")
        request = {"forget": "list", "forget_list": str(asked), "copies": "exact"}
        said = project.run("unlearn", **request, methods="naive,fine_tune", register="naive")
        assert ": forget 5, remain" in said
        long = project.run("compare") and project.table(project.runs(stage="compare")[-1], "comparison.csv")
        assert {f"{name}/recording_accuracy" for name in ("forget", "remain", "test")} <= set(long["metric"])
        (entry,) = project.entries()
        project.run("train", window="0.4", hop="0.1", clip_seconds="0.4")
        assert recording(id_) not in set(heard(project)["clip_id"].map(recording))
        project.run("erase", request=project.tags(entry)["request_hash"][:10], confirm="true")
        assert not traces(project, recording(id_))
        (root / recording(id_)).rename(root / "low" / "p1_renamed.wav")
        project.run("train", window="0.4", hop="0.1", clip_seconds="0.4", force="true")
        assert "low/p1_renamed.wav" not in set(heard(project)["clip_id"].map(recording))
