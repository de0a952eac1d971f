"""A small store with an answered request, made by the commands: tones of few people, a linear network, seconds."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audio_mu.compute.pool import LocalEngine
from audio_mu.config import Config
from audio_mu.data.datasets import check_folder
from audio_mu.progress import say, say_once
from audio_mu.store.connect import open_store
from audio_mu.store.private import close_connections
from audio_mu.workflows.adopt import adopt
from audio_mu.workflows.attack import attack
from audio_mu.workflows.compare import compare
from audio_mu.workflows.erase import erase
from audio_mu.workflows.main import run_all
from audio_mu.workflows.register import register_unlearned
from audio_mu.workflows.report import report
from audio_mu.workflows.train import train
from audio_mu.workflows.tune import tune
from audio_mu.workflows.unlearn import unlearn

WORK = {
    "train": train, "adopt": adopt, "attack": attack, "unlearn": unlearn, "compare": compare, "report": report,
    "erase": erase, "main": run_all, "tune": tune,
}  # fmt: skip
WITH_ENGINE = ("train", "attack", "unlearn", "main", "tune")
FLAT = """
from torch import nn


class Flat(nn.Sequential):
    def __init__(self, n_classes, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], n_classes))


class Other(Flat):
    pass
"""
RATE = 16_000
CLASSES = {"low": 300, "middle": 1_000, "high": 3_000}
PEOPLE = ("p1", "p2", "p3", "p4")


def tones(folder: Path, people: tuple[str, ...] = PEOPLE, takes: int = 4) -> Path:
    """A folder of half a second of tone for each class, person and take: `low/p1_0.wav`."""
    time = np.arange(RATE // 2) / RATE
    for name, pitch in CLASSES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for person in people:
            for take in range(takes):
                own = np.random.default_rng([pitch, int(person[1:]), take])
                shifted = pitch * (1 + 0.02 * int(person[1:])) + own.uniform(-5, 5)
                wave = 0.3 * np.sin(2 * np.pi * shifted * time) + own.normal(0, 0.01, len(time))
                soundfile.write(folder / name / f"{person}_{take}.wav", wave, RATE)
    return folder


def meanwhile(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen between the end of the next unlearning and its registration."""
    name = "audio_mu.workflows.register.register_unlearned"

    def late(*arguments):
        patch.setattr(name, register_unlearned)
        act()
        return register_unlearned(*arguments)

    patch.setattr(name, late)


