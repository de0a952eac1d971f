"""Try training settings on the validation part of a data set: which one do base models deserve?

    python -m experiments.settings words --seeds 40,41 --workers 2

Trains on the training set without the validation part (the official validation list, or an eighth of the training
set), prints accuracy on both for each setting and seed, and writes results/settings-<name>.csv. The test set is not
touched. The recordings are read from below AUDIO_MU_TEST_DATA.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import pandas as pd

from audio_mu.audit.performance import accuracy
from audio_mu.base_models.fingerprints import optimizer_settings, problem
from audio_mu.compute.attempt import Failed
from audio_mu.compute.jobs import TrainJob, train_job
from audio_mu.compute.pool import LocalEngine
from audio_mu.config import Config
from audio_mu.data.splits import choosing_parts
from audio_mu.workflows.data import load_data
from experiments.project import RESULTS, recordings

DATA = {
    "words": {"dataset": "SpeechCommands", "data_dir": "speech_commands_layout"},
    "digits": {"dataset": "audioMNIST", "data_dir": "audiomnist_layout"},
}
SMALL = {"pipeline": "logmel", "optimizer": "adam", "batch_size": "64"}
SETTINGS = {
    "words": [
        {"learning_rate": "0.001", "n_epochs": "15", **SMALL},
        {"learning_rate": "0.001", "n_epochs": "30", **SMALL},
        {"learning_rate": "0.0005", "n_epochs": "30", **SMALL},
        {"pipeline": "mel", "optimizer": "sgd", "learning_rate": "0.01", "batch_size": "256", "n_epochs": "30"},
    ],
    "digits": [
        {"learning_rate": "0.001", "n_epochs": "10", **SMALL},
        {"learning_rate": "0.001", "n_epochs": "12", **SMALL},
    ],
}


def main() -> None:
    """Train every setting on every seed and tabulate the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(SETTINGS))
    parser.add_argument("--seeds", default="40,41")
    parser.add_argument("--architecture", default="VGGish")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    about = DATA[arguments.name]
    folder = recordings() / about["data_dir"]
    rows = []
    with LocalEngine(arguments.workers) as engine:
        for setting in SETTINGS[arguments.name]:
            text = {**about, **setting, "data_dir": str(folder), "seeds": arguments.seeds}
            config = Config.from_text({**text, "architecture": arguments.architecture})
            data = load_data(config)
            train, validation = choosing_parts(data.split, data.clips.parts, config.data.split_seed)
            jobs = [
                TrainJob(
                    problem=replace(problem(config, data.clips), threads=1),
                    seed=seed,
                    train=train,
                    sets={"train": train, "validation": validation},
                    optimizer=optimizer_settings(config),
                    batch_size=config.training.batch_size,
                    n_epochs=config.training.n_epochs,
                    best_on=None,
                )
                for seed in config.training.seeds
            ]
            labels = data.clips.labels.numpy()
            for job, result in engine.run(train_job, jobs, str(setting)):
                if isinstance(result, Failed):
                    print(f"{setting} seed {job.seed} failed: {result.reason}", flush=True)
                    continue
                scores = {f"{n}_accuracy": accuracy(result.logits[n], labels[i]) for n, i in job.sets.items()}
                rows.append({**setting, "seed": job.seed, **scores, "seconds": round(result.total_seconds, 1)})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / f"settings-{arguments.name}.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
