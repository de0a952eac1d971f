"""Start several whole chains at once on one cold tracking store and one cold cache, then once more on the warm ones.

    python -m tests.faults.parallel --runs 8                         `mlflow run`
    python -m tests.faults.parallel --runs 8 --via "python -m entrypoints.main"

All must end FINISHED, each with the same figures, the cache built once and nothing left behind. Prints how many did,
and the seconds. Cold is a database that does not exist; for `mlflow run` one with MLflow's tables and nothing in them
(`mlflow db upgrade`), because several MLflow commands at once break the tables that they all create.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.small_chain import ENTRY, PROJECT, Place, outcome, running, small_digits, strays


def main(arguments: list[str]) -> int:
    """Run cold, then warm; return 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--via", choices=[ENTRY, PROJECT], default=PROJECT)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "audio-mu-parallel-runs")
    given = parser.parse_args(arguments)
    place = Place(given.folder / "store", small_digits(given.folder))
    shutil.rmtree(place.folder, ignore_errors=True)
    place.make()
    if given.via == PROJECT:
        place.create_store()
    wrong: list[str] = []
    for state in ("cold", "warm"):
        start = time.monotonic()
        wrong += at_once(place, given.via, given.runs, state)
        print(f"{given.runs} × {given.via}, {state} store and cache: {time.monotonic() - start:.0f} s", flush=True)
    print(
        "; ".join(wrong) or f"all {2 * given.runs} runs are FINISHED, with the same figures, and nothing is left behind"
    )
    return bool(wrong)


def at_once(place: Place, via: str, n: int, name: str) -> list[str]:
    """Start the chain n times at once, wait for all; return what went wrong."""
    logs = [place.folder / f"{name}-{i}.txt" for i in range(n)]
    processes = [place.start(via, log) for log in logs]
    codes = [process.wait() for process in processes]
    wrong = [f"exit code {code}: {log}" for code, log in zip(codes, logs) if code]
    states = place.query(
        "select r.status, count(*) from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'stage' "
        "where t.value = 'main' group by r.status"
    )
    wrong += [f"{count} chains are {status}" for status, count in states if status != "FINISHED"]
    wrong += [f"{n_running} runs are RUNNING" for n_running in [len(running(place))] if n_running]
    wrong += [f"other figures: {kind}" for kind, values in outcome(place)["runs"].items() if len(values) > 1]
    built = sum("features (" in log.read_text() for log in logs)
    wrong += [f"the features were computed {built} times"] if built > (name == "cold") else []
    return wrong + [f"left behind: {left}" for left in strays(place)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
