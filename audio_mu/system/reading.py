"""Reading what a user or another program has written, of a bounded size and of plain values only."""

from __future__ import annotations

import codecs
import csv
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from audio_mu.errors import one_line

if TYPE_CHECKING:
    import numpy as np

MAX_NESTING = 10
LARGEST_NUMBER = 2**53
PLAIN = (str, int, float, bool, type(None))
LARGEST_TEXT = 256 << 20
"""Bytes of the largest list or table that is read whole."""


def read_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The UTF-8 text of a regular file, without a byte order mark; UTF-16, as spreadsheets write it, with one.

    Raises OSError where it cannot be read, and ValueError where it is no such text or longer than `limit` bytes.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text, see byte {error.start}") from None


def read_array(path: Path, mmap_mode: Literal["r", "c"] | None = None) -> np.ndarray:
    """The array of an npy file, nothing unpickled. Raises OSError, and ValueError for whatever else is wrong with it.

    numpy reads the file's head with Python's own parser, which raises errors of its own.
    """
    import numpy as np  # what only reads text and YAML does without

    try:
        return np.asanyarray(np.load(path, mmap_mode=mmap_mode, allow_pickle=False))
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{path} is no array: {one_line(error)}") from None


def delimiter_of(header: str) -> str:
    """What parts the columns of a table: the one of comma, semicolon and tab that its header has most of."""
    return max(",;\t", key=header.count)


COLUMNS = ("clip_id", "id", "path", "speaker", "label", "split", "start", "end", "audio_hash", "source_hash")
"""The columns of users' tables that mean something here."""


def column_names(cells: Iterable[str]) -> list[str]:
    """The names in a table's header without blanks at their ends; the known `COLUMNS` as spelt there, whatever their
    case: spreadsheets write `Speaker` and `ID`."""
    names = [cell.strip() for cell in cells]
    return [name.lower() if name.lower() in COLUMNS else name for name in names]


def has_column(table: Path | None, name: str) -> bool:
    """Whether a CSV has a column of this name; False where there is no table or it cannot be read."""
    try:
        header = read_text(table).partition("\n")[0] if table is not None else ""
    except (OSError, ValueError):
        return False
    return name in column_names(next(csv.reader([header], delimiter=delimiter_of(header)), []))


class _PlainLoader(yaml.SafeLoader):
    """Mappings without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if counts and counts.most_common(1)[0][1] > 1:
            raise ValueError(f"{counts.most_common(1)[0][0][:80]!r} comes twice")
        return super().construct_mapping(node, deep)


def plain_yaml(text: str) -> Any:
    """What a YAML document says, if it is of mappings, lists, text, numbers, true, false and null.

    Raises ValueError or yaml.YAMLError for anything else: references (a few lines of them unfold to gigabytes), deep
    nesting, repeated keys, tags, dates, numbers that are not finite or beyond 2**53.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) or depth > MAX_NESTING:
            raise ValueError(f"it has references, tags, or more than {MAX_NESTING} levels")
    content = yaml.load(text, _PlainLoader)
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif not isinstance(value, PLAIN) or (isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER):
            raise ValueError(f"it has a {type(value).__name__} where text or a number of usual size is expected")
    return content
