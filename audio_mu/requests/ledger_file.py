"""The ledger beside the store, in a file of the user's (`AUDIO_MU_LEDGER`): a restored backup knows less than it.

A line of JSON for each answer and each erasure: when, the hashes of request and data set, the recordings' number and
hashes. No name of anybody or anything is in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from audio_mu.config.commands import command
from audio_mu.errors import UserError
from audio_mu.progress import say_once
from audio_mu.system.hashing import sha256
from audio_mu.system.writing import locked, write_atomic

VARIABLE = "AUDIO_MU_LEDGER"
ANSWERED, ERASED = "answered", "erased"
Key = tuple[str, str]
"""Hash of the request, hash of the data set's name."""


@dataclass(frozen=True)
class Known:
    """A request of a data set, its state, and its `n` recordings by their hashes: as a clip, as the file has it."""

    request: str
    dataset_name: str
    state: str
    n: int
    hashes: frozenset[str]

    @property
    def key(self) -> Key:
        """What it is known by in the file."""
        return self.request, sha256(self.dataset_name)


@dataclass(frozen=True)
class Missing:
    """A request that the file knows better than the store: the hashes of the recordings that the store lacks."""

    request: str
    hashes: frozenset[str]


def path() -> Path | None:
    """The file that `AUDIO_MU_LEDGER` names, or None. Raises `UserError` for a device, a pipe or a folder."""
    given = os.environ.get(VARIABLE)
    file = Path(given).expanduser().absolute() if given else None
    if file is not None and file.exists() and not file.is_file():
        raise UserError(f"{VARIABLE}={given!r} is no ordinary file: name one of your own, outside of the store")
    return file


def erased() -> set[Key]:
    """The requests that were erased, as the file says."""
    file = path()
    return {key for key, state in _lines(file) if state == ERASED} if file is not None else set()


def keep(store: Iterable[Known]) -> tuple[Missing, ...]:
    """Append what the store knows and the file does not; tell and return what the file knows and the store does not."""
    file = path()
    if file is None:
        return ()
    known = {entry.key: entry for entry in store}
    with locked(file):
        there = _lines(file)
        new = [
            {
                "at": _now(),
                "state": state,
                "request": key[0],
                "dataset": key[1],
                "n": entry.n,
                "audio": sorted(entry.hashes),
            }
            for key, entry in known.items()
            for state in ((ANSWERED, ERASED) if entry.state == ERASED else (ANSWERED,))
            if (key, state) not in there or (entry.state == state and not entry.hashes <= there[key, state].hashes)
        ]
        if new:
            before = file.read_bytes() if file.exists() else b""
            write_atomic(file, before + "".join(json.dumps(line) + "\n" for line in new).encode())
    covered = frozenset().union(*(entry.hashes for entry in known.values()))
    missing = []
    for (key, state), line in there.items():
        request = f"request {key[0][:8]} ({line.n} recordings)"
        if key in known and (more := line.hashes - covered):
            missing.append(Missing(key[0], more))
            say_once(f"{VARIABLE}: {request} has recordings that this store does not know (is it a restored backup?): "
                     "they are left out")  # fmt: skip
        if key not in known:
            if state == ANSWERED and not (line.hashes and line.hashes <= covered):
                missing.append(Missing(key[0], line.hashes))
                too = ", and erased" if (key, ERASED) in there else ""
                say_once(
                    f"{VARIABLE}: {request} was answered at {line.at}{too}, and this store does not know it (is it "
                    f"a restored backup?): answer it again before anything else{', then erase it' * bool(too)}"
                )
        elif state == ERASED and known[key].state != ERASED:
            say_once(f"{VARIABLE}: {request} was erased at {line.at}, and this store has not done so (is it a restored "
                     f"backup?): run `{command('erase', request='all', confirm='true')}`")  # fmt: skip
    return tuple(missing)


class _Line(NamedTuple):
    at: str
    n: int
    hashes: frozenset[str]


def _lines(file: Path) -> Mapping[tuple[Key, str], _Line]:
    """(request, state) → what the file says of it. Raises `UserError` for what is no such file."""
    found: dict[tuple[Key, str], _Line] = {}
    try:
        text = file.read_text() if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{VARIABLE}={str(file)!r} cannot be read ({error}): restore the file or its rights") from None
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            about = json.loads(line)
            key = (str(about["request"]), str(about["dataset"]))
            hashes = frozenset(map(str, about["audio"]))
            here = key, str(about["state"])
            first = found.get(here) or _Line(str(about["at"]), 0, frozenset())
            found[here] = _Line(first.at, int(about["n"]), first.hashes | hashes)
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{VARIABLE}={str(file)!r}: line {number} is no entry of a ledger: restore the file, or name another"
            ) from None
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
