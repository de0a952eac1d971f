"""What shards save and cost on real speech: one person's request on base models of 1, 2, 4 and 8 shards.

    python -m experiments.shards [--seeds 40] [--n_epochs 10] [--shards 1,2,4,8]

Trains base models of the spoken digits, answers speaker 01 by naive and, where there are shards, by exact_shards, one
task at a time, and writes results/shards.csv. The recordings are read from below AUDIO_MU_TEST_DATA, the store is the
one of MLFLOW_TRACKING_URI. Finished steps are reused: after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse

import pandas as pd

from audio_mu.names import EXACT_SHARDS, NAIVE, RETRAINED
from audio_mu.store import queries
from audio_mu.store.connect import open_store
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from experiments.project import RESULTS, command, recordings, run

RECIPE = {"optimizer": "adam", "learning_rate": "0.001", "batch_size": "32"}
REQUEST = {"forget": "speaker", "forget_speakers": "01"}


def newest(store: Store, seed: str, **tags: str) -> Finished:
    """The newest run with these tags, which the commands have just made or reused."""
    found = queries.newest(store, {"seed": seed, **tags})
    assert found is not None
    return found


def row(store: Store, n_shards: str, seed: str, base: Finished) -> dict[str, object]:
    """The figures of one base model and of its answers."""
    made = {"stage": "unlearn", "base_run_id": base.id}
    naive = newest(store, seed, **made, method=NAIVE)
    found = {
        "shards": n_shards, "seed": seed,
        "test_accuracy": base.metrics["test/accuracy"], "train_cpu_s": base.metrics["time/cpu_s"],
        "naive_test_accuracy": naive.metrics["test/accuracy"],
        "naive_forget_accuracy": naive.metrics["forget/accuracy"],
        "naive_s": naive.metrics["time/total_s"], "naive_cpu_s": naive.metrics["time/cpu_s"],
    }  # fmt: skip
    if n_shards == "1":
        return found
    exact = newest(store, seed, **made, method=EXACT_SHARDS)
    retrained = [value for name, value in exact.metrics.items() if name.startswith(RETRAINED)]
    return found | {
        "exact_s": exact.metrics["time/total_s"], "exact_cpu_s": exact.metrics["time/cpu_s"],
        "shards_retrained": len(retrained), "recordings_retrained": int(sum(retrained)),
        "same_weights": exact.tags["weights"] == naive.tags["weights"],
    }  # fmt: skip


def main() -> None:
    """Run what is not there yet, for each number of shards, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="40")
    parser.add_argument("--n_epochs", default="10")
    parser.add_argument("--shards", default="1,2,4,8")
    given = parser.parse_args()
    common = {
        "dataset": "audioMNIST", "data_dir": str(recordings() / "audiomnist_layout"), "pipeline": "logmel",
        "seeds": given.seeds, "n_epochs": given.n_epochs, **RECIPE,
    }  # fmt: skip
    rows = []
    for n_shards in given.shards.split(","):
        own = {**common, "shards": n_shards}
        run(command("train", {**own, "workers": "1"}))
        run(command("attack", {**own, "n_attack_models": "1"}))
        methods = NAIVE if n_shards == "1" else f"{NAIVE},{EXACT_SHARDS}"
        run(command("unlearn", {**own, **REQUEST, "methods": methods, "workers": "1"}))
        store = open_store()
        for seed in given.seeds.split(","):
            version = store.client.get_model_version_by_alias("audio-mu.audioMNIST.logmel.VGGish", f"seed-{seed}")
            base = queries.run_of(store, version.run_id)
            assert base is not None
            rows.append(row(store, n_shards, seed, base))
        pd.DataFrame(rows).to_csv(RESULTS / "shards.csv", index=False, float_format="%.4f")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
