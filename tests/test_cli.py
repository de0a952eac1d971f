"""The command line: words become values, the console script finds its entry points, mistakes get one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from audio_mu.cli import ENTRY_POINTS, read_words
from audio_mu.errors import UserError


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
    ],
)
def test_mistakes_get_one_line(words: tuple[str, ...], said: str) -> None:
    """Catches a traceback or a usage block for a misspelt word."""
    done = called(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
