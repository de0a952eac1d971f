"""A folder that lives: recordings come, go and are renamed, people are answered; nobody is trained on again.

What a model was trained on is read from the store's own lists, not by the code that made them.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audio_mu.compute.pool import LocalEngine
from audio_mu.config import Config
from audio_mu.errors import UserError, counted
from audio_mu.store.connect import open_store
from audio_mu.system.hashing import file_sha256
from audio_mu.workflows.attack import attack
from audio_mu.workflows.checks import check
from audio_mu.workflows.train import train
from audio_mu.workflows.unlearn import unlearn
from tests.answered import FLAT

PITCH = {"low": 300, "middle": 900, "high": 2_700}
PEOPLE, TAKES = ("ada", "ben", "cleo"), 5


class Living:
    """A folder of tones, a store, and the commands on them."""

    def __init__(self, folder: Path, engine: LocalEngine) -> None:
        self.store, self.data, self.engine, self.shown = folder / "store", folder / "data", engine, ""
        self.store.mkdir()
        (folder / "own.py").write_text(FLAT)
        self.parameters = {
            "dataset": "folder", "dataset_name": "tones", "data_dir": str(self.data), "clip_seconds": "0.4",
            "architecture": f"{folder}/own.py:Flat", "seeds": "40", "n_epochs": "12", "batch_size": "8",
            "n_epoch_repair": "1", "n_attack_models": "1", "workers": "1", "speaker_pattern": r"/([^_]+)_",
        }  # fmt: skip
        for person in PEOPLE:
            self.say(person)

    def say(self, person: str, takes: range = range(TAKES), words: tuple[str, ...] = tuple(PITCH)) -> list[str]:
        """Recordings of somebody, all different: a tone for each word in this person's noise."""
        ids = [f"{word}/{person}_{take}.wav" for word in words for take in takes]
        for id_ in ids:
            noise = np.random.default_rng([*id_.encode()]).normal(0, 0.02, 6_400)
            tone = np.sin(2 * np.pi * PITCH[id_.split("/")[0]] * np.arange(6_400) / 16_000)
            (self.data / id_).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(self.data / id_, 0.4 * tone + noise, 16_000)
        return ids

    def run(self, *stages: str, **parameters: str) -> str:
        """Run commands as their entry points do; return what they print."""
        config = Config.from_text({**self.parameters, **parameters})
        work = {"train": train, "unlearn": unlearn, "attack": attack}
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{self.store / 'mlflow.db'}")
            patch.chdir(self.store)
            for stage in stages:
                check(config)
                store = open_store()
                work[stage](config, store) if stage == "attack" else work[stage](config, store, self.engine)
        return output.getvalue()

    def answer(self, **request: str) -> str:
        """A request on the newest base models, answered by retraining."""
        return self.run("attack", "unlearn", methods="naive", register="naive", **request)

    def runs(self, **tags: str) -> list[str]:
        """Ids of finished runs with these tags, the oldest first."""
        with closing(sqlite3.connect(self.store / "mlflow.db", timeout=60)) as database:
            found = database.execute("select run_uuid from runs where status = 'FINISHED' order by start_time")
            read = "select key, value from tags where run_uuid = ?"
            return [run for (run,) in found.fetchall() if tags.items() <= {*database.execute(read, [run])}]

    def table(self, run: str, path: str) -> pd.DataFrame:
        file = self.store / "mlruns" / "0" / run / "artifacts" / path
        return pd.read_csv(file, dtype=str, keep_default_na=False)

    def sides(self, **tags: str) -> dict[str, str]:
        """Clip id → 1 where the newest base model was trained on it, 0 where it was tested on it."""
        losses = self.table(self.runs(stage="train", role="seed", **tags)[-1], "losses.csv")
        return dict(zip(losses["clip_id"], losses["member"]))

    def trained(self, **tags: str) -> set[str]:
        return {id_ for id_, member in self.sides(**tags).items() if member == "1"}

    def people(self, ids: set[str]) -> set[str]:
        return {id_.split("/")[1].split("_")[0] for id_ in ids}


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(1) as made:
        yield made


