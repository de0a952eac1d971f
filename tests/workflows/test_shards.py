"""Base models of shards from training to erasure, through the commands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from tests.answered import CLASSES, RATE, Answered

PEOPLE = [f"p{i}" for i in range(1, 9)]
SHARDS = {"shards": "2"}
OWN_PITCHES = {"p1": (5_500, 550, 1_800), "p2": (4_300, 7_000, 650)}


def own_words(folder: Path) -> Path:
    """Tones, of which p1 and p2 have other ones than everybody else: who has not heard them does not know theirs."""
    time = np.arange(RATE // 2) / RATE
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i, person in enumerate(PEOPLE):
            for take in range(6):
                own = np.random.default_rng([number, i, take])
                pitch = OWN_PITCHES.get(person, (300, 1_000, 3_000))[number] + own.uniform(-5, 5)
                wave = own.uniform(0.2, 0.4) * np.sin(2 * np.pi * pitch * time) + own.normal(0, 0.01, len(time))
                soundfile.write(folder / name / f"{person}_{take}.wav", wave, RATE)
    return folder


def ask(person: str, **more: str) -> dict[str, str]:
    return {"forget": "speaker", "forget_speakers": person, **more}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Answered, Path]]:
    """Base models of two shards with their attack models, made once, and a backup of the whole."""
    top = tmp_path_factory.mktemp("shards")
    with LocalEngine(1) as engine:
        project = Answered.new(top / "project", engine)
        own = {"data_dir": str(own_words(top / "project" / "sounds")), "dataset_name": "sounds"}
        project = replace(project, parameters={**project.parameters, **own})
        assert "2 shards of " in project.run("train", **SHARDS)
        project.run("attack")
        project.save(top / "backup")
        yield project, top / "backup"


@pytest.fixture
def project(trained: tuple[Answered, Path]) -> Answered:
    made, backup = trained
    made.restore(backup)
    return made


def newest(project: Answered, **tags: str) -> str:
    return project.runs(**tags)[-1]


def weights(project: Answered, run: str) -> str:
    return project.tags(run)["weights"]


def tell_version(project: Answered, key: str, value: str) -> None:
    """Give every version a tag, as if another command had made it."""
    every = "select distinct name, version, ?, ? from model_version_tags"
    project.query(f"insert into model_version_tags (name, version, key, value) {every}", key, value)


def test_answers_in_a_row_are_what_training_without_them_gives(project: Answered) -> None:
    """Catches networks that are not `train`'s to the bit, a second answer from a wrong start, and zeros that break."""
    answers = []
    for person in ("p1", "p2"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # a division by differences that are all 0
            told = project.run("unlearn", **ask(person, methods="naive,exact_shards", register="exact_shards"))
            project.run("compare")
        assert "in service: " in told
        found = {method: newest(project, stage="unlearn", role="method", method=method) for method in ("naive",)}
        found["exact"] = newest(project, stage="unlearn", role="method", method="exact_shards")
        assert weights(project, found["naive"]) == weights(project, found["exact"])
        answers.append(found["exact"])
        record = (project.place(newest(project, stage="unlearn", role="parent")) / "evidence.md").read_text()
        assert "Exact by construction, by the list of the training (shards.csv): all recordings to forget" in record
        assert "1 shard of 2 (number " in record and "bit for bit as before" in record
        listed = project.table(answers[-1], "shards.csv")
        assert set(listed["clip_id"]) == project.trained(answers[-1])
        project.run("attack")
    assert project.tags(answers[1])["base_run_id"] == answers[0]
    base = newest(project, stage="train", role="seed")
    project.run("train", **SHARDS)
    again = newest(project, stage="train", role="seed")
    assert again != base
    assert weights(project, again) == weights(project, answers[1])
    before, after = (project.table(run, "shards.csv").set_index("clip_id")["shard"] for run in (base, again))
    assert len(after) < len(before)
    assert (before[after.index] == after).all()


@pytest.mark.parametrize(
    ("methods", "register"), [("exact_shards", "exact_shards"), ("exact_shards,fine_tune", "best")]
)
def test_shards_answer_without_a_retrained_whole(project: Answered, methods: str, register: str) -> None:
    """Catches an exact answer that is refused for want of the naive that it spares, or that another method beats."""
    told = project.run("unlearn", **ask("p1", methods=methods, register=register))
    assert "in service: " in told and "exact_shards, which is retraining itself" in told
    assert not project.runs(stage="unlearn", role="method", method="naive")
    record = (project.place(newest(project, stage="unlearn", role="parent")) / "evidence.md").read_text()
    assert "Exact by construction" in record and " nan" not in record
    compared = project.run("compare")
    assert "Traceback" not in compared and "erase" in compared


def test_an_erasure_leaves_nobody_on_a_list_of_shards(project: Answered) -> None:
    """Catches lists of shards, and models of them, that an erasure does not find."""
    gone = project.ids("p1") | {f"{name}/p1_{take}.wav" for name in CLASSES for take in range(6)}
    base = newest(project, stage="train", role="seed")
    listed = project.table(base, "shards.csv")
    hashes = set(listed.loc[listed["clip_id"].isin(gone), "source_hash"])
    assert hashes and {"shards.csv"} <= {path.name for path in project.place(base).iterdir()}
    project.run("unlearn", **ask("p1", methods="naive,exact_shards", register="exact_shards"))
    project.run("erase", request=project.hash("p1"), confirm="true")
    entry = project.place(newest(project, stage="ledger", role="entry"))
    names = [text.encode() for text in (*gone, *hashes)]
    files = [path for top in ("mlruns", "cache") for path in (project.folder / top).rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        if entry not in path.parents:
            assert not [name for name in names if name in path.read_bytes()], path
    left = project.table(base, "shards.csv")
    assert len(left) == len(listed) - len(hashes)
    assert project.tags(base)["retired"]
    assert {alias for _, alias, _ in project.aliases()} >= {"unlearned", "unlearned-seed-40"}


def test_what_cannot_be_exact_is_refused_before_any_work(project: Answered) -> None:
    """Catches shards that are retrained of models that have none, or that another method has changed."""
    exact = ask("p2", methods="naive,exact_shards")
    with pytest.raises(UserError, match=r"shards=4 contradicts .* trained with shards=2"):
        project.run("unlearn", **exact, shards="4")
    for key, value in (("method", "fine_tune"), ("cell", "some")):
        tell_version(project, key, value)
    with pytest.raises(UserError, match=r"retrains shards, but version 1 of .* unlearned by fine_tune, .* take naive"):
        project.run("unlearn", **exact)
    project.query("delete from model_version_tags where key in ('method', 'cell')")
    tell_version(project, "adopted", "hash of weights")
    with pytest.raises(UserError, match=r"retrains shards, but version 1 of .* was adopted, and no list says"):
        project.run("unlearn", **exact)
    project.query("delete from model_version_tags where key = 'adopted'")
    project.run("train")
    project.run("attack")
    for asked in (exact, ask("p2", methods="all", register="exact_shards")):
        for command in ("unlearn", "main"):
            with pytest.raises(
                UserError, match=r"^exact_shards retrains shards, and a base model of shards=1 has none"
            ):
                project.run(command, **asked)


def test_an_empty_shard_is_refused_and_a_lacking_class_is_told(project: Answered) -> None:
    """Catches a network that nothing is learnt by, and one that cannot know a class, without a word."""
    with pytest.raises(UserError, match=r"shards=16 leaves \d+ shards \(.*\) without recordings of 8 speakers: give"):
        project.run("train", shards="16")
    (project.folder / "sounds" / "new").mkdir()
    for take in range(6):  # a class that p1 alone has
        wave, rate = soundfile.read(project.folder / "sounds" / "low" / f"p1_{take}.wav")
        soundfile.write(project.folder / "sounds" / "new" / f"p1_{take}.wav", wave[::-1], rate)
    listed = project.table(newest(project, stage="train", role="seed"), "shards.csv")
    own = int(listed.loc[listed["clip_id"].str.contains("/p1_"), "shard"].iloc[0])
    told = project.run("train", **SHARDS, n_epochs="1")
    assert f"note: shard {1 - own} has no recording of 1 class (new): its network cannot answer so" in told


def test_models_of_shards_are_adopted_tuned_and_served(project: Answered) -> None:
    """Catches a served network of one shard, weights that do not fit it, and rehearsals without shards."""
    listed = project.table(newest(project, stage="train", role="seed"), "losses.csv")
    train = project.folder / "training.csv"
    listed.loc[listed["member"] == "1", "clip_id"].rename("id").to_csv(train, index=False)
    name = "audio-mu.sounds.logmel.Flat"
    theirs = replace(project, parameters={**project.parameters, **SHARDS, "dataset_name": "theirs"})
    said = theirs.run("adopt", weights=f"models:/{name}/1", trained_on=str(train), learning_rate="0.001")
    assert "adopted as base models" in said
    own, adopted = (newest(project, stage="train", role="seed", dataset_name=of) for of in ("sounds", "theirs"))
    assert weights(project, adopted) == weights(project, own)
    assert project.tags(adopted)["shards"] == "2"
    theirs.run("attack")
    told = theirs.run("unlearn", **ask("p3", methods="naive,fine_tune"))
    assert "naive" in told
    with pytest.raises(UserError, match=r"retrains shards, but version 1 of .*theirs.* was adopted"):
        theirs.run("unlearn", **ask("p3", methods="naive,exact_shards"))
    project.run("tune", **ask("p1", methods="fine_tune", n_trials="1"))
    assert newest(project, stage="tune", role="trial")
