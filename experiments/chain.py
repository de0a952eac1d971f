"""Deletion requests one after another on real digits, through `mlflow run`, and the erasure of the first.

    python -m experiments.chain [--seeds 40,41] [--n_epochs 15] [--register best] [--methods naive,pop,fine_tune]

Trains base models, answers speaker A, speaker B and then a list (eight recordings each of four other speakers), each
with what `register` names or, where that is refused, with the retrained model, trains again (without all of them),
compares, erases speaker A, compares again. Writes results/chain.csv from compare's `chain.csv` and prints it before and
after the erasure. The recordings are read from below AUDIO_MU_TEST_DATA, the store
is the one of MLFLOW_TRACKING_URI, a new one; after an interruption it goes on from the last answer.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import pandas as pd

from audio_mu.config import Config
from audio_mu.report import tables
from audio_mu.requests.ledger import read_ledger
from audio_mu.store import queries
from audio_mu.store.artifacts import read_csv
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.workflows.data import load_data
from experiments.project import RESULTS, command, recordings, run

DIGITS = {"dataset": "audioMNIST", "pipeline": "logmel"}
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


def main() -> None:
    """Run the chain and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "seeds": "40,41", "n_epochs": "15", "n_epoch_repair": "3", "methods": "naive,fine_tune,pop,cosine",
        "register": "best", "speakers": "", "output": str(RESULTS / "chain.csv"),
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", default=default)
    given = parser.parse_args()
    digits = recordings() / "audiomnist_layout"
    common = {**DIGITS, "data_dir": str(digits), "seeds": given.seeds}
    training = {**common, **RECIPE, "n_epochs": given.n_epochs}
    unlearning = {name: getattr(given, name) for name in ("n_epoch_repair", "methods", "register")}
    speakers = sorted(path.name for path in digits.iterdir() if path.is_dir())
    first, second = given.speakers.split(",") if given.speakers else speakers[:2]
    store = open_store()
    with tempfile.TemporaryDirectory() as temporary:
        request = Path(temporary) / "list.csv"
        listed_clips(common, (first, second)).to_csv(request, index=False)
        asked = [{"forget": "speaker", "forget_speakers": name} for name in (first, second)]
        asked.append({"forget": "list", "forget_list": str(request)})
        answered = len(read_ledger(store, "audioMNIST").entries)
        if not answered:
            project("train", **training)
        for parameters in asked[answered:]:
            project("attack", **common)
            try:
                project("unlearn", **common, **unlearning, **parameters)
            except subprocess.CalledProcessError:  # no method meets the rule: the retrained model, from the same runs
                project("unlearn", **common, **unlearning | {"register": "naive"}, **parameters)
    project("train", **training)
    project("compare", **common)
    chain = newest_chain(store)
    chain.to_csv(given.output, index=False, float_format="%.6g")
    erased = read_ledger(store, "audioMNIST").entries[0].hash
    project("erase", **common, request=erased)
    project("erase", **common, request=erased, confirm="true")
    project("compare", **common)
    pd.testing.assert_frame_equal(chain, newest_chain(store))
    print(f"\nafter the erasure of the first request as before:\n\n{tables.markdown(tables.chain_shown(chain))}")
    print(f"{given.output}: every method")


if __name__ == "__main__":
    main()
