"""The journal that a killed writer has left beside an SQLite file: SQLite undoes a write by it, where it is whole."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from audio_mu.errors import UserError, one_line
from audio_mu.progress import say
from audio_mu.system.processes import users_of

MAGIC = bytes.fromhex("d9d505f920a163d7")
HEADER = struct.Struct(">8sIIIII")  # magic, records, nonce, pages of the database, bytes of a sector, of a page
UNKNOWN = 0xFFFFFFFF  # records of a journal that was written without waiting for the disk


def refuse_half_undone(file: Path) -> None:
    """Raise `UserError` where a write that was broken off cannot be undone as a whole; have it undone where it can.

    To be called before anything opens the database: SQLite takes what a cut journal holds, and removes it.
    """
    journal = file.with_name(f"{file.name}-journal")
    if not journal.is_file() or not file.is_file():
        return
    if is_cut(journal):
        raise UserError(
            f"{str(journal)!r} is cut, by which a write that was broken off would be undone: {file.name} may hold half "
            "of that write; restore both from a backup, or move the journal away to take the database as it is"
        )
    begun = journal.stat().st_size > HEADER.size and journal.read_bytes()[: len(MAGIC)] == MAGIC
    if not users_of(file):  # else the write is going on
        with suppress(sqlite3.OperationalError):  # locked, or not to be written: whoever opens it tells that
            _undo(file, journal)
            if begun:
                say(f"{file}: a write was broken off; it is undone and the database checked")


def _undo(file: Path, journal: Path) -> None:
    """Have SQLite undo what was broken off. Raises `UserError` where the database would be damaged after it.

    A journal that was emptied looks like one that was never begun, and one that was cut between two of its parts like a
    shorter one. So it is tried on a copy: what is damaged stays as it is, and is told again until it is restored.
    """
    with TemporaryDirectory(prefix=".checked-", dir=file.parent) as folder:
        copy = Path(shutil.copyfile(file, Path(folder) / file.name))
        shutil.copyfile(journal, Path(folder) / journal.name)
        found = _asked(copy, "pragma integrity_check(1)")
    if found != "ok":
        raise UserError(f"{str(file)!r} holds half of a write that was broken off ({found}): restore it from a backup")
    _asked(file, "select count(*) from sqlite_master")


def _asked(file: Path, question: str) -> str:
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)) as database:
        try:
            return str(database.execute(question).fetchone()[0])
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return one_line(error)


def is_cut(journal: Path) -> bool:
    """Whether a rollback journal holds fewer records than its headers count.

    Its format: sqlite.org/fileformat.html#the_rollback_journal.
    """
    size, at = journal.stat().st_size, 0
    with journal.open("rb") as stream:
        while at + HEADER.size <= size:
            stream.seek(at)
            magic, records, _, _, sector, page = HEADER.unpack(stream.read(HEADER.size))
            if magic != MAGIC or records in (0, UNKNOWN) or not sector:
                return False
            end = at + sector + records * (page + 8)
            if end > size:
                return True
            at = -(-end // sector) * sector
    return False
