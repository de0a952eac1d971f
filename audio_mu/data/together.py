"""What belongs together: recordings and people that share something, whatever leads from one to the other."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

Key = TypeVar("Key", str, int)


def as_one(keys: Iterable[Key], shared: Iterable[tuple[Key, Hashable]]) -> dict[Key, Key]:
    """Key → the least of those that it belongs with: two belong together that share something, or with a third.

    `shared`: pairs of a key and of something that it has; a key without any stands alone.
    """
    leaders = {key: key for key in keys}

    def leader(key: Key) -> Key:
        while leaders[key] != key:
            key = leaders[key]
        return key

    first: dict[Hashable, Key] = {}
    for key, what in shared:
        pair = leader(key), leader(first.setdefault(what, key))
        leaders[max(pair)] = min(pair)
    return {key: leader(key) for key in leaders}
