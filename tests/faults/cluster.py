"""Several machines in the small: PostgreSQL, a tracking server that keeps the artifacts, two Ray workers, one killed.

    python -m tests.faults.cluster [--keep FOLDER]

Starts PostgreSQL in a new folder, `mlflow server` on it with its artifact proxy, a Ray cluster of two nodes of one
core, each in a working directory of its own; trains base models and runs 40 unlearnings (5 seeds × 8 methods) through
`mlflow run` with engine=ray; kills one node with everything on it after a quarter of them, and stops PostgreSQL for
`--minutes` after a half. A command that ends then must do so in one line, and the same command goes on. Compares every
figure but times with those of the local engine on a fresh SQLite store. Needs Debian's postgresql package and
requirements-cluster.txt; exits with 1 where a figure is missing, there twice, or another.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from mlflow.tracking import MlflowClient

from audio_mu.data.synthetic import generate
from tests.commands import mlflow_run
from tests.servers import free_port, tracking_server, wait_for

METHODS = "naive,gradient_ascent,stochastic_teacher,omp,cosine,pop,amnesiac,label_smoothing"
N_TASKS = 40
SETTINGS = {"n_epochs": "4", "n_epoch_repair": "1", "batch_size": "16", "methods": METHODS, "save_models": "none"}
NODE = "AUDIO_MU_BENCHMARK_NODE"  # marks the processes of a node in their environment


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A new database server; yields its URI."""
    with stoppable_postgresql(folder) as (uri, _):
        yield uri


