"""People and classes that are answered, and files that lose or change the name that they were known by."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import soundfile
from mlflow import MlflowClient

from audio_mu.errors import UserError
from tests.answered import Answered, p1_answered


def members(answered: Answered) -> set[str]:
    """What the newest base model was trained on."""
    return answered.trained(answered.runs(stage="train", role="seed")[-1])


def everybody(answered: Answered) -> set[str]:
    """All recordings that the newest base model was trained or tested on."""
    return set(answered.table(answered.runs(stage="train", role="seed")[-1], "losses.csv")["clip_id"])


@pytest.mark.parametrize("pattern", ["", r"p(\d+)_", r"(low|middle|high)/"])
def test_another_pattern_is_refused(answered: Answered, pattern: str) -> None:
    """Catches held-out and later recordings of an answered person that are trained on under another name or none."""
    with pytest.raises(UserError, match=r"speaker_pattern=.* finds other speakers than .* request speaker-p1 \(\w+\)"):
        answered.run("train", speaker_pattern=pattern, split_seed="5")


@pytest.fixture(scope="module")
def tabled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Answered, Path]]:
    """A small store in which p1 is answered, whose people are in a table, and a backup of it."""
    top = tmp_path_factory.mktemp("tabled")
    with p1_answered(top / "project", lambda made: table(made, {}), speaker_pattern="") as made:
        made.save(top / "backup")
        yield made, top / "backup"


@pytest.fixture
def tabled(tabled_once: tuple[Answered, Path]) -> Answered:
    """The store in which p1 is answered, as it was made."""
    made, backup = tabled_once
    made.restore(backup)
    return made


def table(answered: Answered, others: Mapping[str, str]) -> None:
    """Write speakers.csv: the people of the files' names, but for those whose names are others now."""
    root = answered.folder / "recordings"
    names = {path.relative_to(root).as_posix(): path.name.split("_")[0] for path in sorted(root.glob("*/*.wav"))}
    rows = [f"{id_},{others.get(id_, others.get(name, name))}\n" for id_, name in names.items()]
    (root / "speakers.csv").write_text("id,speaker\n" + "".join(rows))


def test_another_name_in_the_table_is_refused(tabled: Answered) -> None:
    """Catches an answered person whose rows are given to somebody else, so that nobody would be kept out."""
    table(tabled, {"p1": "robert"})
    with pytest.raises(UserError, match=r"speaker-p1 .* is about p1, whose recording '.*p1_.*' is now of 'robert'"):
        tabled.run("train")
    table(tabled, {})
    tabled.run("erase", request=tabled.hash("p1"), confirm="true")
    tabled.run("train")
    table(tabled, {"p1": "robert"})
    with pytest.raises(UserError, match=r"speaker-p1 .* is about p1, whose recording '.*p1_.*' is now of 'robert'"):
        tabled.run("train")


def test_names_that_look_like_an_answered_persons(tabled: Answered) -> None:
    """Catches a person who is trained on again because a name has another case, without a word."""
    table(tabled, {"low/p4_0.wav": "P1"})
    output = tabled.run("train")
    assert "P1 looks like p1 of the answered request speaker-p1 (" in output.replace("'", "")


def test_another_pattern_is_refused_when_the_files_are_gone(answered: Answered) -> None:
    """Catches later recordings of an erased person, whose old files are deleted, that are read as nobody's."""
    answered.run("erase", request=answered.hash("p1"), confirm="true")
    for path in sorted((answered.folder / "recordings").glob("*/p1_*.wav")):
        path.unlink()
    for path in sorted((answered.folder / "recordings").glob("*/p2_0.wav")):
        wave, rate = soundfile.read(path)
        soundfile.write(path.with_name("p1_later.wav"), wave[::-1], rate)
    with pytest.raises(UserError, match=r"speaker_pattern='' finds other speakers than .* request speaker-p1"):
        answered.run("train", speaker_pattern="")
    answered.run("train", n_epochs="2")
    assert everybody(answered)
    assert not everybody(answered) & answered.ids("p1")


