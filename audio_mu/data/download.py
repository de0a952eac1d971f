"""Archives of data sets: downloaded once, checked, and unpacked whole or not at all.

pooch knows checksums and progress but starts an interrupted download anew; two gigabytes deserve to be resumed.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from audio_mu.errors import UserError
from audio_mu.printable import printable
from audio_mu.progress import say
from audio_mu.system.hashing import file_sha256
from audio_mu.system.writing import DISK_FULL, atomic_folder, locked

CHUNK = 1 << 20
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
ATTEMPTS = 50
PATIENCE, SLOWEST = 120.0, 2_000
"""Seconds after which a download is measured, and the bytes a second below which it is given up."""
LARGEST_HEADER = 1 << 20  # bytes of a long name or of pax attributes, which tarfile reads into memory


def accept(folder: Path) -> str:
    """The check of an archive whose checksum says everything."""
    return ""


@dataclass(frozen=True)
class Archive:
    """A tar.gz archive of a data set.

    `url_variable` names the environment variable that overrides `url` with a mirror's. `sha256` is the archive's
    checksum, None where it is not stable. `verify` gets the unpacked folder and returns its fault, or an empty text.
    An archive that claims to be larger than the limits is refused. `instead` is the advice for a user without the
    network, where the usual one does not fit.
    """

    name: str
    url: str
    url_variable: str
    sha256: str | None
    verify: Callable[[Path], str] = accept
    max_packed_bytes: int = 4 << 30
    max_unpacked_bytes: int = 16 << 30
    max_members: int = 200_000
    instead: str = ""

    @property
    def source(self) -> str:
        """The address to download from."""
        return os.environ.get(self.url_variable) or self.url

    @property
    def way_out(self) -> str:
        """Advice for a user without the network."""
        return self.instead or f"give -P data_dir=<its folder>, or set {self.url_variable} to a mirror's address"


class _Refused(Exception):
    """The reason why an archive is not unpacked."""


class _Member(tarfile.TarInfo):
    """A member whose header is of usual size."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        special = not (self.isreg() or self.isdir())
        if self.size < 0 or (special and self.size > LARGEST_HEADER):
            raise _Refused(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]  # private, so that the stubs lack it


def fetch(archive: Archive, target: Path) -> Path:
    """Make sure that the folder `target` holds the unpacked archive, and return it.

    Once it is there the network is not used. Otherwise the archive is downloaded to `<target>.tar.gz.part`,
    resumed there by an HTTP range request after an interruption, checked, and unpacked to a temporary folder that
    is renamed. A finished `<target>.tar.gz` put there by hand is taken as if it were downloaded. Of several
    processes one downloads and the others wait. Raises `UserError` where the address cannot be reached, the
    disk is full (what has come is kept), or the archive is not the expected one (it is removed).
    """
    if target.is_dir():
        return target
    with locked(target):
        if not target.is_dir():
            packed = target.with_name(target.name + ".tar.gz")
            if not packed.is_file():
                part = packed.with_name(packed.name + ".part")
                _download(archive, part)
                part.replace(packed)
            _check_and_unpack(archive, packed, target)
            packed.unlink()
    return target


def fetch_file(archive: Archive, target: Path) -> Path:
    """Make sure that the file `target` is there, which is no archive, and return it; otherwise as `fetch`."""
    if not target.is_file():
        with locked(target):
            if not target.is_file():
                part = target.with_name(target.name + ".part")
                _download(archive, part)
                if archive.sha256 is not None and (found := file_sha256(part)) != archive.sha256:
                    part.unlink()
                    raise UserError(
                        f"{archive.name} from {archive.source} is refused and was removed (its SHA-256 is {found}, not "
                        f"{archive.sha256}): run again, or {archive.way_out}"
                    )
                part.replace(target)
    return target


def _download(archive: Archive, part: Path) -> None:
    """Fill `part`; after a lost connection go on where it ended, as long as attempts bring something."""
    for _ in range(ATTEMPTS):
        before = _own_size(part)
        try:
            return _append(archive, part)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason = _reason(error)
            if _own_size(part) <= before:
                break
            say(f"{archive.name}: {reason} after {_own_size(part):,} bytes, resuming")
        except OSError as error:
            raise _cannot_write(part, error) from None
    raise UserError(f"cannot download {archive.name} from {archive.source} ({reason}): {archive.way_out}") from None


def _append(archive: Archive, part: Path) -> None:
    have = _own_size(part)
    # identity: a server that packs the archive once more for the transfer would spoil sizes and ranges.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(archive.source, headers=headers, stream=True, timeout=TIMEOUT) as response:
        content_range = response.headers.get("Content-Range", "")
        if response.status_code == 416 and content_range == f"bytes */{have}":
            return  # it was complete
        resumed = response.status_code == 206 and content_range.startswith(f"bytes {have}-")
        if have and response.status_code in (206, 416) and not resumed:
            part.unlink()
            raise requests.RequestException("the server answers with another range, run again to start anew")
        response.raise_for_status()
        start = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        _write(archive, part, response, start, total)