@contextmanager
def stoppable_postgresql(folder: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A new database server; yields its URI, and what stops and starts it.

    PostgreSQL refuses to run as root: then it runs as `postgres`.
    """
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        sys.exit("PostgreSQL is not installed: apt install postgresql")
    data, port = folder / "data", free_port()
    folder.mkdir()
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres", "postgres")

    def run(*command: str) -> None:
        subprocess.run([*user, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run(f"{programs}/initdb", "-D", str(data), "--auth=trust", "--username=mlflow")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"

    def control(what: str) -> None:
        own = ["-l", str(folder / "log"), "-o", options, "-w"] if what == "start" else ["-m", "immediate"]
        run(f"{programs}/pg_ctl", "-D", str(data), *own, what)

    control("start")
    try:
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres", control
    finally:
        control("stop")


@contextmanager
def ray_cluster(folder: Path) -> Iterator[str]:
    """A head without cores and two nodes of one core, in working directories of their own; yields its address."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    starts = {
        "head": ["--head", "--num-cpus=0", f"--port={port}", "--include-dashboard=false"],
        "one": [f"--address={address}", "--num-cpus=1"],
        "two": [f"--address={address}", "--num-cpus=1"],
    }
    try:
        for name, options in starts.items():
            (folder / name).mkdir(parents=True)
            environment = os.environ | {NODE: name, "AUDIO_MU_CACHE": str(folder / name / "cache")}
            environment.pop("PYTHONPATH", None)  # the package comes through Ray
            with (folder / name / "log").open("w") as log:
                subprocess.Popen(
                    ["ray", "start", "--block", "--disable-usage-stats", *options],
                    cwd=folder / name, env=environment, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            started = folder / name / "log"
            wait_for(lambda log=started: "Ray runtime started" in log.read_text(), f"Ray's node {name}", started)
        yield address
    finally:
        for name in starts:
            kill_node(name)


def kill_node(name: str) -> int:
    """SIGKILL for every process that carries the node's mark; returns how many."""
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{NODE}={name}\0".encode() in (process / "environ").read_bytes()
            if marked:
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
        except OSError:  # gone meanwhile
            continue
    return killed


def command(folder: Path, entry_point: str, parameters: Mapping[str, str], **variables: str) -> subprocess.Popen[str]:
    """`mlflow run` of this project in a working directory of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"AUDIO_MU_CACHE": str(folder / "cache")} | variables
    return subprocess.Popen(
        mlflow_run(entry_point, parameters), cwd=folder, env=environment, text=True,
        stdout=(folder / f"{entry_point}.log").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(folder: Path, entry_point: str, process: subprocess.Popen[str]) -> None:
    """Wait for a command; exits with its output's end where it fails."""
    if process.wait() != 0:
        sys.exit(f"{entry_point} failed:\n{(folder / f'{entry_point}.log').read_text()[-3000:]}")


def method_runs(uri: str) -> list:
    """The finished method runs of a store, the originals left out."""
    runs = MlflowClient(uri, uri).search_runs(
        ["0"], "tags.role = 'method' and attributes.status = 'FINISHED'", max_results=1_000
    )
    return [run for run in runs if run.data.tags["method"] != "original"]


def figures(runs: list) -> dict[tuple[str, str], dict[str, float]]:
    """(method, seed) → every metric but times."""
    return {
        (run.data.tags["method"], run.data.tags["seed"]): {
            name: value for name, value in run.data.metrics.items() if not name.startswith("time/")
        }
        for run in runs
    }


def disturbed(
    start_it: Callable[[], subprocess.Popen[str]],
    driver: Path,
    uri: str,
    control: Callable[[str], None],
    minutes: float,
) -> int:
    """Run the chain to its end, a node killed and the database stopped on the way; after how many results it was."""
    process = start_it()

    def results(share: float) -> int:
        """Wait for so many of them, or for the command's end; how many there are."""
        there = lambda: len(method_runs(uri)) >= share * N_TASKS or process.poll() is not None  # noqa: E731
        wait_for(there, f"{share:.0%} of the results", driver / "main.log")
        return len(method_runs(uri))

    print(f"after {results(0.25)} results: node two killed, {kill_node('two')} processes", flush=True)
    stopped_after = results(0.5)
    control("stop")
    time.sleep(60 * minutes)
    control("start")
    print(f"after {stopped_after} results: PostgreSQL stopped for {minutes:g} min", flush=True)
    if process.wait() != 0:
        log = (driver / "main.log").read_text()
        told = [line for line in log.splitlines() if line.startswith("error:")]
        print(f"the command ended: {told}", flush=True)
        if "Traceback" in log or len(told) != 1:
            sys.exit(f"NOT as it should be: {log[-3000:]}")
        process = start_it()
    finish(driver, "main", process)
    return stopped_after


def main() -> None:
    """Run both stores and say whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder to work in and to leave (default: a temporary one)")
    parser.add_argument("--minutes", type=float, default=0.5, help="for which PostgreSQL is stopped")
    given = parser.parse_args()
    keep = given.keep
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    with ExitStack() as stack:
        folder = (keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL's user has to pass
        data = {**SETTINGS, "data_dir": str(generate(folder / "digits", n_speakers=6, n_takes=3))}

        local = folder / "local"
        start = time.monotonic()
        finish(local, "main", command(local, "main", data, MLFLOW_TRACKING_URI=f"sqlite:///{local / 'mlflow.db'}"))
        expected = figures(method_runs(f"sqlite:///{local / 'mlflow.db'}"))
        print(f"local engine, SQLite: {len(expected)} results in {time.monotonic() - start:.0f} s", flush=True)

        (folder / "server").mkdir()
        database, control = stack.enter_context(stoppable_postgresql(folder / "db"))
        uri = stack.enter_context(tracking_server(folder / "server", database, workers=2))
        address = stack.enter_context(ray_cluster(folder / "nodes"))
        driver = folder / "driver"
        start = time.monotonic()
        start_it = partial(
            command, driver, "main", data | {"engine": "ray"}, MLFLOW_TRACKING_URI=uri, RAY_ADDRESS=address
        )
        stopped_after = disturbed(start_it, driver, uri, control, given.minutes)
        runs = method_runs(uri)
        found = figures(runs)
        seconds = time.monotonic() - start
        print(f"Ray, PostgreSQL, artifact proxy: {len(runs)} results in {seconds:.0f} s", flush=True)
        twice = len(runs) - len(found)
        other = sorted(key for key in expected if found.get(key) != expected[key])
        print(f"missing {len(expected.keys() - found.keys())}, twice {twice}, with another figure {len(other)} {other}")
        if len(expected) != N_TASKS or stopped_after >= N_TASKS or len(runs) != N_TASKS or twice or other:
            sys.exit("NOT as it should be")
        print("all figures there, once each, equal to the local engine's")


if __name__ == "__main__":
    main()
