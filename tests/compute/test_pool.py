"""Worker processes of this machine: results come back, a job that fails is told and is the only one that does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import torch

from audio_mu.compute.attempt import Failed
from audio_mu.compute.cores import threads_and_workers
from audio_mu.compute.engine import open_engine
from audio_mu.compute.pool import LocalEngine
from audio_mu.config import MachineParameters
from audio_mu.errors import UserError
from audio_mu.system.cores import cores_at_hand


class Odd(Exception):
    """An error that no other process can make again from its text."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


class Mute(Exception):
    """An error that cannot say anything."""

    def __str__(self) -> str:
        raise self


def from_itself() -> BaseException:
    error = ValueError("again")
    error.__cause__ = error
    return error


WILD = {-7: BaseException("base"), -8: KeyboardInterrupt("me"), -9: GeneratorExit(), -10: Mute(), -11: from_itself()}
"""What nobody would raise, and nobody catches."""


def square(number: int) -> int:
    """A job; some numbers end badly."""
    if number in WILD:
        raise WILD[number]
    if number == -1:
        raise ValueError(f"{number} is negative")
    if number == -2:
        raise UserError("rate=-2 is refused: give another")
    if number == -3:
        raise Odd("odd", "error")
    if number == -4:
        sys.exit("a method that ends the program")
    if number == -5:
        np.ones(1 << 45)
    if number == -6:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def unsendable(_: int) -> object:
    """A job whose result cannot travel."""
    return lambda: None


def die_once(mark: Path) -> int:
    """A job whose first worker is lost."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@dataclass(frozen=True)
class Named:
    """A job with the names that a method's has; `seconds`: how long it sleeps."""

    method: str
    seed: int
    seconds: float


def sleep(job: Named) -> int:
    """A job that may be deaf to what would end it."""
    if job.method == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(job.seconds)
    return job.seed


@dataclass(frozen=True)
class Spoiling:
    """A job that changes what is global in its process, and tells how it found that."""

    runs_own_code: bool


def spoil(_: Spoiling) -> tuple[int, torch.dtype, bool]:
    found = os.getpid(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
    torch.set_default_dtype(torch.float64)
    torch.autocast("cpu", dtype=torch.bfloat16).__enter__()
    return found


def wait_for(mark: Path) -> bool:
    for _ in range(600):
        if mark.exists():
            return True
        time.sleep(0.05)
    return False


def own_pid(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_every_job_comes_back_with_its_result() -> None:
    """Catches a job that is lost, given to two workers, or answered with another one's result."""
    with LocalEngine(2) as engine:
        assert dict(engine.run(square, range(5), "squares")) == {n: n * n for n in range(5)}
        assert dict(engine.run(square, [7], "more squares")) == {7: 49}
        assert list(engine.run(square, [], "nothing")) == []
        assert len({pid for _, pid in engine.run(own_pid, range(6), "numbers")}) == 2


def test_a_command_gets_ready_while_its_workers_compute(tmp_path: Path) -> None:
    """Catches what results need, made only when the first result waits for it: the job here ends because of it."""
    with LocalEngine(1) as engine:
        mark = tmp_path / "mark"
        assert dict(engine.run(wait_for, [mark], "waits", mark.touch)) == {mark: True}


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (-1, "ValueError: -1 is negative"),
        (-2, "rate=-2 is refused: give another"),
        (-3, "Odd: odd"),
        (-4, "SystemExit: a method that ends the program"),
        (-5, "the memory has ended (MemoryError: Unable to allocate"),
        (-6, "its worker was lost 2 times (signal 9; has the memory ended?)"),
        (-7, "BaseException: base"),
        (-8, "KeyboardInterrupt: me"),
        (-9, "GeneratorExit"),
        (-10, "Mute: its text fails with Mute"),
        (-11, "ValueError: again"),
    ],
)
def test_one_job_fails_and_the_others_do_not(job: int, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Catches a command that ends with its first failed job, whatever it fails by, a worker that is lost by an odd
    error, a reason of several lines, and a traceback on the terminal."""
    with LocalEngine(2) as engine:
        found = dict(engine.run(square, [job, 2, 3, 4], "squares"))
    failed = found.pop(job)
    assert found == {2: 4, 3: 9, 4: 16}
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)
    assert "\n" not in failed.reason
    assert ("Traceback" in failed.trace) == (job != -6)
    assert "Traceback" not in capfd.readouterr().err


def test_a_result_that_cannot_travel_is_a_failure() -> None:
    """Catches a command that waits for ever, or ends, where a method of the user's own records something odd."""
    with LocalEngine(1) as engine:
        ((_, failed),) = engine.run(unsendable, [1], "lambdas")
        assert isinstance(failed, Failed)
        assert "pickle" in failed.reason
        assert dict(engine.run(square, [3], "squares")) == {3: 9}


def test_what_a_worker_cannot_import_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a worker that ends with a trace, and a command that waits for it, where memory ends while it imports."""
    (tmp_path / "narrow.py").write_text(
        "import os\nif 'NARROW' in os.environ:\n"
        "    raise ImportError('libtorch_cpu.so: failed to map segment from shared object')\n"
        "def work(n): return n\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ['PYTHONPATH']}")
    from narrow import work  # type: ignore[import-not-found]

    monkeypatch.setenv("NARROW", "true")
    with LocalEngine(1) as engine:
        ((_, failed),) = engine.run(work, [1], "imports")
        assert isinstance(failed, Failed)
        assert failed.reason.startswith("the memory has ended (ImportError: libtorch_cpu.so")
        assert dict(engine.run(square, [3], "squares")) == {3: 9}


def test_no_job_finds_what_code_of_the_users_own_has_changed() -> None:
    """Catches figures that depend on which method ran before in the worker, and a new worker for every built-in one."""
    with LocalEngine(1) as engine:
        own = [found for _, found in engine.run(spoil, [Spoiling(True)] * 3, "own")]
        assert len({pid for pid, *_ in own}) == 3
        assert {tuple(state) for _, *state in own} == {(torch.float32, False)}
        (_, first), (_, second) = engine.run(spoil, [Spoiling(False)] * 2, "built in")
    assert first[1:] == (torch.float32, False) and first[0] == second[0]


def test_a_lost_worker_costs_its_job_one_more_try(tmp_path: Path) -> None:
    """Catches a job that is given up with its first worker, and jobs beside it that are begun again."""
    with LocalEngine(2) as engine:
        ((_, before),) = engine.run(own_pid, [0], "numbers")
        found = dict(engine.run(die_once, [tmp_path / "mark"], "deaths"))
    assert list(found.values()) != [before]
    assert all(isinstance(pid, int) for pid in found.values())


def test_an_engine_that_was_left_is_used_again() -> None:
    """Catches jobs of a broken-off command that are done, or told as another's, in the next one."""
    with LocalEngine(1) as engine:
        for _ in engine.run(square, range(50), "squares"):
            break
        assert dict(engine.run(square, [7], "squares")) == {7: 49}


@pytest.mark.parametrize("attempt", range(6))
def test_an_error_of_the_command_ends_all_workers(attempt: int) -> None:
    """Catches processes that outlive their command, and a command that waits for what nobody wants any more.

    Now and then a worker is between two jobs just then, and two threads end the same one.
    """
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), LocalEngine(2) as engine:
        pids = [pid for _, pid in engine.run(own_pid, range(4), "numbers")]
        for _ in engine.run(time.sleep, [0, 60, 60], "naps"):
            raise KeyboardInterrupt
    assert time.monotonic() - start < 30
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def environment(name: str) -> str:
    """A job."""
    return os.environ.get(name, "")