def test_held_out_recordings_are_known_by_their_sound_elsewhere(answered: Answered) -> None:
    """Catches the held-out recordings of an answered person in the training of a data set that knows no speakers."""
    output = answered.run("train", dataset_name="others", speaker_pattern="", split_seed="5")
    assert "of request speaker-p1 (" in output and "have no speaker here" in output
    assert members(answered) and not members(answered) & answered.ids("p1")


def later(answered: Answered, person: str = "p1") -> set[str]:
    """Add recordings of a person to the folder; their ids."""
    ids = set()
    for path in sorted((answered.folder / "recordings").glob(f"*/{person}_[0-9].wav")):
        wave, rate = soundfile.read(path)
        new = path.with_name(path.name.replace("_", "_5"))
        soundfile.write(new, wave[::-1], rate)
        ids.add(f"{new.parent.name}/{new.name}")
    return ids


@pytest.mark.parametrize("erased", [False, True])
def test_a_person_of_another_name_in_another_data_set(answered: Answered, erased: bool) -> None:
    """Catches later recordings of an answered person in the training of a data set that has the same folder's people
    by numbers."""
    if erased:
        answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert later(answered)
    output = answered.run("train", dataset_name="others", speaker_pattern=r"p(\d+)_", split_seed="5")
    assert "1 is p1 of request speaker-p1 (" in output
    assert re.search(r"ledger: request speaker-p1 .*: \d+ of its recordings are left out", output)
    assert members(answered) and not members(answered) & answered.ids("p1")
    assert not erased or not everybody(answered) & answered.ids("p1")


@pytest.mark.parametrize("known", ["before the answer", "by the sound of then", "before the answer, erased"])
def test_later_recordings_of_a_person_whose_others_are_gone(answered: Answered, known: str, tmp_path: Path) -> None:
    """Catches what an answered person says later, where an earlier training of another data set alone knows under which
    name, and where an erasure leaves the person's other recordings under that name."""
    copy = tmp_path / "copy"
    others = {"data_dir": str(copy), "dataset_name": "others", "speaker_pattern": r"(\d+)_"}
    for path in sorted((answered.folder / "recordings").glob("*/p*_*.wav")):
        target = copy / path.parent.name / path.name.replace("p", "")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for path in sorted(copy.glob("*/1_[01].wav")):  # what p1 has said there and not in the data set of the answer
        wave, rate = soundfile.read(path)
        soundfile.write(path.with_name(f"1_own{path.name[2]}.wav"), wave[::-1], rate)
    answered.run("train", **others, **({"ledger": "ignore"} if "before" in known else {}))
    if "erased" in known:
        own = {id_ for id_ in everybody(answered) if "/1_own" in id_}
        base = answered.runs(stage="train", role="seed")[-1]
        answered.run("erase", request=answered.hash("p1"), confirm="true")
        assert own and not own & set(answered.table(base, "losses.csv")["clip_id"])
        entry = answered.table(answered.entries()[0], "recordings.csv")
        assert set(entry["speaker"]) == {"p1"}
    for path in sorted(copy.glob("*/1_*.wav")):
        wave, rate = soundfile.read(path)
        soundfile.write(path.with_name(path.name.replace("_", "_5")), 0.5 * wave[::-1], rate)
        path.unlink()
    output = answered.run("train", **others)
    assert "1 is p1 of request speaker-p1 (" in output
    assert everybody(answered) and not {id_ for id_ in everybody(answered) if "/1_5" in id_}
    assert {id_ for id_ in members(answered) if "/2_" in id_}


@pytest.mark.parametrize("erased", [False, True])
def test_a_person_of_several_names_in_another_data_set(answered: Answered, erased: bool) -> None:
    """Catches a person whose recordings another data set has under names of takes, one of which is new."""
    if erased:
        answered.run("erase", request=answered.hash("p1"), confirm="true")
    with pytest.raises(UserError, match=r"about p1, whose recordings are of .*p1_0.* here: new recordings"):
        answered.run("train", dataset_name="others", speaker_pattern=r"(p\d+_\d+)")


