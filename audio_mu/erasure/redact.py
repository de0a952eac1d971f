"""Traces of recordings in files: which lines, rows and files name them, and the files without."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import quote

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import escape

from audio_mu.store.artifacts import packed, unpacked

WHOLE = (".html", ".json")
"""Text that makes no sense without some of its lines: it goes as a whole."""


@dataclass(frozen=True)
class Change:
    """What a file needs: its new content, None where it goes as a whole, and how many rows or lines are cut."""

    data: bytes | None
    cut: int


@dataclass(frozen=True)
class Sought:
    """Recordings by id and by audio hash."""

    ids: frozenset[str]
    hashes: frozenset[str]

    @cached_property
    def _exact(self) -> frozenset[str]:
        return self.ids | self.hashes

    @cached_property
    def _spellings(self) -> dict[str, re.Pattern[str]]:
        """As a page, JSON or an address writes them → the same where it is no part of another id."""
        in_json = (str(dumps(text))[1:-1] for text in self._exact for dumps in (json.dumps, htmlsafe_json_dumps))
        written = {str(way(text)) for text in self._exact for way in (str, html.escape, escape, quote)} | {*in_json}
        return {text: re.compile(rf"(?<![\w.-]){re.escape(text)}(?![\w-])") for text in sorted(written)}

    def named_in(self, text: str) -> bool:
        """Whether a text names one of the recordings."""
        return any(pattern.search(text) for written, pattern in self._spellings.items() if written in text)

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
            named = any(spelling.encode() in data for spelling in self._spellings)
            return Change(None, 1) if named else None
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
        exact = np.array(sorted(self._exact))
        gone: dict[int, np.ndarray] = {}  # number of rows → which of them
        for array in arrays.values():
            if array.dtype.kind == "U" and array.ndim == 1:
                gone[len(array)] = gone.get(len(array), False) | np.isin(array, exact)
        cut = sum(int(mask.sum()) for mask in gone.values())
        if not cut:
            return None
        kept = {
            name: array[~gone[len(array)]] if array.ndim and len(array) in gone else array
            for name, array in arrays.items()
        }
        return Change(packed(kept), cut)


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)  # not splitlines, which would cut at rarer characters too
