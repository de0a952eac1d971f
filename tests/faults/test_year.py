"""A year of a living folder, through the commands: people come, go and are answered, and nobody comes back.

After every command looking.py looks at the store by itself. Each month says which defects it catches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from tests.alterations import ALTERATIONS
from tests.answered import CLASSES, FLAT, RATE, Answered, meanwhile
from tests.faults.looking import Asked, Looking, Said

NAME, PROTOTYPE = "audio-mu.tones.logmel.Flat", {"experiment": "trial", "dataset_name": "prototype"}
TAKES = 4


class Year:
    """A folder of recordings, a store, and what is true of them."""

    def __init__(self, top: Path, engine: LocalEngine) -> None:
        self.top, self.root, project = top, top / "recordings", top / "project"
        project.mkdir(parents=True)
        (project / "own.py").write_text(FLAT)
        self.flat, self.other = ({"architecture": f"{project}/own.py:{name}"} for name in ("Flat", "Other"))
        self.place = Answered(project, {
            "dataset": "folder", "dataset_name": "tones", "data_dir": str(self.root), "clip_seconds": "0.5",
            "speaker_pattern": r"(p\d+)_", "seeds": "40", "n_epochs": "2", "batch_size": "8", "n_epoch_repair": "1",
            "n_attack_models": "1", "workers": "1", **self.flat,
        }, engine)  # fmt: skip
        self.look = Looking(self.place)
        self.erased: list[Asked] = []
        self.n = 0

    # --- the folder

    def come(self, *people: str, takes: int = TAKES) -> None:
        """Each says every word a few times: a glide around the word's pitch, no two alike."""
        for person in people:
            for word in [word for word in CLASSES for _ in range(takes)]:
                own, time = np.random.default_rng(self.n), np.arange(RATE // 2) / RATE
                low, high, swing, speed = own.uniform((0.85, 0.85, 0.02, 10), (1.15, 1.15, 0.05, 30))
                glide = np.linspace(low, high, len(time)) + swing * np.sin(speed * time)
                wave = 0.3 * np.sin(2 * np.pi * np.cumsum(CLASSES[word] * glide) / RATE) * np.hanning(len(time))
                id_ = f"{word}/{person}_{self.n}.wav"
                (self.root / word).mkdir(parents=True, exist_ok=True)
                soundfile.write(self.root / id_, wave + own.normal(0, 0.001, len(time)), RATE)
                self.knows(id_, Said(person, word, self.n))

    def knows(self, id_: str, said: Said) -> None:
        self.look.knows(id_, said)
        self.n += 1

    def becomes(self, id_: str, person: str, alteration: str = "") -> str:
        """A file gets a new name under somebody's; altered, it is a further file. Returns its id."""
        new, said = f"{self.look.files[id_].word}/{person}_{self.n}", self.look.files[id_]
        if alteration == "FLAC":
            wave, rate = soundfile.read(self.root / id_, dtype="int16")
            soundfile.write(self.root / f"{new}.flac", wave, rate)
            made = self.root / f"{new}.flac"
        elif alteration:
            made = ALTERATIONS[alteration](soundfile.read(self.root / id_)[0], self.root / new)
            said = said._replace(altered=alteration)
        else:
            made = (self.root / id_).rename(self.root / f"{new}{Path(id_).suffix}")
        if alteration in ("", "FLAC"):
            (self.root / id_).unlink(missing_ok=True)
            del self.look.files[id_]
        self.knows(made.relative_to(self.root).as_posix(), said)
        return made.relative_to(self.root).as_posix()

    def go(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            (self.root / id_).unlink()
            del self.look.files[id_]

    def of(self, person: str) -> list[str]:
        """Ids of what somebody has said, under whatever name."""
        return sorted(id_ for id_, said in self.look.files.items() if said.person == person)

    def side(self, id_: str, name: str = "tones") -> str:
        """1 where it was trained on, 0 where it was tested on."""
        said = self.look.files[id_]
        return self.look.sides[name, said.key, said.altered]

    # --- the commands

    def run(self, stage: str, **parameters: str) -> str:
        """Run a command, then look at everything."""
        try:
            return self.place.run(stage, **parameters)
        finally:
            self.looks()

    def save(self) -> None:
        """A backup of the store, and what is true now."""
        self.place.save(self.top / "backup")
        self.saved = list(self.look.out)

    def restore(self) -> None:
        """The store as it was; the folder is as it is."""
        self.place.restore(self.top / "backup")
        self.look.out, self.erased = list(self.saved), []

    def looks(self) -> None:
        self.look.nobody_is_back()
        self.look.nobody_answered_is_served()
        for asked in self.erased:
            self.look.nothing_is_left(asked)

    def train(self, **parameters: str) -> str:
        """Train, and see that all others are still there."""
        said = self.run("train", **parameters)
        table = self.place.table(self.place.runs(stage="train", role="seed")[-1], "losses.csv")
        if "reusing" not in said and not parameters:
            there = {id_ for id_ in table["clip_id"] if not self.look.gone(self.look.files[id_])}
            assert there == {id_ for id_, own in self.look.files.items() if not self.look.gone(own)}
        return said

    def answer(self, *truth: Asked, network: str = "Flat", **request: str) -> str:
        """Answer a request by retraining; `truth`: what it takes, of each of its people in the order of their names."""
        given = {"methods": "naive", "register": "naive", "architecture": f"{self.place.folder}/own.py:{network}"}
        said = self.place.run("unlearn", **{**given, **request})
        name = NAME.replace("Flat", network)
        behind = "select run_id from model_versions v join registered_model_aliases a using (name, version) " \
                 "where name = ? and alias = 'unlearned'"  # fmt: skip
        answers = {name: self.place.query(behind, name)[0][0]}
        hashes = [self.place.tags(run)["request_hash"] for run in self.place.finished_entries()]
        new = [hash_ for hash_ in hashes if hash_ not in {asked.hash for asked in self.look.out}]
        if new:
            self.look.out += [replace(own, hash=hash_, answers=answers) for own, hash_ in zip(truth, new, strict=True)]
        else:  # another network has answered it
            (known,) = [own for own in self.look.out if (own.keys, own.person) == (truth[0].keys, truth[0].person)]
            self.look.out[self.look.out.index(known)] = replace(known, answers={**(known.answers or {}), **answers})
        self.looks()
        return said

    def asks(self, person: str) -> Asked:
        """The request of a person, to be answered."""
        return Asked("", frozenset(self.look.files[id_].key for id_ in self.of(person)), person)

    def erase(self, request: str, *people: str) -> str:
        """Erase a request, which is that of these people; from now on nothing may be left of them."""
        said = self.run("erase", request=request, confirm="true")
        self.erased += [asked for asked in self.look.out if asked.person in people]
        self.looks()
        return said


def january(year: Year) -> None:
    """People come, and somebody writes a note beside a run, which an erasure finds later. Catches recordings that are
    left out without a reason, and a word that nobody is tested on."""
    year.come("p1", "p2", "p3", "p4", "p5", "p6")
    year.train()
    year.train(**year.other)
    year.train(**PROTOTYPE)
    note = f"listen to {year.of('p1')[0]}", year.place.runs(stage="train", role="seed")[0]
    year.place.query("insert into tags (key, value, run_uuid) values ('note', ?, ?)", *note)
    for name in ("tones", "prototype"):
        sides = {(year.look.files[id_].word, year.side(id_, name)) for id_ in year.look.files}
        assert sides == {(word, side) for word in CLASSES for side in "01"}


def february(year: Year) -> None:
    """Requests cross, and two networks answer one of them at once. Catches a model in service that holds the person who
    was answered while it was made, and two entries of one request."""
    p1, p6 = year.asks("p1"), year.asks("p6")
    asked = {"forget": "speaker", "forget_speakers": "p1"}

    def the_other_network() -> None:
        year.looks()
        year.answer(p1, network="Other", **asked)

    def both_networks() -> None:
        year.looks()  # p6's models were made before p1 is answered
        with pytest.MonkeyPatch.context() as patch:
            meanwhile(patch, the_other_network)
            year.answer(p1, **{**asked, "methods": "naive,fine_tune"})

    year.run("attack", **year.other)
    year.run("attack")
    with pytest.MonkeyPatch.context() as patch:
        meanwhile(patch, both_networks)
        with pytest.raises(UserError, match=r"speaker-p1 \(\w{8}\) was answered in between.*same command again"):
            year.answer(p6, forget="speaker", forget_speakers="p6")
    year.looks()
    year.run("attack")
    year.answer(p6, forget="speaker", forget_speakers="p6")
    assert len(year.place.finished_entries()) == 2


def march(year: Year) -> None:
    """Files come, go, are renamed and encoded anew. Catches an answered person who is known by the file's name or
    format alone, by yesterday's recordings, in one experiment or in one data set; somebody who changes sides."""
    year.go(year.of("p2"))
    year.come("p7", "p8", "p9")
    year.come("p1", takes=1)
    for person, name in (("p1", "p3"), ("p3", "p5"), ("p4", "p4")):
        first, second = year.of(person)[:2]
        year.becomes(first, name)
        year.becomes(second, name, "FLAC")
    year.train(**PROTOTYPE)
    year.train(experiment="second")
    year.train()


def april(year: Year) -> None:
    """Two people by one list, as a spreadsheet writes it. Catches a file that is refused, and one entry for both."""
    path = year.top / "people.csv"
    path.write_bytes("reason;speaker\nmoved;p8\nleft;p7\n".encode("utf-16"))
    year.run("attack")
    year.answer(year.asks("p7"), year.asks("p8"), forget="list", forget_list=str(path))


def may(year: Year) -> None:
    """After a backup one of the list's two people is erased, and p1 whom two networks answered. Catches rows, pages,
    caches and models of them, of the other data set and of another experiment too; the other one of the list who goes
    as well; erased people who come back with files that are still there."""
    year.save()
    hashes = {asked.person: asked.hash for asked in year.look.out}
    year.erase(hashes["p8"], "p8")
    states = {year.place.tags(run)["request"]: year.place.tags(run)["state"] for run in year.place.entries()}
    assert (states["speaker-p7"], states["speaker-p8"]) == ("answered", "erased")
    year.erase(hashes["p1"][:8], "p1")
    year.train()
    year.run("attack")
    year.answer(year.asks("p9"), forget="speaker", forget_speakers="p9")


def june(year: Year) -> None:
    """The backup is restored. Catches erased people who are back with it, and a request that it does not know,
    without a word."""
    hashes = {asked.person: asked.hash for asked in year.look.out}
    year.restore()
    said = year.erase("all", "p1", "p8")
    for person, words in (("p1", "was erased"), ("p8", "was erased"), ("p9", "was answered")):
        assert f"request {hashes[person][:8]} " in said and words in said
    assert "answer it again" in said
    year.run("attack")
    year.answer(year.asks("p9"), forget="speaker", forget_speakers="p9")
    assert {asked.person: asked.hash for asked in year.look.out} == hashes
    year.go(year.of("p1"))


def july(year: Year) -> None:
    """A list with a test recording among its recordings. Catches a refusal of it, and a recording that is learnt under
    another name afterwards, that which was only tested on too."""
    trained = [id_ for id_ in year.of("p3") if year.side(id_) == "1"][:2]
    tested = [id_ for id_ in year.of("p3") + year.of("p4") if year.side(id_) == "0"][:1]
    (year.top / "list.csv").write_text("id\n" + "".join(f"{id_}\n" for id_ in trained + tested))
    asked = Asked("", frozenset(year.look.files[id_].key for id_ in trained + tested))
    year.run("attack")
    said = year.answer(asked, forget="list", forget_list=str(year.top / "list.csv"))
    assert "1 recording of 3 never trained on" in said
    for id_ in trained + tested:
        year.becomes(id_, "p5")
    year.come("p10")


def august(year: Year) -> None:
    """Altered copies under other people's names. Catches an MP3 that stays when its original is forgotten, and an Ogg
    that comes afterwards."""
    original, other = [id_ for id_ in year.of("p4") if year.side(id_) == "1"][:2]
    copy = year.becomes(original, "p5", "MP3, 64 kbit/s")
    year.train()
    year.run("attack")
    p4 = {"forget": "speaker", "forget_speakers": "p4"}
    with pytest.raises(UserError, match=f"probable copies of requested ones: {copy} "):
        year.run("unlearn", **p4)
    year.answer(year.asks("p4"), copies="probable", **p4)
    later = year.becomes(other, "p3", "Ogg Vorbis")
    assert f"1 probable copy that came since, for good: {later} " in year.train()
    year.go([original, other])


def september(year: Year) -> None:
    """A word is answered. Catches its recordings among the non-members, and new ones that are learnt."""
    year.run("attack")
    keys = frozenset(said.key for said in year.look.files.values() if said.word == "high" and not year.look.gone(said))
    year.answer(Asked("", keys, word="high"), forget="class", forget_class_names="high")
    year.come("p11")
    year.train()
    last = year.place.table(year.place.runs(stage="train", role="seed")[-1], "losses.csv")
    assert set(last["label"]) == {"low", "middle"}


MONTHS: tuple[Callable[[Year], None], ...] = (
    january, february, march, april, may, june, july, august, september
)  # fmt: skip


def test_a_year_of_a_living_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an answered person who is back, and an erased one who has never gone: see the months."""
    monkeypatch.setenv("AUDIO_MU_LEDGER", str(tmp_path / "elsewhere" / "ledger.jsonl"))
    with LocalEngine(1) as engine:
        year = Year(tmp_path, engine)
        for month in MONTHS:
            month(year)
