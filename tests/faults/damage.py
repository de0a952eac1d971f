"""Damage to valid inputs, and how a damaged input is answered.

A case is a valid input with a few random mutations. It passes when the input is read, or refused with one line that
says why.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audio_mu.data.audio import BadRecording
from audio_mu.errors import UserError
from audio_mu.store.weights import BadWeights

SHORTEST_LINE, LONGEST_LINE = len("is empty"), 2_000
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 128  # bytes where most of a format's fields are
REFUSALS = (UserError, BadRecording, BadWeights)


@dataclass(frozen=True)
class Kind:
    """A kind of input: valid examples, words of its language, and what reads it in an empty folder."""

    examples: Callable[[], tuple[bytes, ...]]
    words: tuple[bytes, ...]
    read: Callable[[bytes, Path], object]
    finish: Callable[[bytes], bytes] = bytes
    """Applied after the mutations, such as packing."""


def mutated(kind: Kind, chance: random.Random) -> bytes:
    """One of the kind's examples with one to sixteen mutations."""
    examples = kind.examples()
    data = bytearray(chance.choice(examples))
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(min(len(data), HEADER) + 1 if chance.random() < 0.5 else len(data) + 1)
        length = chance.choice((1, 2, 4, 8, 64, 1000) if len(data) > 1000 else (1, 2, 4, 8))
        way = chance.randrange(15) // 2
        if way == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            width = chance.choice((1, 2, 4, 8))
            number = chance.choice(NUMBERS) & ((1 << 8 * width) - 1)
            data[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
        elif way == 2:
            del data[at : at + length]
        elif way == 3:
            data[at:at] = bytes(data[at : at + length]) * chance.choice((1, 2, 50))
        elif way == 4:
            data[at:at] = chance.randbytes(chance.choice((1, 4, 16)))
        elif way == 5:
            data[at:at] = chance.choice(kind.words)
        elif way == 6:
            other = chance.choice(examples)
            data[at:] = other[chance.randrange(len(other) + 1) :]
        else:
            del data[at:]
    return kind.finish(bytes(data))


def outcome(kind: Kind, data: bytes) -> tuple[str, str]:
    """What comes of an input: (accepted, refused or crashed; the line that the user reads or what it died of)."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            kind.read(data, Path(folder))
        except REFUSALS as error:
            line = str(error)
            clear = SHORTEST_LINE <= len(line) <= LONGEST_LINE and len(line.splitlines()) == 1
            return ("refused" if clear else "crashed"), line
        except BaseException as error:
            return "crashed", f"{type(error).__name__}: {error}"
    return "accepted", ""
