"""Where caches live, and writing files so that no reader ever meets a half-written one."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from audio_mu.errors import UserError
from audio_mu.system.processes import left_behind, own_mark
from audio_mu.system.user import temporary_root

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Numbers of the errors that mean that a disk, a quota or a file can take no more."""
TEMPORARY = "audio-mu"
"""First part of the name of every command's folder of temporary files."""
SHORT = Path("/tmp")
MANY = 1_000
"""Files from which a folder is flushed as a whole."""


def cache_root() -> Path:
    """Folder of everything that can be made again: `AUDIO_MU_CACHE`, or `audio-mu` in the user's cache folder."""
    configured = os.environ.get("AUDIO_MU_CACHE")
    if configured:
        return Path(configured).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "audio-mu"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the inter-process lock that belongs to `path` (kept in a file beside it).

    Raises `UserError` where a link or a folder lies in the lock's place: who follows it writes into another's file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / f".{path.name}.lock"
    if file.is_symlink() or file.is_dir():
        raise UserError(f"{str(file)!r} is no lock of ours but a link or a folder: see who has put it there, remove it")
    with FileLock(str(file)):
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

    What commands that were killed have left there is removed at the start. Raises `UserError` where no temporary folder
    can be used.
    """
    parent = temporary_root()
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


@contextmanager
def short_temporary_folder(longest: int) -> Iterator[Path]:
    """A temporary folder whose name has at most `longest` characters: the paths of sockets below it are limited.

    Where the usual folder's name is longer, by a link in `/tmp`. Raises OSError where that cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray."))
    link = SHORT / f"{TEMPORARY}-{secrets.token_hex(4)}"
    try:
        if len(str(folder)) <= longest:
            yield folder
            return
        for left in SHORT.glob(f"{TEMPORARY}-*"):
            if left.is_symlink() and not left.exists():  # of a command that was killed, whose folder was swept
                left.unlink(missing_ok=True)
        link.symlink_to(folder, target_is_directory=True)
        yield link
    finally:
        link.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
