"""Errors that a user can cause, told in one line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from audio_mu.printable import printable


class UserError(Exception):
    """A mistake that the user can mend: the message says what, which value, and what to do.

    Entry points print it as one line without a traceback and end with a non-zero exit code.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message).replace("\n", r"\n"))


def one_line(error: BaseException | str, longest: int = 200) -> str:
    """What an error says, on one line of at most `longest` characters."""
    return " ".join(printable(said(error)).split())[:longest]


def said(error: BaseException | str) -> str:
    """What an error says; the text of an error of the user's own may fail itself."""
    try:
        return str(error)
    except BaseException as failed:
        return f"its text fails with {type(failed).__name__}"


def named(error: BaseException, longest: int = 200) -> str:
    """An error in one line: a `UserError` by its words alone, any other with its class before them."""
    told = one_line(error, longest)
    return told if isinstance(error, UserError) else f"{type(error).__name__}: {told}".removesuffix(": ")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, each once: one that is raised from itself has no end."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


MEMORY_ENDED = ("cannot allocate memory", "can't allocate memory", "not enough memory", "out of memory", "bad_alloc",
                "failed to map segment", "can't start new thread")  # fmt: skip
"""What libraries say where the system gives no more memory."""


def memory_ended(error: BaseException) -> bool:
    """Whether an error, or what it came from, means that there is no more memory."""
    return any(
        isinstance(cause, MemoryError) or any(sign in said(cause).lower() for sign in MEMORY_ENDED)
        for cause in causes(error)
    )


def first_of(items: Sequence[str], shown: int = 5) -> str:
    """The first items of a list, with commas, and a sign that there are more."""
    return ", ".join(items[:shown]) + (", …" if len(items) > shown else "")


def counted(n: int, what: str) -> str:
    """A number with its noun: `1 speaker`, `2 copies`, `2,000 classes`."""
    plural = what.removesuffix("y") + ("ies" if what.endswith("y") else "es" if what.endswith(("s", "ch")) else "s")
    return f"{n:,} {what if n == 1 else plural}"


def typed(name: str, value: str) -> str:
    """A parameter as one would type it: a backslash once, quotes where a shell needs them."""
    return f"{name}={shlex.quote(value)}"


def suggest(name: str, known: Sequence[str], otherwise: str = "see --help for all parameters") -> str:
    """What somebody who wrote `name` may have meant of the known names, as half a sentence."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8) or difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