@dataclass(frozen=True)
class Answered:
    """A project's folder with recordings, store and cache, worked on as the entry points do."""

    folder: Path
    parameters: Mapping[str, str]
    engine: LocalEngine

    @classmethod
    def new(cls, folder: Path, engine: LocalEngine) -> Answered:
        """A project with recordings and nothing else."""
        (folder / "own.py").parent.mkdir(parents=True, exist_ok=True)
        (folder / "own.py").write_text(FLAT)
        parameters = {
            "dataset": "folder", "dataset_name": "tones", "data_dir": str(tones(folder / "recordings")),
            "clip_seconds": "0.5", "speaker_pattern": r"(p\d+)_", "architecture": f"{folder}/own.py:Flat",
            "seeds": "40", "n_epochs": "6", "batch_size": "8", "n_epoch_repair": "1", "n_attack_models": "1",
            "workers": "1",
        }  # fmt: skip
        return cls(folder, parameters, engine)

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def run(self, stage: str, uri: str = "", experiment: str = "", **parameters: str) -> str:
        """Run a workflow as its entry point does; return what it prints."""
        say_once.cache_clear()
        config = Config.from_text({**({} if stage == "erase" else self.parameters), **parameters})
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
            patch.setenv("AUDIO_MU_CACHE", str(self.folder / "cache"))
            patch.setenv("MLFLOW_TRACKING_URI", uri or f"sqlite:///{self.database}")
            if experiment:
                patch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
            patch.chdir(self.folder)
            if stage != "erase":
                check_folder(config.data)
            work, store = WORK[stage], open_store()
            work(config, store, self.engine) if stage in WITH_ENGINE else work(config, store)
            for line in store.answer:
                say(line)
        return output.getvalue()

    def answer(self, person: str, **more: str) -> str:
        """Attack models, the request of a person, and the retrained model in service."""
        experiment = {name: more[name] for name in ("experiment", "architecture") if name in more}
        request = {"forget": "speaker", "forget_speakers": person, "methods": "naive", "register": "naive"}
        return self.run("attack", **experiment) + self.run("unlearn", **request, **more)

    def query(self, sql: str, *values: str) -> list[tuple]:
        with closing(sqlite3.connect(self.database, timeout=60)) as database, database:
            return database.execute(sql, values).fetchall()

    def runs(self, **tags: str) -> list[str]:
        """Ids of the runs with these tags, the oldest first."""
        found: dict[str, dict[str, str]] = {
            run: {} for (run,) in self.query("select run_uuid from runs order by start_time")
        }
        for run, key, value in self.query("select run_uuid, key, value from tags"):
            found[run][key] = value
        return [run for run, own in found.items() if tags.items() <= own.items()]

    def tags(self, run: str) -> dict[str, str]:
        return dict(self.query("select key, value from tags where run_uuid = ?", run))

    def place(self, run: str) -> Path:
        """The folder of a run's artifacts."""
        ((uri,),) = self.query("select artifact_uri from runs where run_uuid = ?", run)
        return Path(uri.removeprefix("file://"))

    def table(self, run: str, path: str) -> pd.DataFrame:
        return pd.read_csv(self.place(run) / path, dtype=str, keep_default_na=False)

    def trained(self, run: str) -> set[str]:
        """Ids of what a run's models were trained on, by its lists; none of a run without such lists."""
        if (self.place(run) / "losses.csv").is_file():
            table = self.table(run, "losses.csv")
            return set(table.loc[table["member"] == "1", "clip_id"])
        has_lists = (self.place(run) / "losses" / "remain.csv").is_file()
        return set(self.table(run, "losses/remain.csv")["clip_id"]) if has_lists else set()

    def recipes(self) -> list[dict[str, str]]:
        """The recipes of the registered versions, as their tags tell them."""
        found = self.query("select value from model_version_tags where key = 'recipe' order by version")
        return [json.loads(value) for (value,) in found]

    def entries(self) -> list[str]:
        return self.runs(stage="ledger", role="entry")

    def finished_entries(self) -> list[str]:
        """Those that count."""
        ended = "select 1 from runs where run_uuid = ? and status = 'FINISHED'"
        return [run for run in self.entries() if self.query(ended, run)]

    def aliases(self) -> set[tuple[str, str, int]]:
        return set(self.query("select name, alias, version from registered_model_aliases"))

    def hash(self, person: str) -> str:
        """The start of the hash of a person's answered request."""
        run = next(run for run in self.entries() if self.tags(run)["request"] == f"speaker-{person}")
        return self.tags(run)["request_hash"][:10]

    def ids(self, person: str) -> set[str]:
        """Ids of all recordings of a person, on either side."""
        root = self.folder / "recordings"
        return {str(path.relative_to(root)) for path in root.rglob(f"{person}_*.wav")}

    def save(self, backup: Path) -> None:
        """Copy the whole project to a folder."""
        shutil.copytree(self.folder, backup, symlinks=True)

    def restore(self, backup: Path) -> None:
        """Put the project back as it was, at the same place: a store holds absolute paths."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.database:
                path.unlink()
        close_connections(f"sqlite:///{self.database}")  # they would believe their caches: the counter goes back
        shutil.copyfile(backup / "mlflow.db", self.database)
        leave = shutil.ignore_patterns("mlflow.db")
        shutil.copytree(backup, self.folder, symlinks=True, dirs_exist_ok=True, ignore=leave)


@contextmanager
def p1_answered(
    folder: Path, before: Callable[[Answered], object] = lambda _: None, **parameters: str
) -> Iterator[Answered]:
    """A project in which p1 is answered, and its worker. `before` the first training something is done to it."""
    with LocalEngine(1) as engine:
        made = Answered.new(folder, engine)
        made = replace(made, parameters={**made.parameters, **parameters})
        before(made)
        made.run("train")
        made.answer("p1")
        yield made
