"""Request files: the lists of recordings that come by mail, as CSV or as plain text."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from audio_mu.data.tables import agreed, refuse_doubled
from audio_mu.errors import UserError
from audio_mu.system.reading import column_names, delimiter_of, read_text

LONGEST = 80  # characters of a line that an error quotes
ID_COLUMNS = ("clip_id", "id", "path")
PERSON_COLUMN = "speaker"


def shortened(entry: str) -> str:
    """An entry as an error quotes it."""
    return entry if len(entry) <= LONGEST else entry[:LONGEST] + "…"


@dataclass(frozen=True)
class Line:
    """One entry of a request file: its line number, the id, path or person, and the row's other columns."""

    number: int
    entry: str
    of_person: bool = False
    had_blanks: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)


def read_lines(path: Path, parameter: str = "forget_list") -> list[Line]:
    """The entries of a request file.

    A CSV with a column `clip_id`, `id` or `path`, or else `speaker`, which names people (in any case; others, as
    reason, requester, date, are kept; a hash is checked), with commas, semicolons or tabs between them; or plain text
    with one entry a line. Columns that name a recording twice must agree. Empty lines are passed over; a CSV row
    without an id is an empty entry, which names no clip.
    `parameter`: the one that has named the file. Raises `UserError` where the file is neither.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{parameter}={str(path)!r} cannot be read ({error}): save it as UTF-8 text") from None
    lines = text.split("\n")  # not splitlines, which would cut ids at rarer characters too
    delimiter = delimiter_of(lines[0])
    try:
        header = column_names(next(csv.reader(lines[:1], delimiter=delimiter), []))
        known = [column for column in (*ID_COLUMNS, PERSON_COLUMN) if column in header]
        if not known:
            return [Line(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
        what = f"{parameter}={str(path)!r}"
        refuse_doubled(header, what)
        column, keys = header.index(known[0]), [name for name in known if name != PERSON_COLUMN]
        of_person = known[0] == PERSON_COLUMN
        reader = csv.reader(lines[1:], delimiter=delimiter)
        rows = [(reader.line_num + 1, row) for row in reader if any(cell.strip() for cell in row)]
        for number, row in rows if len(keys) > 1 else ():
            agreed(dict(zip(header, map(str.strip, row))), keys, f"{what}, line {number}")
        return [
            Line(number, own.strip(), of_person, own != own.strip(), dict(zip(header, map(str.strip, row))))
            for number, row in rows
            for own in ["".join(row[column : column + 1])]
        ]
    except csv.Error as error:
        raise UserError(f"{parameter}={str(path)!r} is not a readable CSV ({error}): mend it") from None
