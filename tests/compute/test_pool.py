"""Worker processes of this machine: results come back, errors are the job's own, a killed worker is told."""

from __future__ import annotations

import os
import signal

import pytest

from audio_mu.compute.cores import threads_and_workers
from audio_mu.compute.engine import open_engine
from audio_mu.compute.pool import LocalEngine
from audio_mu.config import MachineParameters
from audio_mu.errors import UserError


def square(number: int) -> int:
    """A job."""
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


def die(_: int) -> None:
    """A job whose worker is killed from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_every_job_comes_back_with_its_result() -> None:
    """Catches a job that is lost, given to two workers, or answered with another one's result."""
    with LocalEngine(2) as engine:
        assert dict(engine.run(square, range(5), "squares")) == {n: n * n for n in range(5)}
        assert dict(engine.run(square, [7], "more squares")) == {7: 49}
        assert list(engine.run(square, [], "nothing")) == []


def test_an_error_of_a_job_is_raised_as_it_is() -> None:
    """Catches an error that is swallowed or changed on its way from the worker."""
    with LocalEngine(1) as engine, pytest.raises(ValueError, match="-1 is negative"):
        list(engine.run(square, [-1], "squares"))


def test_a_killed_worker_is_told_in_one_line() -> None:
    """Catches a traceback, or an endless wait, where the system has killed a worker."""
    with LocalEngine(1) as engine, pytest.raises(UserError, match="a worker process was killed") as raised:
        list(engine.run(die, [1], "deaths"))
    assert "\n" not in str(raised.value)


def test_auto_gives_every_core_one_task() -> None:
    """Catches figures that would depend on the machine: a task has one thread unless the user says otherwise."""
    cores = len(os.sched_getaffinity(0))
    assert threads_and_workers(MachineParameters(device="cpu")) == (1, cores)
    assert threads_and_workers(MachineParameters(device="cpu", threads=2, workers=3)) == (2, 3)
    assert isinstance(open_engine(MachineParameters(device="cpu", workers=1)), LocalEngine)
