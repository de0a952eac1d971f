"""What shards save and cost on real speech: one person's request on base models of 1, 2, 4 and 8 shards.

    python -m experiments.shards [--seeds 40] [--n_epochs 15] [--shards 1,2,4,8] [--architecture VGGish]

Trains base models of the spoken digits (of a small network, unless told), answers speaker 01 by naive and, where there
are shards, by exact_shards, one task at a time, and writes results/shards.csv. The recordings are read from below
AUDIO_MU_TEST_DATA, the store is the one of MLFLOW_TRACKING_URI. Finished steps are reused: after an interruption the
same command goes on.
"""

from __future__ import annotations

import argparse

import pandas as pd

from audio_mu import api
from audio_mu.names import EXACT_SHARDS, NAIVE, RETRAINED
from audio_mu.store import queries, registry
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from experiments.project import RESULTS, recordings
from tests.commands import ROOT

SMALL = f"{ROOT}/experiments/small_network.py:Small"
RECIPE = {"optimizer": "adam", "learning_rate": "0.001", "batch_size": "32"}
REQUEST = {"forget": "speaker", "forget_speakers": "01"}


def row(store: Store, n_shards: str, base: pd.Series, answers: pd.DataFrame) -> dict[str, object]:
    """The figures of one base model and of its answers, and whether the two answers have the same weights."""
    version = registry.by_number(store, *base["model"].removeprefix("models:/").rsplit("/", 1))
    assert version is not None  # it has just been made
    trained = queries.run_of(store, version.run_id)
    assert trained is not None
    of = answers[answers["seed"] == base["seed"]].set_index("method")
    naive = of.loc[NAIVE]
    found = {
        "shards": n_shards, "seed": base["seed"], "test_accuracy": base["test_accuracy"],
        "train_cpu_s": trained.metrics["time/cpu_s"], "naive_test_accuracy": naive["test/accuracy"],
        "original_forget_accuracy": of.loc["original"]["forget/accuracy"],
        "naive_forget_accuracy": naive["forget/accuracy"], "naive_cpu_s": naive["time/cpu_s"],
    }  # fmt: skip
    if n_shards == "1":
        return found
    exact = of.loc[EXACT_SHARDS]
    retrained = [value for name, value in exact.dropna().items() if str(name).startswith(RETRAINED)]
    weights = {queries.run_of(store, answer["run_id"]).tags["weights"] for answer in (naive, exact)}  # type: ignore[union-attr]
    return found | {
        "exact_cpu_s": exact["time/cpu_s"], "shards_retrained": len(retrained),
        "recordings_retrained": int(sum(retrained)), "same_weights": len(weights) == 1,
    }  # fmt: skip


def main() -> None:
    """Run what is not there yet, for each number of shards, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="40")
    parser.add_argument("--n_epochs", default="15")
    parser.add_argument("--shards", default="1,2,4,8")
    parser.add_argument("--architecture", default=SMALL)
    given = parser.parse_args()
    common = {
        "dataset": "audioMNIST", "data_dir": str(recordings() / "audiomnist_layout"), "pipeline": "logmel",
        "architecture": given.architecture, "seeds": given.seeds, "n_epochs": given.n_epochs, **RECIPE,
    }  # fmt: skip
    rows = []
    for n_shards in given.shards.split(","):
        own = {**common, "shards": n_shards}
        bases = api.train(**own, workers=1)
        api.attack(**own, n_attack_models=1)
        methods = NAIVE if n_shards == "1" else f"{NAIVE},{EXACT_SHARDS}"
        answers = api.unlearn(**own, **REQUEST, methods=methods, workers=1)
        rows += [row(open_store(), n_shards, base, answers) for _, base in bases.iterrows()]
        pd.DataFrame(rows).to_csv(RESULTS / "shards.csv", index=False, float_format="%.4f")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
