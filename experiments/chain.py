"""Deletion requests one after another on real speech, through `mlflow run`, and the erasure of them.

    python -m experiments.chain [digits|commands] [--seeds 40,41] [--n_epochs 15] [--register best] [--methods naive]

Trains base models and answers, each with what `register` names or, where that is refused, with the retrained model:
speaker A, speaker B and then a list (eight recordings each of four other speakers) of the digits, or three speakers of
the Arabic commands. Trains again (without all of them), compares, erases the first request (all, of the commands), and
compares again. After every command the lists of what was trained since are searched for the people who were answered,
by the names of their files; after an erasure so are the store, its database and the cache. Writes results/chain.csv
(results/people.csv) from compare's `chain.csv`. The recordings are read from below AUDIO_MU_TEST_DATA, the store is the
one of MLFLOW_TRACKING_URI, a new one in a folder of its own, with AUDIO_MU_CACHE beside it; after an interruption it
goes on from the last answer.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.file_utils import local_file_uri_to_path

from audio_mu.config import Config
from audio_mu.report import tables
from audio_mu.requests.ledger import read_ledger
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.workflows.data import load_data
from experiments.project import RESULTS, command, recordings, run


class Data(NamedTuple):
    """Recordings that requests are made about."""

    name: str
    """In the ledger."""
    folder: str
    """Below AUDIO_MU_TEST_DATA."""
    parameters: Mapping[str, str]
    output: str
    """In results/."""
    file_name: Callable[[str], str]
    """A pattern for the names of a speaker's files, and nobody else's."""
    speakers: Callable[[Path], list[str]]
    """Who is asked for where nobody is named."""
    n_erased: int
    """Of the requests, the first."""


DATA = {
    "digits": Data(
        name="audioMNIST",
        folder="audiomnist_layout",
        parameters={"dataset": "audioMNIST", "pipeline": "logmel"},
        output="chain.csv",
        file_name=lambda speaker: rf"\d_{speaker}_\d+\.wav",
        speakers=lambda root: sorted(path.name for path in root.iterdir() if path.is_dir())[:2],
        n_erased=1,
    ),
    "commands": Data(
        name="commands",
        folder="arabic_commands_folder",
        parameters={
            "dataset": "folder", "dataset_name": "commands", "speaker_pattern": "([0-9]{8})_", "pipeline": "logmel",
        },
        output="people.csv",
        file_name=lambda speaker: rf"{speaker}_NO_\d+\.flac",
        speakers=lambda root: sorted({path.name.partition("_")[0] for path in root.rglob("*.flac")})[:3],
        n_erased=3,
    ),
}  # fmt: skip
RECIPE = {"optimizer": "adam", "learning_rate": "0.001", "batch_size": "64"}
LISTED_SPEAKERS, LISTED_CLIPS = 4, 8


def project(entry_point: str, **parameters: str) -> None:
    """Run one entry point of the project."""
    run(command(entry_point, parameters))


def listed_clips(common: dict[str, str], without: tuple[str, ...]) -> pd.DataFrame:
    """The list request: the first training recordings of the first speakers that no other request names."""
    data = load_data(Config.from_text(common))
    train = pd.DataFrame(
        [(data.clips.ids[i], data.clips.speakers[i]) for i in data.split.train], columns=["clip_id", "speaker"]
    )
    others = [speaker for speaker in sorted(set(train["speaker"])) if speaker not in without]
    chosen = train[train["speaker"].isin(others[:LISTED_SPEAKERS])]
    return chosen.groupby("speaker").head(LISTED_CLIPS)[["clip_id"]]


def newest_chain(store: Store) -> pd.DataFrame:
    """The chain of the newest comparison."""
    compared = queries.newest(store, {"stage": "compare", "role": "parent"})
    assert compared is not None  # it has just been made
    return read_csv(store, compared.id, "chain.csv", na_values=[""])


class Look:
    """An independent look at the store, by MLflow's client and the names of the recordings' files alone."""

    def __init__(self, database: Path, cache: Path, file_name: Callable[[str], str]) -> None:
        """`file_name` gives a pattern for the names of a speaker's files, and nobody else's."""
        self.database, self.cache, self.file_name = database, cache, file_name
        self.gone: list[str] = []
        self.seen: set[str] = set()

    def _runs(self) -> list[Run]:
        client = MlflowClient()
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(ids, max_results=50_000))

    def skip(self) -> None:
        """What was trained so far is not looked at: the requests come after it."""
        self.seen |= {past.info.run_id for past in self._runs()}

    def nobody_is_back(self) -> None:
        """What was trained since the last look, by its lists."""
        n_lists = n_ids = 0
        for past in self._runs():
            folder = Path(local_file_uri_to_path(past.info.artifact_uri))
            for name, sides in (("losses.csv", True), ("losses/remain.csv", False)):
                if past.info.run_id in self.seen or not (folder / name).is_file():
                    continue
                table = pd.read_csv(folder / name, dtype=str)
                ids = table.loc[table["member"] == "1", "clip_id"] if sides else table["clip_id"]
                back = [id_ for id_ in ids for speaker in self.gone if re.search(self.file_name(speaker), id_)]
                assert not back, f"{past.info.run_name} was trained on answered people's {back[:3]}"
                n_lists, n_ids = n_lists + 1, n_ids + len(ids)
            self.seen.add(past.info.run_id)
        print(f"-- {n_lists} new lists of {n_ids:,} trained recordings: nobody of {self.gone} is back", flush=True)

    def nothing_is_left(self, speakers: Iterable[str]) -> None:
        """Bytes of the artifacts but those of the ledger, of the database and of the cache."""
        names = [re.compile(self.file_name(speaker).encode()) for speaker in speakers]
        entries = {run.info.artifact_uri for run in self._runs() if run.data.tags.get("stage") == "ledger"}
        folders = {Path(local_file_uri_to_path(run.info.artifact_uri)).parent for run in self._runs()}
        paths = [path for top in (*folders, self.cache) for path in top.rglob("*") if path.is_file()]
        kept = [path for path in paths if not any(str(path).startswith(local_file_uri_to_path(uri)) for uri in entries)]
        for path in [*kept, self.database]:
            content = path.read_bytes()
            assert not any(name.search(content) for name in names), f"{path} has names of an erased person"
        print(f"-- {len(kept):,} files and the database: no file name of {list(speakers)}", flush=True)


def requests(data: str, common: dict[str, str], speakers: list[str], folder: Path) -> list[dict[str, str]]:
    """The requests' parameters: speakers, and of the digits a list that is written into `folder`."""
    asked = [{"forget": "speaker", "forget_speakers": name} for name in speakers]
    if data == "digits":
        listed_clips(common, tuple(speakers)).to_csv(folder / "list.csv", index=False)
        asked.append({"forget": "list", "forget_list": str(folder / "list.csv")})
    return asked


