"""Downloading and unpacking, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests

from audio_mu.config import Config
from audio_mu.data import audiomnist, download, speech_commands
from audio_mu.data.audiomnist import AudioMNIST, holds
from audio_mu.data.download import Archive, fetch
from audio_mu.data.speech_commands import SpeechCommands
from audio_mu.errors import UserError
from tests.servers import ArchiveServer as Server

SIZE = 300_000


@pytest.fixture
def target(cache: Path) -> Path:
    return cache / "data" / "Words"


def packed(files: dict[str, bytes], *odd: tarfile.TarInfo) -> bytes:
    """A tar.gz archive of files and of odd members without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in odd:
            tar.addfile(member)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(SIZE)
WORDS = packed({"./yes/a.wav": NOISE, "./LICENSE": b"free"})


def archive_of(server: Server, content: bytes = WORDS, **changes: object) -> Archive:
    server.content = content
    known = hashlib.sha256(content).hexdigest()
    return replace(Archive("Words", server.url, "AUDIO_MU_TEST_URL", known), **changes)


def holding(target: Path) -> list[str]:
    """Everything beside and below the target, without the locks."""
    return sorted(
        path.relative_to(target.parent).as_posix()
        for path in target.parent.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".tar.gz.part")


def refused(archive: Archive, target: Path) -> str:
    """The one line with which it is refused."""
    with pytest.raises(UserError) as raised:
        fetch(archive, target)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_downloaded_once_then_without_network(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a network access for a data set that is in the cache, and archives left beside it."""
    archive = archive_of(server)
    assert fetch(archive, target) == target
    assert (target / "yes/a.wav").read_bytes() == NOISE
    assert holding(target) == ["Words/LICENSE", "Words/yes/a.wav"]

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(requests, "get", no_network)
    assert fetch(archive, target) == target
    assert server.asked == [None]


def test_lost_connection_is_resumed(server: Server, target: Path) -> None:
    """Catches a download that starts anew or is given up when the connection breaks off."""
    server.break_after = [100_000, 50_000]
    fetch(archive_of(server), target)
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert (target / "yes/a.wav").read_bytes() == NOISE


def test_what_an_earlier_run_left_is_resumed(server: Server, target: Path) -> None:
    """Catches partial files that are ignored, or downloaded again when they are complete."""
    archive = archive_of(server)
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(WORDS[:-10])
    fetch(archive, target)
    other = target.with_name("Other")
    part_of(other).write_bytes(WORDS)
    fetch(archive, other)
    assert server.asked == [f"bytes={len(WORDS) - 10}-", f"bytes={len(WORDS)}-"]


def test_server_without_ranges_starts_anew(server: Server, target: Path) -> None:
    """Catches a whole file appended to a part of it."""
    server.honours_ranges = False
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(WORDS[:1000])
    fetch(archive_of(server), target)
    assert (target / "yes/a.wav").read_bytes() == NOISE


def test_connection_that_brings_nothing_is_given_up(server: Server, target: Path) -> None:
    """Catches endless attempts."""
    server.break_after = [1000, 0, 0, 0]
    assert "the connection broke off" in refused(archive_of(server), target)
    assert server.asked == [None, "bytes=1000-"]
    assert part_of(target).stat().st_size == 1000


def test_wrong_checksum_is_refused_and_removed(server: Server, target: Path) -> None:
    """Catches a tampered mirror, and a bad file that would be resumed or used for ever."""
    archive = archive_of(server)
    server.content = packed({"./yes/a.wav": NOISE[::-1]})
    line = refused(archive, target)
    assert "SHA-256" in line
    assert archive.sha256 in line
    assert server.url in line
    assert holding(target) == []


@pytest.mark.parametrize("damage", ["truncated", "altered checksum of gzip", "no archive"])
def test_damaged_archive_without_checksum_is_refused(server: Server, target: Path, damage: str) -> None:
    """Catches half an archive, or one whose bytes changed, unpacked where no checksum is known."""
    contents = {
        "truncated": WORDS[: len(WORDS) // 2],
        "altered checksum of gzip": WORDS[:-8] + bytes(4) + WORDS[-4:],
        "no archive": b"<html>not found</html>",
    }
    assert "is refused and was removed" in refused(archive_of(server, contents[damage], sha256=None), target)
    assert holding(target) == []


def odd_member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    ("files", "odd"),
    [
        ({"../escaped.wav": b"x"}, []),
        ({"yes/../../escaped.wav": b"x"}, []),
        ({"/tmp/escaped.wav": b"x"}, []),
        ({}, [odd_member("link.wav", tarfile.SYMTYPE, "/etc/passwd")]),
        ({}, [odd_member("link.wav", tarfile.SYMTYPE, "yes/a.wav")]),
        ({"a": b"x"}, [odd_member("hard.wav", tarfile.LNKTYPE, "a")]),
        ({}, [odd_member("device", tarfile.CHRTYPE)]),
        ({}, [odd_member("fifo.wav", tarfile.FIFOTYPE)]),
    ],
)
def test_dangerous_members_are_refused(
    server: Server, target: Path, files: dict[str, bytes], odd: list[tarfile.TarInfo]
) -> None:
    """Catches an archive that writes outside its folder or plants links and devices, whatever its checksum says."""
    line = refused(archive_of(server, packed({"yes/a.wav": b"x"} | files, *odd)), target)
    assert re.search("outside|link or a device", line)
    assert holding(target) == []


@pytest.mark.parametrize("limits", [{"max_packed_bytes": 200_000}, {"max_unpacked_bytes": SIZE}, {"max_members": 1}])
def test_absurd_sizes_are_refused(server: Server, target: Path, limits: dict[str, int]) -> None:
    """Catches an archive that fills the disk."""
    assert "more than" in refused(archive_of(server, **limits), target)
    assert holding(target) == []


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_planted_part_is_not_followed(server: Server, target: Path, tmp_path: Path, plant: Callable) -> None:
    """Catches a download that is written through a link into another file of the user's, or goes on behind it."""
    victim = tmp_path / "victim"
    victim.write_bytes(WORDS[:1_000])
    target.parent.mkdir(parents=True)
    plant(part_of(target), victim)
    assert fetch(archive_of(server), target) == target
    assert victim.read_bytes() == WORDS[:1_000]
    assert server.asked == [None]


def test_a_download_without_end_in_time_is_given_up(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches waiting for years, and for a whole block, where a server sends a byte now and then."""
    monkeypatch.setattr(download, "PATIENCE", 1.0)
    server.drip = 0.05
    line = refused(archive_of(server), target)
    assert re.search(r"sends \d+ bytes a second, too few to wait for: run again later to go on", line)
    assert 0 < part_of(target).stat().st_size < 100


def test_passwords_of_addresses_are_not_told(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a mirror's password, or the signature of an address, in an error."""
    monkeypatch.setenv("AUDIO_MU_TEST_URL", "http://me:word@127.0.0.1:1/x.tar.gz?X-Amz-Signature=abc&v=1")
    line = refused(Archive("Words", "", "AUDIO_MU_TEST_URL", None), target)
    assert "http://me:***@127.0.0.1:1/x.tar.gz?X-Amz-Signature=***&v=1" in line
    assert "word" not in line + capsys.readouterr().out


def test_no_network_names_address_and_way_out(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback, or a line that does not say how to go on, on a machine without network."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    archive = Archive("Words", "http://127.0.0.1:1/words.tar.gz", "AUDIO_MU_TEST_URL", None)
    line = refused(archive, target)
    for part in ("http://127.0.0.1:1/words.tar.gz", "no connection", "data_dir=", "AUDIO_MU_TEST_URL"):
        assert part in line
    monkeypatch.setenv("AUDIO_MU_TEST_URL", "nonsense")
    assert "nonsense" in refused(archive, target)


LIMITED = """
import resource, sys
from pathlib import Path
from audio_mu.data.download import Archive, fetch
from audio_mu.errors import UserError
url, sha256, target, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    fetch(Archive("Words", url, "AUDIO_MU_TEST_URL", sha256), Path(target))
except UserError as error:
    print(error)
    sys.exit(3)
"""


def start(archive: Archive, target: Path, limit: int = 0) -> subprocess.Popen:
    """Fetch in another process, in which no file can grow beyond the limit."""
    arguments = [archive.url, str(archive.sha256), str(target), str(limit)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", LIMITED, *arguments], stdout=subprocess.PIPE, env=environment)


def test_full_disk_keeps_the_part(server: Server, target: Path) -> None:
    """Catches a traceback on a full disk, and what was downloaded thrown away."""
    archive = archive_of(server)
    process = start(archive, target, limit=100_000)
    output = process.communicate()[0].decode().splitlines()
    assert (process.returncode, len(output)) == (3, 2)  # what is downloaded, and the error
    assert "the disk is full" in output[1]
    assert holding(target) == ["Words.tar.gz.part"]
    assert part_of(target).read_bytes() == WORDS[:100_000]
    fetch(archive, target)
    assert server.asked == [None, "bytes=100000-"]


def test_full_disk_while_unpacking_keeps_the_archive(server: Server, target: Path) -> None:
    """Catches a half-unpacked folder, and a second download after space was made."""
    archive = archive_of(server, packed({"silence.wav": bytes(1_000_000)}))
    process = start(archive, target, limit=100_000)
    assert "the disk is full" in process.communicate()[0].decode()
    assert holding(target) == ["Words.tar.gz"]
    fetch(archive, target)
    assert server.asked == [None]
    assert holding(target) == ["Words/silence.wav"]


def test_two_processes_download_once(server: Server, target: Path) -> None:
    """Catches two processes that write one file at the same time."""
    archive = archive_of(server)
    server.pause = 1.0  # long enough for the other process to come meanwhile
    processes = [start(archive, target) for _ in range(2)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    assert server.asked == [None]
    assert (target / "yes/a.wav").read_bytes() == NOISE


def test_audiomnist_by_download(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a mirror that is not asked, ids that hold the archive's own folder, and an incomplete repository."""
    content = packed({f"AudioMNIST-ce04/data/{s}/{d}_{s}_0.wav": b"x" for s in ("01", "02") for d in range(10)})
    server.content = content
    monkeypatch.setenv("AUDIO_MU_AUDIOMNIST_URL", server.url)
    config = Config.from_text({"dataset": "audioMNIST"}).data
    with pytest.raises(UserError, match="it holds 20 clips of 2 speakers, not 30000 of 60"):
        AudioMNIST().root(config)
    dataset = AudioMNIST(replace(audiomnist.ARCHIVE, verify=holds(20, 2)))
    root = dataset.root(config)
    assert root.is_relative_to(cache / "data")
    assert dataset.catalog(root, config).recordings[0].id == "01/0_01_0.wav"


def test_speech_commands_by_download(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the published checksum not applied to a mirror."""
    names = [f"./{word}/0000000{n}_nohash_0.wav" for word in ("yes", "no") for n in range(3)]
    lists = {"./testing_list.txt": b"yes/00000000_nohash_0.wav\n", "./validation_list.txt": b""}
    server.content = packed(dict.fromkeys(names, b"x") | lists)
    monkeypatch.setenv("AUDIO_MU_SPEECH_COMMANDS_URL", server.url)
    config = Config.from_text({"dataset": "SpeechCommands"}).data
    with pytest.raises(UserError, match="not af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"):
        SpeechCommands().root(config)
    known = hashlib.sha256(server.content).hexdigest()
    dataset = SpeechCommands(replace(speech_commands.ARCHIVE, sha256=known))
    parts = [r.part for r in dataset.catalog(dataset.root(config), config).recordings]
    assert sorted(parts) == ["test", "train", "train", "train", "train", "train"]
