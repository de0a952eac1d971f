"""How long `compare` takes on a store of 10,000 runs.

    python -m benchmarks.many_runs [--runs 10000] [--rounds 5]

Makes one small real cell (spoken digits, five seeds, the study's methods), copies its runs inside the database as the
cells of other networks, data sets and requests, and times `python -m entrypoints.compare`, start-up included.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import subprocess
import tempfile
import time
import uuid
from itertools import product
from pathlib import Path

from audio_mu.data.synthetic import generate
from tests.commands import entry_point, own_environment

REAL = {"pipeline": "logmel", "n_epochs": "2", "batch_size": "16", "n_epoch_repair": "1", "n_attack_models": "1",
        "save_models": "none"}  # fmt: skip
COPIED_TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")
NETWORKS = tuple(product(("mel", "spec", "logmel"), ("VGGish", "CCT", "ViT")))
CELLS_OF_NETWORK = 20


def entry(name: str, folder: Path, **parameters: str) -> float:
    """Run an entry point on the store in a folder; return wall seconds. Raises RuntimeError where it fails."""
    command = entry_point(name, parameters)
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=own_environment(folder / "cache"), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return seconds


def real_cell(folder: Path) -> None:
    """Train, attack, unlearn and compare 180 clips into `mlflow.db` of the folder, unless it is there."""
    if (folder / "mlflow.db").exists():
        return
    digits = generate(folder / "digits", n_speakers=6, n_takes=3)
    entry("main", folder, data_dir=str(digits), **REAL)


def fill(database: Path, n_runs: int) -> None:
    """Copy the unlearning and comparison runs of the real cell until the store holds `n_runs`.

    Every copy is a cell of its own, of another data set's name, network or request; copies share the artifacts.
    """
    with sqlite3.connect(database) as store:
        present = store.execute("SELECT count(*) FROM runs").fetchone()[0]
        stages = "SELECT run_uuid FROM tags WHERE key = 'stage' AND value IN ('unlearn', 'compare')"
        first = "SELECT value FROM tags WHERE key = 'cell' ORDER BY rowid LIMIT 1"
        cell = f"SELECT run_uuid FROM tags WHERE key = 'cell' AND value = ({first})"
        originals = [row[0] for row in store.execute(f"{stages} INTERSECT {cell}")]
        for number in range(-(-(n_runs - present) // len(originals))):
            _copy_cell(store, originals[: n_runs - present], number)
            present += len(originals)
        store.execute("DROP TABLE IF EXISTS new_id")


def _copy_cell(store: sqlite3.Connection, originals: list[str], number: int) -> None:
    store.execute("CREATE TEMP TABLE IF NOT EXISTS new_id (old TEXT PRIMARY KEY, new TEXT)")
    store.execute("DELETE FROM new_id")
    store.executemany("INSERT INTO new_id VALUES (?, ?)", [(old, uuid.uuid4().hex) for old in originals])
    for table in COPIED_TABLES:
        columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
        listed = ", ".join(f'"{name}"' for name in columns)
        copied = ", ".join("new_id.new" if name == "run_uuid" else f'{table}."{name}"' for name in columns)
        store.execute(
            f"INSERT INTO {table} ({listed}) SELECT {copied} FROM {table} JOIN new_id ON new_id.old = run_uuid"
        )
    network, cell_of_network = divmod(number, CELLS_OF_NETWORK)
    set_of_networks, network = divmod(network, len(NETWORKS))
    pipeline, architecture = NETWORKS[network]
    tags = {
        "dataset_name": f"copies-{set_of_networks}",
        "pipeline": pipeline,
        "architecture": architecture,
        "request": f"item-{cell_of_network + 1}",
        "cell": f"{number:016x}",
    }
    for key, value in tags.items():
        store.execute("UPDATE tags SET value = ? WHERE key = ? AND run_uuid IN (SELECT new FROM new_id)", (value, key))
    store.execute(
        "UPDATE tags SET value = (SELECT new FROM new_id WHERE old = value) "
        "WHERE key = 'mlflow.parentRunId' AND run_uuid IN (SELECT new FROM new_id) "
        "AND value IN (SELECT old FROM new_id)"
    )
    store.execute(
        "UPDATE tags SET value = value || ? WHERE key = 'fingerprint' AND run_uuid IN (SELECT new FROM new_id)",
        (f"-{number}",),
    )


def measure(folder: Path, n_runs: int, rounds: int) -> list[float]:
    """Wall seconds of `compare` on a store of `n_runs` runs, one for each round."""
    real_cell(folder)
    fill(folder / "mlflow.db", n_runs)
    return [entry("compare", folder, data_dir=str(folder / "digits")) for _ in range(rounds)]


def main() -> None:
    """Print the seconds and their median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), arguments.runs, arguments.rounds)
    listed = ", ".join(f"{value:.1f}" for value in seconds)
    print(f"compare on a store of {arguments.runs} runs: median {statistics.median(seconds):.1f} s ({listed})")


if __name__ == "__main__":
    main()