def test_an_erased_person_in_a_data_set_that_knows_no_speakers(answered: Answered) -> None:
    """Catches an erasure after which nobody is told that a person's later recordings are not known."""
    answered.run("erase", request=answered.hash("p1"), confirm="true")
    output = answered.run("train", dataset_name="others", speaker_pattern="", split_seed="5")
    assert "WARNING: 12 recordings of request speaker-p1 (" in output and "have no speaker here" in output
    assert "ledger: request speaker-p1 (" in output and "12 of its recordings are left out" in output
    index = b"".join(path.read_bytes() for path in (answered.folder / "cache").rglob("index.json"))
    assert index and b"p1_" not in index
    named = answered.run("train", dataset_name="named", split_seed="5")
    assert "12 more of the same people too" in named


def test_a_copy_under_somebody_elses_name_in_another_data_set(answered: Answered) -> None:
    """Catches somebody who is left out for one recording of the person's."""
    for path in (answered.folder / "recordings" / "low").glob("p1_[0-9].wav"):
        path.with_name("p3_copy.wav").write_bytes(path.read_bytes())
    output = answered.run("train", dataset_name="others", speaker_pattern=r"p(\d+)_")
    assert "1 is p1 of request" in output
    assert answered.ids("p3") - {"low/p3_copy.wav"} <= everybody(answered)
    assert not members(answered) & (answered.ids("p1") | {"low/p3_copy.wav"})


@pytest.mark.parametrize("erased", [False, True])
def test_a_removed_class_under_another_name(answered: Answered, erased: bool) -> None:
    """Catches the test recordings of an answered class in training or test once its folder has another name."""
    answered.run("attack")
    request = {"forget": "class", "forget_class_names": "low", "methods": "naive", "register": "naive"}
    answered.run("unlearn", **request)
    entry = answered.finished_entries()[-1]
    known = {*answered.table(entry, "recordings.csv")["clip_id"], *answered.table(entry, "nonmembers.csv")["clip_id"]}
    held_out = {id_ for id_ in known if id_.startswith("low/")}
    if erased:
        answered.run("erase", request=answered.tags(entry)["request_hash"][:10], confirm="true")
    (answered.folder / "recordings" / "low").rename(answered.folder / "recordings" / "deep")
    deep = sorted((answered.folder / "recordings" / "deep").glob("p2_*.wav"))
    for i, path in enumerate(deep):  # the class has new recordings of its own
        wave, rate = soundfile.read(path)
        soundfile.write(path.with_name(f"p3_new{i}.wav"), wave[::-1], rate)
    answered.run("train", split_seed="5")
    assert held_out
    assert not {id_.replace("low/", "deep/") for id_ in held_out} & everybody(answered)


def test_the_same_command_again(answered: Answered) -> None:
    """Catches a script that tries again and is told that the answered person is unknown."""
    request = {"forget": "speaker", "forget_speakers": "p1", "methods": "naive", "register": "naive"}
    before = answered.aliases(), answered.entries()
    output = answered.run("unlearn", **request)
    assert "speaker-p1 is answered (audio-mu.tones.logmel.Flat, seed 40: version 2): there is nothing to do" in output
    assert (answered.aliases(), answered.entries()) == before


def test_an_answered_person_asked_for_otherwise(answered: Answered, tmp_path: Path) -> None:
    """Catches other parameters for an answered person that end in a list of who is left, as if the name were wrong."""
    request = {"forget": "speaker", "forget_speakers": "p1", "register": "best", "methods": "naive,fine_tune"}
    answered.run("attack")
    (entry,) = answered.entries()
    day = answered.tags(entry)["answered_at"][:10]
    told = (
        rf"^p1 is answered already: request speaker-p1, {answered.hash('p1')[:8]}, on {day}; its versions in service "
        r"are audio-mu\.tones\.logmel\.Flat seed 40: version 2: there is nothing to do$"
    )
    with pytest.raises(UserError, match=told):
        answered.run("unlearn", **request)
    with pytest.raises(UserError, match=r"^p1 is answered already: .*: leave it out$"):
        answered.run("unlearn", **{**request, "forget_speakers": "p1,p2"})
    (tmp_path / "people.csv").write_text("Speaker\np1\n")
    listed = {"forget": "list", "forget_list": str(tmp_path / "people.csv"), "methods": "naive"}
    with pytest.raises(UserError, match=told):
        answered.run("unlearn", **listed)
    (tmp_path / "people.csv").write_text("ID\n" + "\n".join(sorted(answered.ids("p1"))) + "\n")
    with pytest.raises(UserError, match=r"^forget='list' is answered already: request speaker-p1, .*nothing to do$"):
        answered.run("unlearn", **listed)
    answered.run("erase", request=answered.hash("p1"), confirm="true")
    answered.run("attack")
    with pytest.raises(UserError, match=r"p1 is answered already: .* on .*, erased since; .*: there is nothing to do$"):
        answered.run("unlearn", **request)
    with pytest.raises(
        UserError, match=r"has \['nobody'\].*\(.*speaker-p1; erased, they stay out with ledger=ignore too"
    ):
        answered.run("unlearn", **{**request, "forget_speakers": "nobody"})


