"""A user's tables: CSV as spreadsheets write it, by the names of its columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from audio_mu.errors import UserError
from audio_mu.system.reading import column_names, delimiter_of, read_text

ID_COLUMNS = ("id", "path")

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
    header = ["id" if column == keys[0] else column for column in header]
    if twice := [column for column in {*needed, "id", "speaker", "split", "start", "end"} if header.count(column) > 1]:
        raise UserError(f"{shown} has the column {twice[0]} twice: keep one")
    short = [line for line, row in rows if len(row) != len(header)]
    if short:
        raise UserError(f"{shown}, line {short[0]}, does not have the header's {len(header)} columns: mend it")
    return header, [(line, dict(zip(header, map(str.strip, row)))) for line, row in rows]
