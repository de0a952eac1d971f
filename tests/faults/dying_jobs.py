"""Jobs that kill their worker or refuse, for the engines' tests, in a module that remote workers can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from audio_mu.compute.problem import Problem
from audio_mu.errors import UserError


@dataclass(frozen=True)
class DyingJob:
    """A job whose first worker is killed; `mark` remembers it."""

    problem: Problem
    seed: int
    mark: Path
    runs_own_code: bool = False


def own_process(_: DyingJob) -> int:
    """The number of the worker."""
    return os.getpid()


def die_once(job: DyingJob) -> int:
    """The seed, from the second attempt on."""
    if not job.mark.exists():
        job.mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job.seed


def nap(job: DyingJob) -> int:
    """A job that takes as many seconds as its seed."""
    time.sleep(job.seed)
    return job.seed


def die(job: DyingJob) -> int:
    """A job that no worker survives; `mark` counts them."""
    with job.mark.open("a") as stream:
        stream.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    return job.seed


def refuse_odd(job: DyingJob) -> int:
    """The seed, or an error of the user's, raised far away."""
    if job.seed % 2:
        raise UserError(f"seed={job.seed} is refused: give another")
    return job.seed