def test_somebody_whom_no_model_knows(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a person with test recordings alone who cannot be entered into the ledger, or is learnt later, and an
    erasure that leaves something of them."""
    losses = answered.table(answered.runs(stage="train", role="seed")[-1], "losses.csv")
    trained_on = losses.loc[(losses["speaker"] == "p4") & (losses["member"] == "1"), "clip_id"]
    for id_ in trained_on:
        (answered.folder / "recordings" / id_).unlink()
    answered.run("train")
    answered.run("attack")
    of_p4 = answered.ids("p4")
    request = {"forget": "speaker", "forget_speakers": "p4", "methods": "naive"}
    with pytest.raises(UserError, match=r"none of which was trained on.*with register=naive they enter the ledger"):
        answered.run("unlearn", **request)
    before = answered.aliases()
    output = answered.run("unlearn", register="naive", **request)
    assert f"was trained on its {len(of_p4)} recording" in output
    assert answered.aliases() == before
    entry = answered.finished_entries()[-1]
    assert {*answered.table(entry, "recordings.csv")["clip_id"]} == of_p4
    given = MlflowClient(f"sqlite:///{answered.database}").create_run("0").info.run_id  # as `mlflow run` makes one
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_RUN_ID", given)
        assert "there is nothing to do" in answered.run("unlearn", register="naive", **request)
    assert answered.tags(given)["mlflow.runName"] == "nothing to compute"
    assert "is answered" in answered.tags(given)["mlflow.note.content"]

    tone, rate = soundfile.read(answered.folder / "recordings" / min(of_p4))
    soundfile.write(answered.folder / "recordings" / "low" / "p4_new.wav", tone[::-1], rate)
    assert "1 more of the same people too" in answered.run("train", split_seed="7")
    assert not answered.ids("p4") & everybody(answered)

    answered.run("attack", split_seed="7")
    other = {**request, "forget_speakers": "p3", "register": "naive"}
    assert "registered naive" in answered.run("unlearn", split_seed="7", **other)
    answered.run("erase", request=answered.hash("p4"), confirm="true")
    left = [path for path in answered.folder.rglob("*.csv") if b"p4_" in path.read_bytes()]
    assert not [path for path in left if entry not in path.parts]
    assert b"p4_" not in answered.database.read_bytes()


def test_an_erasure_that_was_killed_is_told(answered: Answered) -> None:
    """Catches recordings that are called gone while an erasure has not ended."""
    (entry,) = answered.entries()
    answered.query("update tags set value = 'erasing' where key = 'state' and run_uuid = ?", entry)
    assert "its erasure was interrupted, what is left of it is there still: run" in answered.run("train")


def test_a_folder_with_a_caches_name(answered: Answered) -> None:
    """Catches an erasure that removes somebody's folder for its name."""
    mine = answered.folder / "cache" / "features" / ("f" * 32)
    mine.mkdir()
    (mine / "mine.txt").write_text("mine")
    output = answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert (mine / "mine.txt").read_text() == "mine"
    assert f"folder among the feature caches: {mine}" in output


def test_an_erasure_that_takes_the_model_in_service_says_so(answered: Answered) -> None:
    """Catches a registry in which nothing is served any more, without a word, and an erasure whose end moves."""
    name = "audio-mu.tones.logmel.Flat"
    held = "select version from registered_model_aliases where alias = 'seed-40'"
    ((base,),) = answered.query(held)
    answered.query("update registered_model_aliases set version = ? where alias = 'unlearned'", base)
    output = answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert f"remains: no version behind {name}@unlearned: the version in service had learned the recordings" in output
    record = answered.place(answered.entries()[0]) / "erasure.json"
    finished = json.loads(record.read_text())["finished_at"]
    time.sleep(1.1)
    answered.run("erase", request=answered.hash("p1"), confirm="true")
    assert json.loads(record.read_text())["finished_at"] == finished


def test_a_folder_that_is_encoded_anew(answered: Answered, tmp_path: Path) -> None:
    """Catches recordings that were asked for one by one, and are learnt again once they are in another format."""
    root, named = answered.folder / "recordings", ["low/p2_0.wav", "high/p3_1.wav"]
    path = tmp_path / "list.csv"
    path.write_text("id\n" + "\n".join(named))
    answered.run("attack")
    answered.run("unlearn", forget="list", forget_list=str(path), methods="naive", register="naive")
    for source in [*root.rglob("*.wav")]:
        wave, rate = soundfile.read(source)
        soundfile.write(source.with_suffix(".flac"), 0.9 * wave, rate)
        source.unlink()
    assert "2 of its recordings are left out" in answered.run("train")
    newest = answered.trained(answered.runs(stage="train", role="seed")[-1])
    assert newest
    assert newest.isdisjoint({id_.replace(".wav", ".flac") for id_ in named})
    for id_ in named:  # and where it has another name as well
        (root / id_).with_suffix(".flac").unlink()
    assert "none of its recordings is in the folder, where they are in another format" in answered.run("train")


def test_the_record_of_one_of_several_people(answered: Answered, tmp_path: Path) -> None:
    """Catches somebody else's test recordings in the record of a person's erasure."""
    path = tmp_path / "people.csv"
    path.write_text("speaker\np2\np3\n")
    answered.run("attack")
    answered.run("unlearn", forget="list", forget_list=str(path), methods="naive", register="naive")
    assert "test recordings" not in answered.run("erase", request=answered.hash("p2"), confirm="true")


@pytest.mark.parametrize("together", [False, True])
def test_what_several_people_say_later_goes_in_any_order(answered: Answered, together: bool) -> None:
    """Catches later recordings of a person that only the caches know, which go with another person's erasure: their
    hashes were in no list, and their rows stayed in other data sets."""
    if together:
        answered.run("attack")
        request = {"forget": "speaker", "forget_speakers": "p2,p3", "methods": "naive", "register": "naive"}
        answered.run("unlearn", **request)
        people = ("p2", "p3")
    else:
        answered.answer("p2")
        people = ("p2", "p1")
    new = {person: later(answered, person) for person in people}
    answered.run("train")  # reads them, and leaves them out
    answered.run("train", dataset_name="others", speaker_pattern="")
    other = answered.runs(stage="train", role="seed", dataset_name="others")[-1]
    assert new["p2"] | new[people[1]] <= set(answered.table(other, "losses.csv")["clip_id"])
    hashes = answered.table(other, "losses.csv").set_index("clip_id")["source_hash"]
    held = answered.table(answered.finished_entries()[-1], "nonmembers.csv")
    if together:
        run = next(run for run in answered.entries() if answered.tags(run)["request"] == "speaker-p2")
        answered.run("erase", request=answered.tags(run)["asked_hash"], confirm="true")
    else:
        answered.run("erase", request=answered.hash("p2"), confirm="true")
        (first, *_) = answered.finished_entries()
        kept = answered.table(first, "recordings.csv")
        assert {*hashes[[*new["p1"]]]} <= {*kept["source_hash"]}
        assert not {*answered.table(first, "nonmembers.csv")["source_hash"]} & {*kept["source_hash"]}
        answered.run("erase", request=answered.hash("p1"), confirm="true")
    for person in people:
        run = next(run for run in answered.entries() if answered.tags(run)["request"] == f"speaker-{person}")
        assert {*hashes[[*new[person]]]} <= {*answered.table(run, "recordings.csv")["source_hash"]}
        assert not {*held.loc[held["speaker"] == person, "source_hash"]} - {
            *answered.table(run, "recordings.csv")["source_hash"]
        }
        left = [path for path in answered.folder.rglob("losses.csv") if f"{person}_".encode() in path.read_bytes()]
        assert not left