def main() -> None:
    """Run the chain and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=list(DATA), default="digits")
    for name, default in {
        "seeds": "40,41", "n_epochs": "15", "n_epoch_repair": "3", "methods": "naive,fine_tune,pop,cosine",
        "register": "best", "speakers": "", "workers": "0",
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", default=default)
    given = parser.parse_args()
    about = DATA[given.data]
    root = recordings() / about.folder
    common = {**about.parameters, "data_dir": str(root), "seeds": given.seeds, "workers": given.workers}
    training = {**common, **RECIPE, "n_epochs": given.n_epochs}
    unlearning = {name: getattr(given, name) for name in ("n_epoch_repair", "methods", "register")}
    named = given.speakers.split(",") if given.speakers else about.speakers(root)
    store = open_store()
    assert store.database is not None, "the look afterwards needs a store in an SQLite file"
    look = Look(store.database, Path(os.environ["AUDIO_MU_CACHE"]), about.file_name)
    with tempfile.TemporaryDirectory() as temporary:
        asked = requests(given.data, common, named, Path(temporary))
        answered = len(read_ledger(store, about.name).entries)
        look.gone = named[:answered]
        if not answered:
            project("train", **training)
        look.skip()
        for parameters in asked[answered:]:
            project("attack", **common)
            try:
                project("unlearn", **common, **unlearning, **parameters)
            except subprocess.CalledProcessError:  # no method meets the rule: the retrained model, from the same runs
                project("unlearn", **common, **unlearning | {"register": "naive"}, **parameters)
            look.gone = named[: len(look.gone) + 1]
            look.nobody_is_back()
    project("train", **training)
    look.nobody_is_back()
    project("compare", **common)
    chain = newest_chain(store)
    chain.to_csv(RESULTS / about.output, index=False, float_format="%.6g")
    erased = [entry.hash for entry in read_ledger(store, about.name).entries][: about.n_erased]
    for hash_ in erased:
        project("erase", **common, request=hash_)
        project("erase", **common, request=hash_, confirm="true")
    look.nothing_is_left(named[: len(erased)])
    project("compare", **common)
    pd.testing.assert_frame_equal(chain, newest_chain(store))
    print(f"\nafter the erasure as before:\n\n{tables.markdown(tables.chain_shown(chain))}")
    print(f"{RESULTS / about.output}: every method")


if __name__ == "__main__":
    main()
