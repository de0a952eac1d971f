"""Progress on long work: a bar on a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

from audio_mu.printable import printable

T = TypeVar("T")


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
    line = printable(line)
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stdout)
    else:
        print(line, flush=True)


@cache
def say_once(line: str) -> None:
    """Print a line once in a process: every step of a command may find the same."""
    say(line)


def complain(line: str) -> None:
    """Print a line where errors go, as it may be shown."""
    print(printable(line), file=sys.stderr)
