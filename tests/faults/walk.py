"""Random walks of a living folder: people join, speak, are renamed, encoded anew, leave, are answered and erased.

After every command an independent look at the store (its lists, the bytes of its files, the database's pages) finds
nobody who was answered in what was trained since, and nothing of anybody who was erased. `python -m tests.faults.walk
--walks 200` walks; hypothesis prints the shortest walk that fails.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from tests.answered import CLASSES, RATE, Answered
from tests.faults.looking import Asked, Looking, Said

WORDS = tuple(CLASSES)
N_PEOPLE = 8
NOTHING_TO_DO = (
    "have changed", "already", "left out", "none of which was trained on", "nothing to unlearn", "leaves",
    "at least one must remain", "not among the", "ask for fewer", "unknown classes", "has no", "leave",
)  # fmt: skip
"""Of a refusal that is right on such a walk: nothing was changed by it, and the walk goes on."""
PLACE = st.integers(0, 10_000)


class Living(RuleBasedStateMachine):
    """A folder, its store, and what was promised about it."""

    engine: ClassVar[LocalEngine]
    walked: ClassVar[dict[str, int]] = {}

    @initialize()
    def begin(self) -> None:
        self.top = tempfile.TemporaryDirectory(prefix="walk")
        made = Answered.new(Path(self.top.name) / "project", self.engine)
        self.place = replace(made, parameters={**made.parameters, "n_epochs": "2"})
        self.root = Path(self.place.parameters["data_dir"])
        self.look = Looking(self.place)
        self.files, self.out = self.look.files, self.look.out
        self.n = 0
        self.people: list[str] = []
        self.erased: set[str] = set()
        for path in sorted(self.root.rglob("*.wav")):
            id_ = path.relative_to(self.root).as_posix()
            self._knows(id_, Said(path.name.split("_")[0], path.parent.name, self.n))
        self.people = sorted({said.person for said in self.files.values()})
        self._run("train")

    def teardown(self) -> None:
        if hasattr(self, "top"):
            self.top.cleanup()
            self.walked["walks"] = self.walked.get("walks", 0) + 1
            if self.walked["walks"] % 20 == 0:
                print(self.walked, flush=True)

    # --- the folder

    @precondition(lambda self: len(self.people) < N_PEOPLE)
    @rule()
    def somebody_joins(self) -> None:
        person = f"p{len(self.people) + 1}"
        self.people.append(person)
        self._says(person, [(word, take) for word in WORDS for take in range(3)])

    @rule(place=PLACE)
    def somebody_says_more(self, place: int) -> None:
        self._says(self.people[place % len(self.people)], [(word, 50) for word in WORDS])

    @rule(place=PLACE)
    def a_file_is_renamed(self, place: int) -> None:
        id_ = self._file(place)
        self._becomes(id_, f"{self.files[id_].person}_{1_000 + self.n}.{id_.rpartition('.')[2]}")

    @precondition(lambda self: self._answered_files())
    @rule(place=PLACE)
    def an_answered_file_gets_somebody_elses_name(self, place: int) -> None:
        known = self._answered_files()
        id_ = known[place % len(known)]
        others = [person for person in self.people if person != self.files[id_].person]
        self._becomes(id_, f"{others[place % len(others)]}_{1_000 + self.n}.{id_.rpartition('.')[2]}")

    @rule(place=PLACE)
    def a_file_is_encoded_anew(self, place: int) -> None:
        id_ = self._file(place)
        if id_.endswith(".wav"):
            wave, rate = soundfile.read(self.root / id_, dtype="int16")
            soundfile.write((self.root / id_).with_suffix(".flac"), wave, rate)
            (self.root / id_).unlink()
            self._knows(id_[:-4] + ".flac", self.files.pop(id_))

    @rule(place=PLACE)
    def a_file_goes(self, place: int) -> None:
        self._goes([self._file(place)])

    @precondition(lambda self: self.erased)
    @rule(place=PLACE)
    def an_erased_persons_files_go(self, place: int) -> None:
        hashes = sorted(self.erased)
        recordings = next(asked.keys for asked in self.out if asked.hash == hashes[place % len(hashes)])
        self._goes([id_ for id_, said in self.files.items() if said.key in recordings])

    # --- the commands

    @rule()
    def train(self) -> None:
        self._run("train")

    @rule(place=PLACE)
    def a_person_is_answered(self, place: int) -> None:
        person = self.people[place % len(self.people)]
        self._answer(forget="speaker", forget_speakers=person)

    @rule(place=PLACE, n=st.integers(1, 6))
    def a_list_is_answered(self, place: int, n: int) -> None:
        first = sorted(self.files)[place % len(self.files) :][:n]
        path = Path(self.top.name) / f"list{self.n}.csv"
        path.write_text("id\n" + "".join(f"{id_}\n" for id_ in first))
        self._answer(forget="list", forget_list=str(path))

    @precondition(lambda self: not any(asked.word for asked in self.out))
    @rule(place=PLACE)
    def a_word_is_answered(self, place: int) -> None:
        self._answer(forget="class", forget_class_names=WORDS[place % len(WORDS)])

    @precondition(lambda self: self.out)
    @rule(place=PLACE)
    def a_request_is_erased(self, place: int) -> None:
        asked = self.out[place % len(self.out)]
        self._run("erase", request=asked.hash[:10], confirm="true")
        self.erased.add(asked.hash)
        self.look.nothing_is_left(asked)

    # --- what is done

    def _says(self, person: str, what: Iterable[tuple[str, int]]) -> None:
        for word, _ in what:
            own = np.random.default_rng([self.n, len(self.look.names)])
            time_ = np.arange(RATE // 2) / RATE
            wave = 0.3 * np.sin(2 * np.pi * CLASSES[word] * (1 + own.uniform(-0.03, 0.03)) * time_)
            id_ = f"{word}/{person}_{1_000 + self.n}.wav"
            soundfile.write(self.root / id_, wave + own.normal(0, 0.01, len(time_)), RATE)
            self._knows(id_, Said(person, word, self.n))

    def _knows(self, id_: str, said: Said) -> None:
        self.look.knows(id_, said)
        self.n += 1

    def _becomes(self, id_: str, name: str) -> None:
        new = str(Path(id_).with_name(name))
        (self.root / id_).rename(self.root / new)
        self._knows(new, self.files.pop(id_))

    def _goes(self, ids: Iterable[str]) -> None:
        left = [word for word in WORDS if sum(said.word == word for said in self.files.values()) > 4]
        for id_ in ids:
            if self.files[id_].word in left:  # a class keeps a few: the walk is not about empty folders
                (self.root / id_).unlink()
                del self.files[id_]

    def _file(self, place: int) -> str:
        return sorted(self.files)[place % len(self.files)]

    def _answered_files(self) -> list[str]:
        return sorted(id_ for id_, said in self.files.items() if any(said.key in asked.keys for asked in self.out))

    def _answer(self, **request: str) -> None:
        before = set(self.place.finished_entries())
        if not self._run("train") or not self._run("attack"):  # what a user does whose folder has changed
            return
        self._run("unlearn", methods="naive", register="naive", save_models="naive", **request)
        for run in self.place.finished_entries():
            if run not in before:
                tags, table = self.place.tags(run), self.place.table(run, "recordings.csv")
                keys = frozenset(self.files[id_].key for id_ in table["clip_id"])
                person, word = request.get("forget_speakers", ""), request.get("forget_class_names", "")
                (served,) = json.loads(tags["versions_after"]).values()
                source = self.place.query("select run_id from model_versions where version = ?", served)[0][0]
                self.out.append(Asked(tags["request_hash"], keys, person, word, {tags["registered_model"]: source}))
                assert not [id_ for id_ in self.look.trained(source) if self.look.gone(self.files[id_])]

    def _run(self, stage: str, **parameters: str) -> bool:
        """Run a command, and look at everything that it has made. False where it had nothing to do."""
        self.walked[stage] = self.walked.get(stage, 0) + 1
        try:
            self.place.run(stage, **parameters)
        except UserError as error:
            assert any(words in str(error) for words in NOTHING_TO_DO), error
            self.walked["refused"] = self.walked.get("refused", 0) + 1
            return False
        self.look.nobody_is_back()
        return True


def walk(walks: int, steps: int, seed: int | None = None) -> dict[str, int]:
    """Walk; returns how often each command ran. Raises what hypothesis raises of the shortest walk that fails."""
    with LocalEngine(1) as engine:
        machine = type("Walk", (Living,), {"engine": engine, "walked": {}})
        chosen = settings(
            max_examples=walks, stateful_step_count=steps, deadline=None, database=None, print_blob=True,
            derandomize=seed is None, phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        run_state_machine_as_test(machine, settings=chosen)
        return machine.walked


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=200)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    started = time.monotonic()
    counts = walk(given.walks, given.steps)
    print(f"{counts}, {time.monotonic() - started:.0f} s: nobody came back")
