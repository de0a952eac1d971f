"""What is shown of others' text: nothing that a terminal obeys, no password; letters of every script as they are."""

from __future__ import annotations

import ast
import time

import pytest

from audio_mu.errors import UserError, counted, one_line, typed
from audio_mu.printable import printable, storable
from audio_mu.progress import complain, say
from tests.commands import ROOT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"), ("a\rb", r"a\rb"), ("\u202egpj.wav", r"\u202egpj.wav"),
        ("\u2066x\u2069", r"\u2066x\u2069"), ("\u200bx\ufeff", r"\u200bx\ufeff"), ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"), ("\x9b31m", r"\x9b31m"), (r"C:\x1b", r"C:\x1b"),
        *((kept, kept) for kept in ("two\nlines\tand a tab", "Zoë, Jürgen, 李, 🙂, שלום", "می\u200cخواهم")),
    ],
)  # fmt: skip
def test_what_a_terminal_obeys_is_written_out(text: str, shown: str) -> None:
    """Catches names that clear the screen or read from the right, and names of people that are spoilt."""
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pa@ss/wo:rd@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("MLFLOW_TRACKING_URI='https://me:word@host/x' is away", "MLFLOW_TRACKING_URI='https://me:***@host/x' is away"),
        ("https://ghp_token@github.com/x.git", "https://***@github.com/x.git"),
        ("postgresql://me@host/db?password=word&sslmode=require", "postgresql://me@host/db?password=***&sslmode=require"),
        ("http://h/a.tar.gz?X-Amz-Signature=abc&X-Amz-Credential=d&v=1",
         "http://h/a.tar.gz?X-Amz-Signature=***&X-Amz-Credential=***&v=1"),
        ("https://h/a?sv=1&sig=abc", "https://h/a?sv=1&sig=***"),
        ("http://127.0.0.1:5000/#/experiments/0/runs?viewStateShareKey=audio-mu",
         "http://127.0.0.1:5000/#/experiments/0/runs?viewStateShareKey=audio-mu"),
        ("sqlite:////a:b/me@home/mlflow.db", "sqlite:////a:b/me@home/mlflow.db"),
        ("MLFLOW_TRACKING_URI=http://127.0.0.1:5000 mlflow models serve -m models:/name@unlearned",
         "MLFLOW_TRACKING_URI=http://127.0.0.1:5000 mlflow models serve -m models:/name@unlearned"),
    ],
)  # fmt: skip
def test_addresses_without_their_passwords(text: str, shown: str) -> None:
    """Catches a password, a token or a signature on the screen, and an address that is no longer one."""
    assert printable(text) == shown


def test_everything_that_is_told_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a way to the screen of its own, and an error that forges a second line."""
    hostile = "\x1b[2J\u202e http://me:word@host"
    say(hostile)
    complain(hostile)
    output = capsys.readouterr()
    for text in (output.out, output.err, str(UserError(f"{hostile}\nerror: forged")), one_line(ValueError(hostile))):
        assert "\x1b" not in text and "\u202e" not in text and "word" not in text
    assert "\n" not in str(UserError("a\nb"))


def test_what_is_stored_is_spoilt_by_nothing_but_half_characters() -> None:
    """Catches names, files and passwords that are changed where they are kept, not shown."""
    kept = "\x1b\u200b http://me:word@host Zoë"
    assert (storable(kept), storable("a\udcff")) == (kept, r"a\udcff")


def test_large_pages_take_no_time() -> None:
    """Catches a search that takes the square of a page's length."""
    start = time.monotonic()
    printable("a" * 3_000_000 + "http://x" + "?" + "b" * 3_000_000)
    assert time.monotonic() - start < 5


def test_numbers_and_parameters_as_one_writes_them() -> None:
    """Catches `1 speakers`, and a pattern with its backslashes doubled."""
    assert [counted(n, what) for n, what in ((1, "speaker"), (2, "class"), (2_000, "speaker"))] == [
        "1 speaker", "2 classes", "2,000 speakers",
    ]  # fmt: skip
    assert typed("speaker_pattern", r"(\d)-") == r"speaker_pattern='(\d)-'"


def test_nothing_is_printed_elsewhere() -> None:
    """Catches a `print` of its own, which what is shown would pass by."""
    allowed = {"progress.py", "reads.py"}  # the second prints a page of its own
    for path in (ROOT / "audio_mu").rglob("*.py"):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        printing = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        assert path.name in allowed or not printing, path
