"""The command line: words become values, the console script finds its entry points, mistakes get one line."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from audio_mu.cli import ENTRY_POINTS, read_words
from audio_mu.errors import UserError
from tests.commands import entry_point, own_environment

INTERRUPTS = """
import multiprocessing, os, signal, time
from torch import nn


class Interrupts:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)


if multiprocessing.parent_process() is None:
    Interrupts()
"""
PRINTS = """
def prints(task):
    print("x" * 100_000, flush=True)
    return task.base()
"""


def test_words_become_values() -> None:
    """Catches hyphens, equals signs or a repeated parameter being misread."""
    assert read_words(["--n-epochs", "3", "--seeds=1,2"]) == {"n_epochs": "3", "seeds": "1,2"}
    for words in (["--seeds"], ["seeds=1"], ["--seeds", "1", "--seeds", "2"], ["--forget_pct", "30"]):
        with pytest.raises(UserError):
            read_words(words)


def called(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m audio_mu` with these words: what the console script `audio-mu` runs."""
    return subprocess.run([sys.executable, "-m", "audio_mu", *words], capture_output=True, text=True, check=False)


def test_the_console_script_lists_its_entry_points() -> None:
    """Catches an entry point that nobody finds, and a list that needs torch or MLflow."""
    done = called()
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in ENTRY_POINTS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trian",), "error: 'trian' is no entry point: choose main, train"),
        (("train", "--n_epoch", "3"), "error: unknown parameter n_epoch='3': did you mean n_epochs?"),
        (("train", "--forget_pct=30"), "error: unknown parameter forget_pct='30'"),
        (("unlearn", "--seeds", "4,x"), "error: seeds='4,x' is not allowed: give whole numbers"),
        (("erase", "--request", "--confirm", "true"), "error: --request lacks its value, --confirm follows: give"),
        (("erase", "--request", "--confirm=true"), "error: --request lacks its value, --confirm=true follows: give"),
        (("erase", "--request"), "error: --request lacks its value: give --request value"),
    ],
)
def test_mistakes_get_one_line(words: tuple[str, ...], said: str) -> None:
    """Catches a traceback or a usage block for a misspelt word."""
    done = called(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_whose_streams_are_closed_says_what_it_can(closed: str) -> None:
    """Catches a traceback, or another exit code, where a script has closed what a command would print to."""
    words = f"{sys.executable} -m audio_mu compare --seeds 4,x"
    done = subprocess.run(["bash", "-c", f"{words} {closed}"], capture_output=True, text=True, check=False)
    said = "" if "2>" in closed else "error: seeds='4,x' is not allowed: give whole numbers"
    assert (done.returncode, done.stderr[: len(said)], "Traceback" in done.stderr) == (2, said, False)


def test_letters_that_a_terminal_lacks_are_written_out() -> None:
    """Catches a command that ends with the first name that its terminal's encoding does not know."""
    words = [sys.executable, "-c", "from audio_mu.progress import *; prepare_streams(); say('Zo\u00eb'); say('end')"]
    told = subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=True)
    assert told.stdout == b"Zo\\xeb\nend\n"


@pytest.mark.slow
def test_work_goes_on_where_nobody_reads_it(tmp_path: Path) -> None:
    """Catches hours of work that end with `| head -1`, in the command or in a method that prints, and a traceback."""
    from tests.answered import Answered

    made = Answered.new(tmp_path, None)
    (tmp_path / "prints.py").write_text(PRINTS)
    request = {"methods": f"naive,{tmp_path}/prints.py:prints", "forget_percentage": "20"}
    for command in ("train", "attack", "unlearn"):
        words = entry_point(command, {**made.parameters, **(request if command == "unlearn" else {})})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(words, cwd=tmp_path, env=own_environment(tmp_path / "cache"), text=True, **pipes) as run:
            assert run.stdout.readline()
            run.stdout.close()
            told = run.stderr.read()
        assert run.returncode == 0, told
        assert "note: nobody reads what this command prints any more" in told
        assert "Traceback" not in told
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert set(database.execute("select status from runs")) == {("FINISHED",)}
        assert ("prints",) in set(database.execute("select value from tags where key = 'method'"))


@pytest.mark.slow
def test_an_interrupt_that_gets_lost_comes_again(tmp_path: Path) -> None:
    """Catches a SIGTERM that is thrown away because it came while Python destroyed an object, and the words for it."""
    from tests.answered import FLAT, Answered

    made = Answered.new(tmp_path, None)
    (tmp_path / "own.py").write_text(INTERRUPTS + FLAT)
    words, environment = entry_point("train", made.parameters), own_environment(tmp_path / "cache")
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        130, "interrupted: finished steps are kept, and the same command goes on from there\n",
    )  # fmt: skip
