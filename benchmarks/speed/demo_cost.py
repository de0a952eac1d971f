"""What MLflow, the store and model logging cost in a run of the whole chain: where the seconds of its process go.

    python -m benchmarks.speed.demo_cost result.json [--name value …]

Runs `entrypoints.main` with the given parameters in this process and wraps the functions that talk to MLflow. A call
within another one counts for the outer one. Writes wall and CPU seconds for each of the groups, and of the whole.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

START = time.perf_counter()
Seconds = dict[str, list[float]]


def cpu() -> float:
    """CPU seconds of this process alone."""
    return time.process_time()


class Clock:
    """Wall and CPU seconds by group; only the outermost call counts."""

    def __init__(self) -> None:
        self.seconds: Seconds = defaultdict(lambda: [0.0, 0.0])
        self.inside = False

    def wrap(self, owner: Any, name: str, group: str) -> None:
        """Replace a function or method of an owner by one that is timed."""
        self._put(owner, name, group, vars(owner)[name])

    def _put(self, owner: Any, name: str, group: str, found: Any) -> None:
        function: Callable[..., Any] = found.__func__ if isinstance(found, classmethod) else found

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self.inside:
                return function(*arguments, **named)
            self.inside = True
            start, start_cpu = time.perf_counter(), cpu()
            try:
                return function(*arguments, **named)
            finally:
                self.inside = False
                self.add(group, time.perf_counter() - start, cpu() - start_cpu)

        setattr(owner, name, classmethod(timed) if isinstance(found, classmethod) else timed)

    def add(self, group: str, wall: float, cpu_seconds: float) -> None:
        """Count seconds for a group."""
        self.seconds[group][0] += wall
        self.seconds[group][1] += cpu_seconds


def main(result: Path, arguments: list[str]) -> int:
    """Run the chain and write what it cost; return the chain's exit code."""
    clock = Clock()
    start, start_cpu = time.perf_counter(), cpu()
    import mlflow  # noqa: F401

    clock.add("import of MLflow", time.perf_counter() - start, cpu() - start_cpu)
    from audio_mu.store import links, queries, registry, runs

    for name in ("tags", "params", "metrics", "curves", "note", "dataset", "__exit__"):
        clock.wrap(runs.Run, name, "runs: parameters, tags, metrics")
    for name in ("open_run", "child_run"):
        clock.wrap(runs.Store, name, "runs: parameters, tags, metrics")
    for name in ("text", "csv", "npz", "bytes"):
        clock.wrap(runs.Run, name, "artifacts written")
    clock.wrap(runs.Store, "connect", "store opened")
    for name in ("find", "newest"):
        clock.wrap(queries, name, "store asked and read")
    for name in ("log_model", "register", "set_alias"):
        clock.wrap(registry, name, "models logged and registered")
    for name in ("load_state", "by_alias", "of_run"):
        clock.wrap(registry, name, "store asked and read")
    reading = {name: getattr(runs, name) for name in ("read_npz", "read_csv", "read_json")}
    for name in reading:
        clock.wrap(runs, name, "store asked and read")
    clock.wrap(links, "share_charts", "runs: parameters, tags, metrics")
    import entrypoints.main as chain
    from audio_mu.cli import run_entry_point

    ours = [module for name, module in sys.modules.items() if name.startswith("audio_mu.")]
    for module, (name, function) in product(ours, reading.items()):  # some hold the functions under their own names
        if vars(module).get(name) is function:
            setattr(module, name, vars(runs)[name])
    code = run_entry_point("", chain.work, arguments)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    result.write_text(
        json.dumps(
            {
                "wall": time.perf_counter() - START,
                "cpu": cpu() + children.ru_utime + children.ru_stime,
                "groups": clock.seconds,
            }
        )
    )
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