def _write(archive: Archive, part: Path, response: requests.Response, start: int, total: int | None) -> None:
    done, pace = start, _Pace(archive)
    with (
        _opened(part, start) as stream,
        _meter(f"downloading {archive.name} from {archive.source}", start, total, "B") as meter,
    ):
        # As it comes: to wait for a whole block of a slow server would be to wait without a bound.
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            done += len(chunk)
            if max(done, total or 0) > archive.max_packed_bytes:
                part.unlink()  # it is no part of an archive
                raise UserError(
                    f"{archive.source} sends more than {archive.max_packed_bytes:,} bytes, which {archive.name} "
                    f"cannot have: {archive.way_out}"
                )
            rest = memoryview(chunk)
            while rest:
                rest = rest[stream.write(rest) :]
            meter.update(len(chunk))
            pace.check(done)


def _opened(part: Path, start: int) -> io.RawIOBase:
    """The part file, behind no link: in a cache that others can write to, one could lead to any file of the user's.

    Unbuffered: what the disk took before it was full is what the file holds.
    """
    kept = os.O_APPEND if start else os.O_TRUNC
    return open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | kept, 0o644), "wb", buffering=0)


class _Pace:
    """Whether a download gets on: `SLOWEST` bytes a second, measured every `PATIENCE` seconds."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.since, self.had = archive, time.monotonic(), -1

    def check(self, done: int) -> None:
        """Raise `UserError` where too little has come since the last measurement."""
        self.had = done if self.had < 0 else self.had
        seconds = time.monotonic() - self.since
        if seconds < PATIENCE:
            return
        if (done - self.had) / seconds < SLOWEST:
            raise UserError(
                f"{self.archive.source} sends {(done - self.had) / seconds:,.0f} bytes a second, too few to wait for: "
                f"run again later to go on from here, or {self.archive.way_out}"
            )
        self.since, self.had = time.monotonic(), done


def _check_and_unpack(archive: Archive, packed: Path, target: Path) -> None:
    try:
        if archive.sha256 is not None and (found := file_sha256(packed)) != archive.sha256:
            raise _Refused(f"its SHA-256 is {found}, not {archive.sha256}")
        with atomic_folder(target) as folder:
            _unpack(archive, packed, folder)
            if problem := archive.verify(folder):
                raise _Refused(problem)
    except (_Refused, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        packed.unlink()
        raise UserError(
            f"the archive of {archive.name} from {archive.source} is refused and was removed ({error}): "
            f"run again, or {archive.way_out}"
        ) from None
    except OSError as error:
        raise _cannot_write(target, error) from None


def _unpack(archive: Archive, packed: Path, folder: Path) -> None:
    """Regular files and folders only, all of them below `folder` (the filter "data" raises otherwise)."""
    members = unpacked = 0
    too_large = _Refused(f"it unpacks to more than {archive.max_unpacked_bytes:,} bytes or has too many members")
    with (
        gzip.open(packed) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar,
        _meter(f"unpacking {archive.name}", 0, None, " files") as meter,
    ):
        for member in tar:
            members += 1
            if not (member.isreg() or member.isdir()):
                raise _Refused(f"member {member.name!r} is a link or a device")
            if member.name.startswith("/"):
                raise _Refused(f"member {member.name!r} is outside the folder")
            if "\0" in member.name:
                raise _Refused(f"member {member.name!r} has a name that no file can have")
            if members > archive.max_members or not 0 <= member.size <= archive.max_unpacked_bytes - unpacked:
                raise too_large
            unpacked += member.size
            tar.extract(member, folder, filter="data")
            meter.update()
        while chunk := stream.read(CHUNK):  # to the end, where gzip compares its own checksum
            unpacked += len(chunk)
            if unpacked > archive.max_unpacked_bytes:
                raise too_large


def _meter(what: str, start: int, total: int | None, unit: str) -> tqdm:
    """A bar on a terminal, one line elsewhere."""
    terminal = sys.stderr.isatty()
    if not terminal:
        size = f" ({total:,} bytes)" if total else ""
        say(f"{what}{size}" + (f", from byte {start:,}" if start else ""))
    return tqdm(
        desc=printable(what), initial=start, total=total, unit=unit, unit_scale=True, leave=False, disable=not terminal
    )


def _own_size(part: Path) -> int:
    """Bytes of a part file of ours; what lies in its place and is none, such as a link, is removed."""
    try:
        about = part.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        part.unlink()
        return 0
    return about.st_size


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, urllib3.exceptions.HTTPError):
        return "the connection broke off"
    return str(error)


def _cannot_write(path: Path, error: OSError) -> UserError:
    if error.errno in DISK_FULL:
        return UserError(
            f"the disk is full while writing {str(path)!r}: free space or set AUDIO_MU_CACHE to a folder on another "
            "disk; run again to go on from what has been downloaded"
        )
    return UserError(f"cannot write {str(path)!r} ({error.strerror or error}): set AUDIO_MU_CACHE to another folder")
