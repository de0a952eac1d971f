"""The benchmark's command: it has the parts run one after the other in processes of their own, within its time."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import gpu
from benchmarks.gpu.table import ENDED, FAILED, NO_DEVICE, SKIPPED, Settings, Table, summary
from tests.commands import ROOT

FULL_MINUTES = 6.0
GRACE = 20.0  # seconds beyond its share after which a part is ended from outside
RESERVE = 4.0  # seconds for the summary


@dataclass(frozen=True)
class Part:
    """A part: the module and function that run it, the seconds of six minutes that it may take and those it needs.

    Neighbours of one `process` share it.
    """

    name: str
    place: str
    most: float
    least: float
    process: str


PARTS = (
    Part("machine", "machine:machine", 20, 5, "numbers"),
    Part("numerics", "numerics:numerics", 75, 15, "numbers"),
    Part("contract", "contract:contract", 60, 15, "numbers"),
    Part("speed", "speed:speed", 70, 15, "times"),
    Part("features", "features:features", 25, 8, "times"),
    Part("tasks", "tasks:tasks", 60, 25, "times"),
    Part("methods", "methods:methods", 150, 20, "times"),
    Part("transformers", "methods:transformers", 120, 25, "times"),
)


def main() -> None:
    """Run the parts, then print the table; exit code 1 where there is no such device."""
    parser = argparse.ArgumentParser(description=gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks and few epochs: does everything run?")
    parser.add_argument("--clips", type=int, default=24_000)
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu.csv")
    parser.add_argument("--only", default="", help=f"parts with commas: {', '.join(part.name for part in PARTS)}")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name] or [part.name for part in PARTS]
    if unknown := set(chosen) - {part.name for part in PARTS}:
        parser.error(f"--only: no part {', '.join(sorted(unknown))}; choose from {', '.join(p.name for p in PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            arguments.out.resolve(), Path(folder), arguments.clips, arguments.quick, arguments.device,
            arguments.minutes, time.time() + 60 * arguments.minutes - RESERVE,
        )  # fmt: skip
        table = Table(settings.out, settings.device)
        table.start()
        found = run_parts([part for part in PARTS if part.name in chosen], settings, table)
    print(f"\n{summary(table.rows())}\n\n{settings.out}")
    sys.exit(0 if found else 1)


def run_parts(parts: list[Part], settings: Settings, table: Table) -> bool:
    """Run the parts. A process that dies or outstays its time is followed by one that takes the next part.

    False where there is no such device.
    """
    while parts:
        if time.time() > settings.deadline:
            for part in parts:
                table.add(part.name, "the part", SKIPPED, note="no time is left")
            return True
        together = [part for part in parts if part.process == parts[0].process]
        begun, code = run_process(together, settings, table)
        if code == NO_DEVICE:
            return False
        parts = parts[max(begun, 1) if code else len(together) :]
    return True


def run_process(parts: list[Part], settings: Settings, table: Table) -> tuple[int, int]:
    """Run parts in one new process. Returns how many of them it began, and its exit code."""
    scale = min(1.0, settings.minutes / FULL_MINUTES)
    plan = [[part.name, part.place, part.most * scale, part.least * scale] for part in parts]
    progress = settings.folder / f"progress-{time.time_ns()}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AUDIO_MU_CACHE": str(settings.folder / "cache")}
    if parts[0].process == "numbers":
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS promises no equal runs
    words = [sys.executable, "-m", "benchmarks.gpu.work", settings.as_text(), json.dumps(plan), str(progress)]
    process = subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True)
    while process.poll() is None:
        time.sleep(0.2)
        name, limit = _current(progress, parts, settings)
        if time.time() > limit:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the process and its workers
            process.wait()
            if name == ENDED:
                return len(parts), 0
            if time.time() > settings.deadline:
                table.add(name, "the part", SKIPPED, note="its rest: the command's time was over")
            else:
                table.add(name, "the part", FAILED, note="ended from outside: it outstayed its time")
            return len(_begun(progress)), -signal.SIGKILL
    begun = _begun(progress)
    if process.returncode not in (0, NO_DEVICE):
        name = begun[-1][0] if begun else parts[0].name
        table.add(name, "the part", FAILED, note=f"its process ended with code {process.returncode}")
    return len(begun), process.returncode


def _begun(progress: Path) -> list[tuple[str, float]]:
    """The parts that a process has begun, each with the time at which it is to be ended."""
    lines = progress.read_text().splitlines(keepends=True) if progress.exists() else []
    return [(name, float(end)) for name, end in (line.split() for line in lines if line.endswith("\n"))]


def _current(progress: Path, parts: list[Part], settings: Settings) -> tuple[str, float]:
    begun = _begun(progress)
    name, end = begun[-1] if begun else (parts[0].name, time.time() + GRACE)
    return name, min(end + GRACE, settings.deadline)