@pytest.fixture
def living(tmp_path: Path, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> Living:
    monkeypatch.setenv("AUDIO_MU_CACHE", str(tmp_path / "cache"))
    return Living(tmp_path, engine)


def test_nobody_changes_sides_because_of_others(living: Living) -> None:
    """Catches a random split that is drawn anew: whoever joins, leaves or is renamed moved a quarter of the others, and
    a base model of another split was reused."""
    living.run("train")
    first = living.sides()
    assert {id_.split("/")[0] for id_, member in first.items() if member == "0"} == set(PITCH)
    joined = living.say("dan") + living.say("ada", range(TAKES, TAKES + 2))
    living.run("train")
    second = living.sides()
    assert second.keys() == {*first, *joined}
    assert first.items() <= second.items()
    for id_ in joined:
        (living.data / id_).unlink()
    assert "reusing the base model" in living.run("train")  # the very same sides
    renamed = {id_: f"{id_.split('/')[0]}/0{Path(id_).name}" for id_ in first if "ben" in id_}
    for old, new in renamed.items():
        (living.data / old).rename(living.data / new)
    (living.data / "low" / "cleo_0.wav").unlink()
    living.run("train", speaker_pattern=r"/0?([^_]+)_")
    third = living.sides()
    assert third == {renamed.get(id_, id_): side for id_, side in first.items() if id_ != "low/cleo_0.wav"}
    (sides,) = living.runs(stage="sides")
    kept = living.table(sides, "sides.csv")
    assert list(kept.columns) == ["identity", "side"]
    assert len(kept) == len(second)


def test_base_models_are_known_by_their_training_recordings(living: Living) -> None:
    """Catches new base models asked for because test files are gone, and old ones taken though a training file is."""
    living.run("train")
    tested = sorted(set(living.sides()) - living.trained())
    gone, kept = tested[0], tested[1:]
    (living.data / gone).unlink()
    living.run("attack", "unlearn", methods="naive", forget_percentage="20")
    assert set(living.table(living.runs(stage="unlearn", method="naive")[-1], "losses/test.csv")["clip_id"]) == {*kept}
    assert "reusing the base model" in living.run("train")
    new = living.say("dan")
    shown = living.run("attack")
    assert f"{counted(len(new), 'recording')} newer than the last `train`: left out until the next one" in shown
    (living.data / sorted(living.trained())[0]).unlink()
    with pytest.raises(UserError, match="the recordings have changed"):
        living.run("attack")


def test_a_person_who_was_answered_is_never_trained_on_again(living: Living) -> None:
    """Catches held-out recordings of the person that change to the training set, new ones that are learnt without a
    word, and the same person in another data set of the registry."""
    living.run("train")
    first = living.sides()
    held_out = {id_ for id_, member in first.items() if "ada" in id_ and member == "0"}
    living.answer(forget="speaker", forget_speakers="ada")
    living.say("ada", range(20, 40), ("low",))
    living.say("dan")
    (living.data / "low" / "ben_0.wav").unlink()
    moved = sorted(held_out)[0]
    (living.data / moved).rename(living.data / Path(moved).with_name("ada_99.wav"))
    shown = living.run("train")
    assert "ada" not in living.people(living.trained())
    assert "dan" in living.people(living.trained())
    ours = {id_ for id_ in first if "ada" in id_} - held_out
    assert "(" in shown and f"{len(ours)} of its recordings are left out" in shown
    new = [id_ for id_ in living.sides() if "ada" in id_]  # on the test side: no member, until they are erased
    assert f"{20 - len(new) + len(held_out)} more of the same people too" in shown
    assert f"{len(new)} held-out ones stay as non-members until `erase`" in shown
    entry = living.table(living.runs(stage="ledger")[0], "recordings.csv")
    assert set(entry["scope"]) == {"person"}
    living.run("train", dataset_name="others", clip_seconds="0.3")
    assert living.people(living.trained(dataset_name="others")) == {"ben", "cleo", "dan"}


def test_a_class_that_was_answered_is_out_of_every_set(living: Living) -> None:
    """Catches test recordings of the class that no model can know any more, as errors and as non-members."""
    living.run("train")
    living.answer(forget="class", forget_class_names="middle")
    assert {id_.split("/")[0] for id_ in living.sides()} == set(PITCH)
    living.say("dan")
    shown = living.run("train")
    assert {id_.split("/")[0] for id_ in living.sides()} == {"low", "high"}
    assert "more of its classes too" in shown
    living.run("attack", "unlearn", methods="naive", forget_percentage="20")
    run = living.runs(stage="unlearn", method="naive")[-1]
    for path in ("losses/test.csv", "losses/remain.csv", "audit/per_clip.csv"):
        assert not living.table(run, path)["clip_id"].str.startswith("middle").any()


def test_a_list_with_test_recordings_is_answered(living: Living, tmp_path: Path) -> None:
    """Catches a list of all of a person's files that is refused, and a test recording that is trained on afterwards."""
    living.run("train")
    first = living.sides()
    wanted = sorted(id_ for id_ in first if "ada" in id_)
    (tmp_path / "list.csv").write_text("id;reason\n" + "".join(f"{id_};moved\n" for id_ in wanted))
    request = {"forget": "list", "forget_list": str(tmp_path / "list.csv")}
    n = sum(first[id_] == "0" for id_ in wanted)
    assert n
    assert f"{counted(n, 'recording')} of {len(wanted)} never trained on" in living.answer(**request)
    entry = living.table(living.runs(stage="ledger")[0], "recordings.csv")
    assert sorted(entry["clip_id"]) == wanted
    assert set(entry.loc[entry["forgotten"] == "False", "clip_id"]) == {id_ for id_ in wanted if first[id_] == "0"}
    assert entry["source_hash"].str.len().eq(64).all()
    for id_ in wanted:
        (living.data / id_).rename(living.data / f"{id_[:-4]}x.wav")
    living.say("dan")
    living.run("train", clip_seconds="0.3")  # every clip is another one now
    assert living.people(set(living.sides())) == {"ben", "cleo", "dan"}
    (tmp_path / "only.txt").write_text(next(id_ for id_ in first if "ben" in id_ and first[id_] == "0"))
    with pytest.raises(UserError, match="names 1 recording, none of which was trained on: there is nothing to unlearn"):
        only = {"forget": "list", "forget_list": str(tmp_path / "only.txt"), "clip_seconds": "0.3"}
        living.run("attack", "unlearn", methods="naive", **only)


def test_a_list_of_people_is_answered_as_it_comes_by_mail(living: Living, tmp_path: Path) -> None:
    """Catches a spreadsheet's file that is refused, names with commas or accents that are not found, and a list of
    people that bars their recordings of today alone."""
    living.say("M\u00fcller, Jos\u00e9")
    living.run("train")
    path = tmp_path / "people.csv"
    text = 'reason;speaker;date\nmoved;"Mu\u0308ller, Jose\u0301";2026-01-02\n"left; at once";ada ;\n'
    path.write_bytes(text.encode("utf-16"))
    shown = living.answer(forget="list", forget_list=str(path))
    assert "2 names with other blanks or accents than here" in shown
    run = living.runs(stage="unlearn", method="naive")[-1]
    asked = living.table(run, "request.csv")
    assert living.people(set(asked["clip_id"])) == {"ada", "M\u00fcller, Jos\u00e9"}
    assert set(asked["scope"]) == {"person"}
    assert set(zip(asked["speaker"], asked["reason"], asked["date"])) == {
        ("ada", "left; at once", ""), ("M\u00fcller, Jos\u00e9", "moved", "2026-01-02")
    }  # fmt: skip
    assert len(living.table(run, "losses/held_out.csv"))
    entries = [living.table(entry, "recordings.csv") for entry in living.runs(stage="ledger")]
    assert [set(entry["speaker"]) for entry in entries] == [{"M\u00fcller, Jos\u00e9"}, {"ada"}]
    assert sorted(id_ for entry in entries for id_ in entry["clip_id"]) == sorted(asked["clip_id"])
    living.say("ada", range(20, 30))
    living.run("train")
    assert living.people(living.trained()) == {"ben", "cleo"}
    path.write_text("speaker\nBen\n")
    with pytest.raises(UserError, match="did you mean 'ben'"):
        living.run("attack", "unlearn", methods="naive", forget="list", forget_list=str(path))


def test_silence_is_nobodys_copy(living: Living) -> None:
    """Catches recordings of other people that are forgotten with somebody's because all begin with silence."""
    quiet = [f"low/{person}_quiet{i}.wav" for person in PEOPLE for i in range(3)]
    for i, id_ in enumerate(quiet):
        voice = np.random.default_rng(i).normal(0, 0.1, 6_400) if i % 3 else np.zeros(6_400)  # of each, one is silent
        soundfile.write(living.data / id_, np.concatenate([np.zeros(12_800), voice]), 16_000)
    shown = living.run("train")
    assert "9 clips without sound or of one value: no copies of each other" in shown
    first = living.table(living.runs(stage="train", role="seed")[-1], "losses.csv").set_index("clip_id")
    assert first["source_hash"].nunique() == first["audio_hash"].nunique() == len(first)
    assert not {file_sha256(living.data / id_) for id_ in quiet[:1]} & set(first["source_hash"])
    living.answer(forget="speaker", forget_speakers="ada")
    asked = living.table(living.runs(stage="unlearn", method="naive")[-1], "request.csv")
    assert living.people(set(asked["clip_id"])) == {"ada"}
    voiced = [id_ for id_ in quiet if "ada" in id_ and id_ in living.trained() and not id_.endswith("0.wav")]
    for id_ in voiced:  # with a voice after the clip it is known whatever its name
        (living.data / id_).rename(living.data / id_.replace("ada", "somebody"))
    living.run("train")
    assert living.people(living.trained()) == {"ben", "cleo"}
