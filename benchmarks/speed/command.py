"""The benchmark's command: the sections, their order, and the table that they fill."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from benchmarks import speed
from benchmarks.speed import arithmetic, data, workflows
from benchmarks.speed.measuring import N_CLIPS, Context, Section
from benchmarks.speed.rows import TABLE, markdown, stored

SECTIONS: dict[str, Section] = {
    "start_up": workflows.start_up,
    "vggish": arithmetic.vggish,
    "cct": arithmetic.cct,
    "vit": arithmetic.vit,
    "evaluate": arithmetic.evaluate,
    "features": data.features,
    "split": data.split,
    "scaling": arithmetic.scaling,
    "memory": data.memory,
    "five_seeds": workflows.five_seeds,
    "compare": workflows.compare,
    "one_seed": workflows.one_seed,
    "demo": workflows.demo,
}


def main() -> None:
    """Measure the sections that are asked for or missing."""
    parser = argparse.ArgumentParser(description=speed.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help=f"sections with commas: {', '.join(SECTIONS)}")
    parser.add_argument("--again", action="store_true", help="measure what the table has already, too")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--unlearn-clips", type=int, default=N_CLIPS, help="clips of one_seed: 3000 is the study's")
    parser.add_argument("--table", action="store_true", help="print the rows and measure nothing")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name] or list(SECTIONS)
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"--only: no section {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    if not arguments.table:
        with tempfile.TemporaryDirectory() as folder:
            context = Context(arguments.rounds, arguments.threads, Path(folder), arguments.unlearn_clips)
            for name in chosen:
                if arguments.only or arguments.again or name not in set(stored()["section"]):
                    measure(name, context)
    print(markdown(stored()))


def measure(name: str, context: Context) -> None:
    """Measure one section and put its rows into the table."""
    start = time.perf_counter()
    rows = pd.DataFrame([asdict(row) for row in SECTIONS[name](context)])
    before = stored()
    table = pd.concat([before[before["section"] != name], rows]).sort_values(
        "section", key=lambda column: column.map(list(SECTIONS).index), kind="stable"
    )
    table.to_csv(TABLE, index=False, float_format="%.4g")
    print(f"== {name}, {time.perf_counter() - start:.0f} s\n{markdown(rows)}\n", flush=True)
