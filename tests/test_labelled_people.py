"""A person whom a table of labels names: answered, deleted and erased like one of a pattern, the table as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from tests.answered import Answered


def new_project(folder: Path, engine: LocalEngine) -> Answered:
    """A project whose recordings lie in one folder: a table says what they are, whose, and on which side."""
    made = Answered.new(folder, engine)
    root, rows = folder / "recordings", []
    for place, path in enumerate(sorted(root.glob("*/*.wav"))):
        person, take = path.stem.split("_")
        rows.append(f"x{place}.wav;{path.parent.name};Person {person};{'test' if take == '3' else 'train'}")
        path.rename(root / f"x{place}.wav")
    table = folder / "labels.csv"
    table.write_text("path;label;speaker;split\r\n" + "\r\n".join(rows), encoding="utf-8-sig")
    parameters = {name: value for name, value in made.parameters.items() if name != "speaker_pattern"}
    return replace(made, parameters={**parameters, "labels": str(table)})


def add(project: Answered, *rows: str) -> None:
    with (project.folder / "labels.csv").open("a") as stream:
        stream.writelines(f"\r\n{row}" for row in rows)


def heard(project: Answered) -> dict[str, str]:
    """Id → speaker of all that the newest base model was trained or tested on."""
    losses = project.table(project.runs(stage="train", role="seed")[-1], "losses.csv")
    return dict(zip(losses["clip_id"], losses["speaker"]))


def test_a_person_of_the_table_is_answered_and_erased(tmp_path: Path) -> None:
    """Catches sides of the table that are drawn anew, a person who comes back by a later row or by files that are gone,
    a table that must be mended after a deletion, and one that is not told among what remains."""
    with LocalEngine(1) as engine:
        project = new_project(tmp_path / "project", engine)
        root = project.folder / "recordings"
        said = project.run("train")
        assert "3 classes (high, low, middle), 4 speakers; sides of the labels table: 36 train, 12 test" in said
        theirs = [id_ for id_, whose in heard(project).items() if whose == "Person p1"]
        assert len(theirs) == 12
        assert "request speaker-Person_p1: forget 9, remain 27, test 12, held_out 3" in project.answer("Person p1")
        forgotten = project.table(project.entries()[0], "recordings.csv")
        assert set(forgotten.loc[forgotten["forgotten"] == "True", "speaker"]) == {"Person p1"}
        for id_ in theirs:
            (root / id_).rename(root / id_.replace("x", "away"))
        later = theirs[0].replace("x", "away")
        add(project, f"{later};low;Person p1;train")
        project.run("train")
        assert len(heard(project)) == 36 and "Person p1" not in heard(project).values()
        (request,) = {project.tags(run)["request_hash"] for run in project.entries()}
        told = project.run("erase", request=request[:10], confirm="true")
        assert f"the rows of the table {project.folder / 'labels.csv'}" in told
        assert later not in project.run("train", n_epochs="2")
        assert len(heard(project)) == 36
        shown = project.run("compare")
        assert "Person_p1" in shown
        add(project, "gone.wav;low;Person p2;train")
        with pytest.raises(UserError, match=r"cannot use 1 recording: gone.wav is no .* \(line 51 of labels.csv\)"):
            project.run("train")
