"""A user's tables: CSV as spreadsheets write it, by the names of its columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from audio_mu.errors import UserError
from audio_mu.system.reading import COLUMNS, column_names, delimiter_of, read_text

ID_COLUMNS = ("id", "path")
OF_PART = re.compile(r"#[\d.]+-[\d.]+$")
SHOWN = 80  # characters of a cell that an error quotes

Row = tuple[int, Mapping[str, str]]
"""A row's last line in the file, and its cells by column, without blanks at their ends."""


def read_table(path: Path, shown: str, needed: Sequence[str]) -> tuple[list[str], list[Row]]:
    """The columns and the rows of a CSV with commas, semicolons or tabs, without empty rows.

    The recording of a row is in the column `id`, or `path`: in each row's cells it is `id`. Raises `UserError`, which
    calls the table `shown`, where it is no CSV in UTF-8 or UTF-16, lacks that or a needed column, has a column twice,
    or a row of another length.
    """
    try:
        text = read_text(path)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text.partition("\n")[0]))
        header = column_names(next(reader, []))
        keys = [column for column in ID_COLUMNS if column in header]
        if not keys or not {*needed} <= {*header}:
            wanted = " and ".join(needed)
            raise UserError(f"{shown} has the columns {str(header)[:200]}: it needs id (or path) and {wanted}")
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{shown} cannot be read as a CSV in UTF-8 ({error}): mend it") from None
    refuse_doubled(header, shown)
    short = [line for line, row in rows if len(row) != len(header)]
    if short:
        raise UserError(f"{shown}, line {short[0]}, does not have the header's {len(header)} columns: mend it")
    cells: list[tuple[int, dict[str, str]]] = [(line, dict(zip(header, map(str.strip, row)))) for line, row in rows]
    for line, found in cells:
        found["id"] = agreed(found, keys, f"{shown}, line {line}")
    return header, list[Row](cells)


def refuse_doubled(header: Sequence[str], shown: str) -> None:
    """Raise `UserError` where a column that means something here stands twice, in whatever case: one would win."""
    for column in COLUMNS:
        if header.count(column) > 1:
            raise UserError(f"{shown} has the column {column} twice: keep one")


def agreed(row: Mapping[str, str], keys: Sequence[str], where: str) -> str:
    """What a row's columns for the recording name: the first, of which another may be the whole path.

    Raises `UserError` where they name different ones.
    """
    first, own = keys[0], row.get(keys[0], "")
    for other in keys[1:]:
        if not _same(own, row.get(other, "")):
            raise UserError(
                f"{where}: columns {first} and {other} disagree, {own[:SHOWN]!r} and {row.get(other, '')[:SHOWN]!r}: "
                "keep the one that names the recordings"
            )
    return own


def _same(one: str, other: str) -> bool:
    """Whether two cells name one recording, one of them perhaps from further up, or a part of it."""
    shorter, longer = sorted((PurePosixPath(OF_PART.sub("", cell)).parts for cell in (one, other)), key=len)
    return longer[len(longer) - len(shorter) :] == shorter and (bool(shorter) or not longer)
