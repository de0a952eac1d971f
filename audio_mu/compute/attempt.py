"""One job in a worker process: its result, or why there is none. Light to import, so that a worker can say so."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from audio_mu.errors import memory_ended, named

J = TypeVar("J")
R = TypeVar("R")
F = TypeVar("F")
TRIES = 2  # of a job whose worker is lost
SILENCE = 60.0  # seconds in which no task ends, after which it is said which are running


def nothing() -> None:
    """What a command does while its jobs are computed, where it has nothing to do."""


@dataclass(frozen=True)
class Failed:
    """A job without a result. `reason`: in one line; `trace`: where it was raised, empty where nobody knows."""

    reason: str
    trace: str = ""


class TooLong(BaseException):
    """A job has taken all the time that it may: no error that a method would catch."""


def attempt(work: Callable[[J], R], job: J) -> R | Failed:
    """The result of a job, or its failure as text: an error of the user's own class may not travel.

    For worker processes, which no Ctrl-C reaches: whatever a method of the user's own raises is a failure of the job.
    """
    try:
        return work(job)
    except TooLong:
        raise
    except BaseException as error:
        return failure(error)


def measured(result: R | Failed, figures: Callable[[R], F]) -> tuple[R, F] | Failed:
    """A result with its figures. Those of a network that diverged cannot be told: that is a failure too."""
    if isinstance(result, Failed):
        return result
    try:
        return result, figures(result)
    except Exception as error:
        return failure(error)


def failure(error: BaseException) -> Failed:
    """What an error says, in one line, and its trace."""
    told = named(error)
    if memory_ended(error):
        told = f"the memory has ended ({told}): fewer workers need less"
    return Failed(told, "".join(traceback.format_exception(error)))


def name_of_job(job: object) -> str:
    """A job in words: its method and seed, where it has them."""
    method, seed = getattr(job, "method", ""), getattr(job, "seed", None)
    return f"{method} seed {seed}".strip() if seed is not None else "a task"


def spoils_its_worker(job: object) -> bool:
    """Whether a job runs code of the user's own, which may leave a process changed: it is no other job's then."""
    return bool(getattr(job, "runs_own_code", False))


def too_long(minutes: float) -> Failed:
    """The failure of a job that was ended because of its time."""
    return Failed(f"took longer than task_minutes={minutes:g}")


def next_silence(seconds: float) -> float:
    """Seconds until something is said again of tasks that go on: a minute, then longer and longer, up to eight."""
    return min(2 * seconds, 8 * SILENCE)


def lost(how: str) -> Failed:
    """The failure of a job that lost its worker every time."""
    return Failed(f"its worker was lost {TRIES} times ({how}; has the memory ended?): fewer workers need less")
