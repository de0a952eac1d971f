"""Which process is alive, and what a dead one left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audio_mu.system import processes, writing

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told apart through /proc")


@pytest.fixture
def alive():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_live_process_is_told_from_a_dead_one(alive: subprocess.Popen) -> None:
    """Catches a live process called gone, a dead or undead one called alive, and a number given to another process."""
    started = processes.since(alive.pid)
    assert not processes.is_gone(alive.pid, started)
    ticks, machine, boot, namespace = started.split("-")
    assert processes.is_gone(alive.pid, f"{int(ticks) + 1}-{machine}-{boot}-{namespace}")
    alive.kill()
    while processes.since(alive.pid):  # until it is a zombie, which its parent has not asked for yet
        pass
    assert processes.is_gone(alive.pid, started)
    alive.wait()
    assert processes.is_gone(alive.pid, started)
    assert processes.is_gone(alive.pid, "")


def test_what_cannot_be_known_is_alive() -> None:
    """Catches runs of another container or another machine of the same name being ended."""
    ticks, machine, boot, namespace = processes.since(os.getpid()).split("-")
    dead = 2**22 + 1  # above the largest number that Linux gives
    assert processes.is_gone(dead, f"{ticks}-{machine}-{boot}-{namespace}")
    assert not processes.is_gone(dead, f"{ticks}-{machine}-{boot}-{namespace}1")
    assert not processes.is_gone(dead, f"{ticks}-othermac-{boot[:-1]}x-{namespace}")
    assert processes.is_gone(os.getpid(), f"{ticks}-{machine}-{boot[:-1]}x-{namespace}") == bool(machine)


KILLED = """
import os, signal, sys
from pathlib import Path
from audio_mu.system import processes, writing as files
folder = Path(sys.argv[1])
with files.own_temporary_folder(), files.atomic_folder(folder / "cache") as partial:
    (partial / "half").write_text("half")
    (folder / f".file.0123.{processes.own_mark()}.tmp").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_one_removes_what_a_killed_process_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches stray temporary files after a kill, and files of a live process being removed."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert len(list(tmp_path.iterdir())) == 3
    own = tmp_path / f".file.0123.{processes.own_mark()}.tmp"
    own.write_text("being written")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with writing.own_temporary_folder(), writing.atomic_folder(tmp_path / "cache"):
        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
    writing.write_atomic(tmp_path / "file", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "file", own.name}
