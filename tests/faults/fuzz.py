"""Thousands of damaged files through the functions that read what users, archives and stores bring.

    python -m tests.faults.fuzz --examples 5000          # writes results/fuzz.csv

Each case is repeatable from its kind, its number and the seed, but for the serial number that an Ogg encoder draws.
Every kind has a process of its own whose memory is limited to `MEMORY` beyond what it starts with; a case has
`SECONDS`. A process that dies or hangs is counted as a crash of its case and started anew with the next one.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import torch

from tests.commands import ROOT
from tests.faults.damage import mutated, outcome
from tests.faults.kinds import KINDS

MEMORY, SECONDS = 1 << 30, 10
RESULTS = ROOT / "results" / "fuzz.csv"


def _work(name: str, start: int, stop: int, seed: int) -> None:
    """Run cases in this process, one line of JSON for each."""
    kind = KINDS[name]
    torch.set_num_threads(1)
    for example in kind.examples():  # libraries reserve their memory on first use
        with redirect_stdout(io.StringIO()):
            first = outcome(kind, kind.finish(example))
        assert first[0] == "accepted", first

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, too_long)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.stdout.reconfigure(line_buffering=True)
    for i in range(start, stop):
        data = mutated(kind, random.Random(f"{seed} {name} {i}"))
        signal.alarm(SECONDS)
        began = time.perf_counter()
        with redirect_stdout(io.StringIO()):  # what the readers tell
            what, line = outcome(kind, data)
        signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps([i, what, line[:300], round(time.perf_counter() - began, 3), peak]))


def _cases(name: str, examples: int, seed: int) -> Iterator[tuple[int, str, str, float, int]]:
    """(number, outcome, line, seconds, peak MiB of the process) of each case, whatever happens to its process."""
    start = 0
    while start < examples:
        command = [sys.executable, "-W", "ignore", "-m", "tests.faults.fuzz", "--work", name, str(start), str(examples)]
        with subprocess.Popen(
            [*command, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            while start < examples:
                ready, _, _ = select.select([process.stdout], [], [], 120)  # the first case waits for the imports
                line = process.stdout.readline() if ready else b""
                if not line:
                    process.kill()
                    yield start, "crashed", f"the process died or hung, code {process.wait()}", float(SECONDS), 0
                    start += 1
                    break
                case = json.loads(line)
                start = case[0] + 1
                yield tuple(case)


def main() -> None:
    """Run every kind, write the table, print it and every crash; exit 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return _work(given.work[0], int(given.work[1]), int(given.work[2]), given.seed)
    rows, crashes = [], []
    for name in given.kinds:
        cases = list(_cases(name, given.examples, given.seed))
        counts = {what: sum(case[1] == what for case in cases) for what in ("accepted", "refused", "crashed")}
        grown = max(case[4] for case in cases) - cases[0][4]
        rows.append(
            {"kind": name, "cases": len(cases), **counts, "slowest_s": max(case[3] for case in cases),
             "grown_mib": grown}
        )  # fmt: skip
        crashes += [(name, *case[:3]) for case in cases if case[1] == "crashed"]
        print(rows[-1], flush=True)
    for crash in crashes:
        print(*crash)
    if given.kinds == list(KINDS):
        with RESULTS.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    main()
