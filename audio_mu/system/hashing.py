"""Hashes of values, files and text: equal content has equal hashes on every machine."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def sha256(*parts: bytes | memoryview | str) -> str:
    """Hexadecimal SHA-256 of the parts, each preceded by its length so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(value: Any) -> str:
    """SHA-256 of a JSON-able value's canonical text."""
    return sha256(canonical_json(value))


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def checksum(array: np.ndarray) -> int:
    """The CRC-32 of an array's bytes: against chance, not against intent."""
    return zlib.crc32(array.data.cast("B") if array.size and array.flags.c_contiguous else array.tobytes())
