"""Tasks without a result, and runs with a damaged part: what is left out, and what a command says of it in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audio_mu.errors import UserError, counted
from audio_mu.progress import say
from audio_mu.store import queries
from audio_mu.store.artifacts import Unreadable
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import REASON, Run, child_run

COUNT, TRACE = "failed_tasks", "failure.txt"


def log_failed(
    store: Store, parent: Run, stage: str, role: str, name: str, tags: Mapping[str, str], params: Mapping[str, str],
    reason: str, trace: str = "",
) -> None:  # fmt: skip
    """Log a task that failed as a FAILED run below its command's; `trace`: where it was raised.

    No search for finished steps finds it, so that the next command does the task again.
    """
    run = child_run(store, parent, stage, role, name, {**tags, REASON: reason}, params)
    if trace:
        run.text(TRACE, trace)
    store.client.set_terminated(run.id, "FAILED")
    store.failed.append(f"{name}: {reason}")
    parent.tags({COUNT: str(len(store.failed))})
    say(f"  FAILED {name}: {reason}")


def still_failed(store: Store, tags: Mapping[str, str], finished: Sequence[Mapping[str, str]], *keys: str
                 ) -> dict[tuple[str, ...], Finished]:  # fmt: skip
    """The newest failure for each combination of these tags, unless a finished run has it too."""
    found = [run for run in queries.find(store, tags, status="FAILED") if REASON in run.tags]
    there = {tuple(tags.get(key, "") for key in keys) for tags in finished}
    return {key: run for key, run in queries.newest_by(found, *keys).items() if key not in there}


def leave_out(store: Store, run: Finished, error: Unreadable) -> str:
    """Leave a run with a damaged part out, while the others go on; return the line that says so."""
    told = f"{run.name}: {error}"
    if store.damaged.setdefault(run.id, told) is told:
        say(f"  LEFT OUT {told}")
    return told


def refuse_left_out(store: Store, runs: Mapping[tuple[str, int], Finished], *methods: str) -> None:
    """Raise `UserError` where a run of these methods is left out: no evidence is given of the others."""
    for (method, _), run in runs.items():
        if method in methods and run.id in store.damaged:
            raise UserError(f"no evidence of a part of the runs, {store.damaged[run.id]}")


def last_lines(store: Store) -> list[str]:
    """Number and names of the tasks that failed in this command and of the runs that it left out, if any."""
    lines, n = _failed_lines(store), len(store.damaged)
    if n:
        head = f"{counted(n, 'run')} left out, a part of {'it' if n == 1 else 'each'} cannot be read:"
        lines += [head, *(f"  {line}" for line in store.damaged.values())]
    return lines


def _failed_lines(store: Store) -> list[str]:
    n = len(store.failed)
    if not n:
        return []
    head = f"{counted(n, 'task')} failed; the others are finished, and the same command tries only "
    return [f"{head}{'this one' if n == 1 else 'these'} again:", *(f"  {line}" for line in store.failed)]
