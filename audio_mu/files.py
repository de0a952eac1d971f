"""Where caches live, and writing files so that no reader ever meets a half-written one."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from audio_mu.processes import left_behind, own_mark

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Numbers of the errors that mean that a disk, a quota or a file can take no more."""

TEMPORARY = "audio-mu"
"""First part of the name of every command's folder of temporary files."""

MANY = 1_000
"""Files from which a folder is flushed as a whole."""
MAX_NESTING = 10
LARGEST_NUMBER = 2**53
PLAIN = (str, int, float, bool, type(None))
LARGEST_TEXT = 256 << 20
"""Bytes of the largest list or table that is read whole."""


def cache_root() -> Path:
    """Folder of everything that can be made again: `AUDIO_MU_CACHE`, or `audio-mu` in the user's cache folder."""
    configured = os.environ.get("AUDIO_MU_CACHE")
    if configured:
        return Path(configured).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "audio-mu"


def sha256(*parts: bytes | str) -> str:
    """Hexadecimal SHA-256 of the parts, each preceded by its length so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
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


def read_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The UTF-8 text of a regular file, without a byte order mark.

    Raises OSError where it cannot be read, and ValueError where it is no such text or longer than `limit` bytes.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text, see byte {error.start}") from None


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the inter-process lock that belongs to `path` (kept in a file beside it)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path.parent / f".{path.name}.lock")):
        yield


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `target` when the block ends without an error.

    Everything is flushed to the disk before the rename. An existing `target` is replaced. After an error
    nothing is left behind, and what a killed process left behind is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, f".{glob.escape(target.name)}.*.tmp")
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=f".{own_mark()}.tmp", dir=target.parent))
    try:
        yield temporary
        flush(temporary)
        if target.exists():
            shutil.rmtree(target)
        temporary.chmod(0o755)
        temporary.rename(target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file under a temporary name, flush it, and rename it into place.

    What a killed process left behind of this file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f".{glob.escape(path.name)}.*.tmp")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{own_mark()}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep(folder: Path, pattern: str) -> None:
    """Remove the temporary files and folders of killed processes that match a pattern below `folder`."""
    for path in folder.glob(pattern):
        if left_behind(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def flush(folder: Path) -> None:
    """Have every file below a folder written to the disk."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) > MANY:
        os.sync()  # one flush of everything beats thousands, at some milliseconds each
    else:
        for path in files:
            _flush(path)


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Temporary files of this process and its children go into one folder, which is removed in the end.

    What commands that were killed have left there is removed at the start.
    """
    parent = Path(tempfile.gettempdir())
    sweep(parent, f"{TEMPORARY}.*")
    folder = tempfile.mkdtemp(prefix=f"{TEMPORARY}.", suffix=f".{own_mark()}", dir=parent)
    before, tempfile.tempdir = tempfile.tempdir, folder
    given = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR") if given is None else os.environ.update(TMPDIR=given)
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