def test_workers_have_the_environment_of_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches workers with the cache or store of an earlier command: they are forked from a process that stays."""
    for value in ("first", "second"):
        monkeypatch.setenv("AUDIO_MU_CACHE", value)
        with LocalEngine(1) as engine:
            assert [result for _, result in engine.run(environment, ["AUDIO_MU_CACHE"], "jobs")] == [value]


def test_a_command_leaves_no_process_behind(tmp_path: Path) -> None:
    """Catches a server of workers that goes on importing when a command that has nothing to compute has ended."""
    if len(gettempdir()) > 60:
        pytest.skip("no socket can be made below a long TMPDIR")
    number = "print(w.forkserver._forkserver._forkserver_pid, flush=True)"
    ended = f"from audio_mu.compute import worker as w; w.start_server(); {number}; w.end_server()"
    server = int(subprocess.run([sys.executable, "-c", ended], capture_output=True, text=True, check=True).stdout)
    assert not Path(f"/proc/{server}").exists()
    killed = ended.replace("w.end_server()", "import os; os._exit(1)")
    server = int(subprocess.run([sys.executable, "-c", killed], check=False, capture_output=True, text=True).stdout)
    until = time.monotonic() + 60
    while Path(f"/proc/{server}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{server}").exists()


def test_workers_start_where_no_socket_can_be_made(tmp_path: Path) -> None:
    """Catches a traceback where the folder for temporary files has a long name, as a cluster's job folders have."""
    long = tmp_path / ("n" * 120)
    long.mkdir()
    one = "import os; from audio_mu.compute.pool import LocalEngine\nif __name__ == '__main__':\n"
    one += " with LocalEngine(1) as engine: "
    words = [sys.executable, "-c", one + "print([r for _, r in engine.run(os.getenv, ['TMPDIR'], 'jobs')])"]
    said = subprocess.run(words, env=os.environ | {"TMPDIR": str(long)}, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == str([str(long)])


def test_auto_gives_every_core_one_task() -> None:
    """Catches figures that would depend on the machine: a task has one thread unless the user says otherwise."""
    assert threads_and_workers(MachineParameters(device="cpu")) == (1, cores_at_hand())
    assert threads_and_workers(MachineParameters(device="cpu", threads=2, workers=3)) == (2, 3)
    assert isinstance(open_engine(MachineParameters(device="cpu", workers=1)), LocalEngine)


@pytest.mark.parametrize("method", ["slow", "deaf"])
def test_a_job_that_hangs_is_ended(method: str) -> None:
    """Catches a command that waits for ever for one method, and a hanging job that is tried twice."""
    hung, quick = Named(method, 1, 600.0), [Named("quick", seed, 0.01) for seed in range(3)]
    start = time.monotonic()
    with LocalEngine(1, task_minutes=0.05) as engine:
        found = dict(engine.run(sleep, [hung, *quick], "naps"))
    assert time.monotonic() - start < 60
    assert found[hung] == Failed("took longer than task_minutes=0.05")
    assert [found[job] for job in quick] == [0, 1, 2]


def test_what_is_running_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches an hour without a word about which method and seed it is spent on."""
    monkeypatch.setattr("audio_mu.compute.pool.SILENCE", 0.5)
    monkeypatch.setattr("audio_mu.compute.attempt.SILENCE", 0.5)
    with LocalEngine(1) as engine:
        list(engine.run(sleep, [Named("naive", 40, 6.0), Named("naive", 41, 0.0)], "naps"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "still running" in line]
    assert all(re.fullmatch(r"  still running: naive seed 40, since \d\d:\d\d", line) for line in lines)
    assert 2 <= len(lines) <= 8  # after 0.5, 1, 2, 4 s, and some for the worker's start
