"""Progress on long work: a bar on a terminal, one line per step elsewhere."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TextIO, TypeVar

from audio_mu.printable import printable

T = TypeVar("T")
UNREAD = (errno.EPIPE, errno.EIO)  # of a pipe whose reader has ended, and of a terminal that is gone


def bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items, showing how far the work is: a bar on a terminal, one line at the start elsewhere."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=printable(what), leave=False)
        return
    say(f"{what}: {total}")
    yield from items


def say(line: str) -> None:
    """Print one line at once, as it may be shown."""
    if not _write(printable(line), sys.stdout):
        complain("note: nobody reads what this command prints any more: its work goes on, in the store")


def show(page: str) -> None:
    """Print a page that was asked for, of which somebody may read the first lines alone."""
    _write(printable(page), sys.stdout)


@cache
def say_once(line: str) -> None:
    """Print a line once in a process: every step of a command may find the same."""
    say(line)


def complain(line: str) -> None:
    """Print a line where errors go, as it may be shown."""
    _write(printable(line), sys.stderr)


def _write(line: str, stream: TextIO) -> bool:
    """Write a line. False where nobody reads any more (`… | head -1`), from now on: no reason to end hours of work."""
    try:
        if stream is sys.stdout and sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.write(line, file=stream)
            stream.flush()
        else:
            print(line, file=stream, flush=True)
    except OSError as error:
        if error.errno not in UNREAD:
            raise
        _to_nobody(stream.fileno())
        return False
    return True


def prepare_streams() -> None:
    """Have a command print whatever its streams are: closed by its starter, or of an encoding that lacks letters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave_unread_streams() -> None:
    """Have what a method of the user's own prints go nowhere where nobody reads it, instead of failing the method."""
    streams = select.poll()
    for number in (1, 2):
        streams.register(number, 0)
    for number, found in streams.poll(0):
        if found & select.POLLERR:
            _to_nobody(number)


def _to_nobody(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
