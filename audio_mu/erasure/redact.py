"""Traces of recordings in files: which lines, rows and files name them, and the files without."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import zipfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import quote

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import escape

from audio_mu.printable import printable
from audio_mu.store.artifacts import packed, unpacked

WHOLE = (".html", ".json")
"""Text that makes no sense without some of its lines: it goes as a whole."""
END = 8
"""Bytes at the end of a spelling by which bytes are searched, all at once."""


@dataclass(frozen=True)
class Change:
    """What a file needs: its new content, None where it goes as a whole, and how many rows or lines are cut."""

    data: bytes | None
    cut: int


@dataclass(frozen=True)
class Sought:
    """Recordings by id and by audio hash.

    A text is taken to pieces once and its words are looked up: a search per recording would take hours for thousands.
    """

    ids: frozenset[str]
    hashes: frozenset[str]

    @cached_property
    def _exact(self) -> frozenset[str]:
        return self.ids | self.hashes

    @cached_property
    def _spellings(self) -> frozenset[str]:
        """Every recording as it stands, and as a page, JSON or an address writes it."""
        in_json = (str(dumps(text))[1:-1] for text in self.ids for dumps in (json.dumps, htmlsafe_json_dumps))
        shown = {form for text in self.ids for form in (text, printable(text))}
        written = {str(way(text)) for text in shown for way in (str, html.escape, escape, quote)}
        return frozenset({*written, *in_json, *self.hashes})

    @cached_property
    def _by_word(self) -> dict[str, list[str]]:
        """The rarest word of a spelling → the spellings that are looked for where a text has this word."""
        words = {text: _words(text) for text in self._spellings}
        often = Counter(word for found in words.values() for word in found)
        by_word: dict[str, list[str]] = {}
        for text in sorted(words):
            by_word.setdefault(min(words[text], key=lambda word: (often[word], word), default=""), []).append(text)
        return by_word

    def named_in(self, text: str) -> bool:
        """Whether a text names one of the recordings, as no part of another id."""
        words = _words(text) | {""}  # a name without a word is looked for anywhere
        known = words & self._by_word.keys() if len(words) > len(self._by_word) else self._by_word.keys() & words
        return any(_stands_alone(spelling, text) for word in known for spelling in self._by_word[word])

    @cached_property
    def _by_end(self) -> dict[bytes, list[bytes]]:
        """The last bytes of a spelling → the spellings that end so."""
        by_end: dict[bytes, list[bytes]] = {}
        for text in self._spellings:
            by_end.setdefault(text.encode()[-END:], []).append(text.encode())
        return by_end

    def _in_bytes(self, data: bytes) -> bool:
        """Whether bytes that are no text have one of the recordings anywhere."""
        ends = np.array([int.from_bytes(end, "little") for end in self._by_end if len(end) == END], dtype="<u8")
        found = {end for end in self._by_end if len(end) < END}
        for start in range(END):
            windows = np.frombuffer(data, "<u8", count=max(0, len(data) - start) // END, offset=min(start, len(data)))
            found |= {int(end).to_bytes(END, "little") for end in np.unique(windows[np.isin(windows, ends)])}
        return any(spelling in data for end in found for spelling in self._by_end[end])

    def change(self, path: str, data: bytes) -> Change | None:
        """What must become of a file; None where it names none of the recordings."""
        suffix = PurePosixPath(path).suffix.lower()
        if suffix == ".npz":
            try:
                return self._arrays(data)
            except (ValueError, OSError, zipfile.BadZipFile):  # not arrays that can be read: bytes
                pass
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return Change(None, 1) if self._in_bytes(data) else None
        if suffix == ".csv":
            return self._table(text)
        if not self.named_in(text):
            return None
        kept = self.cut(text)
        return Change(None, 1) if suffix in WHOLE else Change(kept.encode(), text.count("\n") - kept.count("\n"))

    def cut(self, text: str) -> str:
        """A text without the lines that name one of the recordings."""
        return "".join(line for line in _lines(text) if not self.named_in(line))

    def _table(self, text: str) -> Change | None:
        """A CSV without the rows that name one, every other row as it stands; the header always stays."""
        lines = _lines(text)
        rows, start = [], 0
        reader = csv.reader(lines)
        for cells in reader:
            rows.append((cells, "".join(lines[start : reader.line_num])))
            start = reader.line_num
        kept = [raw for i, (cells, raw) in enumerate(rows) if i == 0 or self._exact.isdisjoint(cells)]
        if self.named_in("".join(kept)):  # within a cell, among other words
            kept = [raw for i, raw in enumerate(kept) if i == 0 or not self.named_in(raw)]
        return Change("".join(kept).encode(), len(rows) - len(kept)) if len(kept) < len(rows) else None

    def _arrays(self, data: bytes) -> Change | None:
        """An npz without the rows of the clips, whatever else has as many rows; types and order stay."""
        arrays = unpacked(io.BytesIO(data))
        gone: dict[int, np.ndarray] = {}  # number of rows → which of them
        for array in arrays.values():
            if array.dtype.kind == "U" and array.ndim == 1:
                named = np.array([text in self._exact for text in array.tolist()], dtype=bool)
                gone[len(array)] = gone.get(len(array), False) | named
        cut = sum(int(mask.sum()) for mask in gone.values())
        if not cut:
            return None
        kept = {
            name: array[~gone[len(array)]] if array.ndim and len(array) in gone else array
            for name, array in arrays.items()
        }
        return Change(packed(kept), cut)


_IN_ID = re.compile(r"[\w.-]")


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _stands_alone(spelling: str, text: str) -> bool:
    """Whether a spelling is in a text and no part of another id there."""
    start = text.find(spelling)
    while start >= 0:
        end = start + len(spelling)
        if not (_IN_ID.match(text[max(start - 1, 0) : start]) or _IN_ID.match(text[end : end + 1].replace(".", ""))):
            return True
        start = text.find(spelling, start + 1)
    return False


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)  # not splitlines, which would cut at rarer characters too
