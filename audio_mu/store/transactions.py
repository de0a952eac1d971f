"""Transactions that an interrupt has broken off: their locks would keep the store from taking the end of its runs."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, Pool


@cache
def connections_in_use() -> dict[ConnectionPoolEntry, DBAPIConnection]:
    """The database connections that this process is using, kept up to date by SQLAlchemy's pools from now on."""
    in_use: dict[ConnectionPoolEntry, DBAPIConnection] = {}
    event.listen(Pool, "checkout", lambda connection, entry, _: in_use.update({entry: connection}))
    event.listen(Pool, "checkin", lambda _, entry: in_use.pop(entry, None))
    return in_use


def roll_back() -> None:
    """Undo what is not committed on connections whose user was interrupted, and with that give up its locks."""
    for connection in list(connections_in_use().values()):
        with suppress(Exception):  # of whatever database it is
            connection.rollback()
