"""Hostile names, parameters and files: nothing is run, nothing escapes, time and memory stay bounded."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_mu.config import Config, defaults
from audio_mu.data import folder as folder_data
from audio_mu.data.audio import BadRecording, read_clip
from audio_mu.data.catalog import audio_files
from audio_mu.data.datasets import DATASETS
from audio_mu.data.download import Archive, _check_and_unpack
from audio_mu.errors import UserError
from audio_mu.workflows.method_settings import check_methods
from tests.conftest import Command
from tests.imports import imported

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("<img src=x onerror=alert(1)>", '"><svg onload=alert(2)>', "<script>alert(3)<!--")


def test_parameters_do_not_reach_a_shell(project: Command, tmp_path: Path) -> None:
    """Catches a placeholder of MLproject in quotes of its own, or an MLflow that no longer quotes values."""
    marker = tmp_path / "marker"
    hostile = f"'; touch {marker}; $(touch {marker}) `touch {marker}` \"\n touch {marker} && #"
    values = dict.fromkeys([*defaults(), "unknown"], hostile)
    done = project("train", tmp_path, **values)
    assert done.returncode != 0
    assert "error: " in done.stderr
    assert not marker.exists()


def test_names_of_files_reach_neither_shell_nor_report(project: Command, small_digits: Path, tmp_path: Path) -> None:
    """Catches names in a command, in a path of an artifact, or unescaped in a page."""
    data, marker = tmp_path / "data", tmp_path / "marker"
    names = [*SCRIPTS, f"$(touch {marker.name})", "; touch marker", "=1+1", "Café", "Cafe\u0301", "café"]
    for i, name in enumerate(names):
        (data / name).mkdir(parents=True)
        for speaker in range(1, 7):
            shutil.copy(small_digits / f"0{speaker}" / f"{i}_0{speaker}_0.wav", data / name / f"{speaker}$(id)_{i}.wav")
    done = project(
        "main", tmp_path, dataset="folder", dataset_name="hostile", data_dir=str(data), forget="class",
        forget_class_names=SCRIPTS[0], seeds="40", n_epochs="1", n_epoch_repair="1", batch_size="16",
        methods="naive,omp", pipeline="logmel", speaker_pattern=r"/([0-9]+)\$",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "differ only in case or in how accents are encoded" in done.stdout
    assert not list(tmp_path.rglob("marker"))
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert any("&lt;img src=x onerror" in page for page in pages)
    assert not any(name in page for page in pages for name in SCRIPTS)


@pytest.mark.parametrize("name", ["escape\x1b[2J.wav", "bell\x07.wav", "two\nlines.wav", "line\u2028.wav"])
def test_names_that_a_terminal_obeys_are_refused(tmp_path: Path, name: str) -> None:
    """Catches a file whose name clears the screen or forges a line of a log."""
    (tmp_path / name).touch()
    with pytest.raises(UserError, match="line break or control character") as raised:
        list(audio_files(tmp_path))
    assert str(raised.value).isprintable()


def test_links_and_depth_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches endless walks, a RecursionError, and a link to itself that ends in a traceback."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "self.wav").symlink_to("self.wav")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert dict(audio_files(tmp_path)).keys() == {"a/self.wav"}
    for i in range(40):  # two links at each of 40 levels: 2**40 paths without any loop
        (tmp_path / f"level{i}").mkdir()
        for link in "xy":
            (tmp_path / f"level{i}" / link).symlink_to(tmp_path / f"level{i + 1}")
    monkeypatch.setattr("audio_mu.data.catalog.MAX_FOLDERS", 500)
    with pytest.raises(UserError, match="symbolic links"):
        list(audio_files(tmp_path / "level0"))
    (tmp_path / "deep" / "/".join("d" * 200)).mkdir(parents=True)
    with pytest.raises(UserError, match="nested deeper than 50"):
        list(audio_files(tmp_path / "deep"))


def test_what_is_no_regular_file_is_refused_by_name(tmp_path: Path) -> None:
    """Catches waiting for a pipe that nobody writes to, and reading a device that never ends."""
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "folder.wav").mkdir()
    assert dict(audio_files(tmp_path)).keys() == {"pipe.wav", "zero.wav"}
    for name in ("pipe.wav", "zero.wav", "folder.wav"):
        with pytest.raises(BadRecording, match="no regular file"):
            read_clip(tmp_path / name, 16_000)


def header(channels: int, rate: int, align: int, data_size: int, bits: int = 16) -> bytes:
    """A WAV file with any header and eight samples."""
    fmt = b"\x01\x00" + b"".join(
        (value & (256**width - 1)).to_bytes(width, "little")
        for value, width in ((channels, 2), (rate, 4), (rate * align, 4), (align, 2), (bits, 2))
    )
    size = data_size.to_bytes(4, "little")
    return b"RIFF" + b"\xff" * 4 + b"WAVEfmt " + (16).to_bytes(4, "little") + fmt + b"data" + size + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        header(0, 16_000, 2, 16), header(65_535, 16_000, 2, 16), header(1, 0, 2, 16), header(1, 2**31, 2, 16),
        header(1, -1, 2, 16), header(1, 16_000, 0, 16, bits=0), header(2, 768_000, 9, 2**32 - 1, bits=65_535),
    ],
)  # fmt: skip
def test_absurd_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    """Catches a division by zero, and memory for what a header claims."""
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(BadRecording):
        read_clip(tmp_path / "x.wav", 16_000)


def test_a_claimed_length_is_not_allocated(tmp_path: Path) -> None:
    """Catches an array of four gigabytes for eight samples; these are read, the claim is ignored."""
    (tmp_path / "x.wav").write_bytes(header(1, 16_000, 2, 2**32 - 1))
    tracemalloc.start()
    assert not read_clip(tmp_path / "x.wav", 16_000).waveform.any()
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


BOMB = """
import resource, sys
from pathlib import Path
import torch
from audio_mu.data.audio import read_clip
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    read_clip(Path(name), 16_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_minutes_of_silence_take_the_memory_of_one_clip(tmp_path: Path) -> None:
    """Catches decoding a whole file for its first second: ten minutes of eight channels unpack to 307 MB."""
    with soundfile.SoundFile(tmp_path / "x.flac", "w", 16_000, 8) as stream:
        for _ in range(10):
            stream.write(np.zeros((16_000 * 60, 8), dtype=np.int16))
    assert (tmp_path / "x.flac").stat().st_size < 300_000
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / "x.flac")],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert int(done.stdout) < 100  # MiB


def test_a_pattern_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches nested repetitions that take longer than the universe on one long name."""
    for name in ("a" * 60, "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").touch()
    monkeypatch.setattr(folder_data, "PATIENCE", 1)
    values = {"dataset": "folder", "dataset_name": "t", "data_dir": str(tmp_path), "speaker_pattern": "((a+)+)$"}
    with pytest.raises(UserError, match="takes more than 1 seconds on the 2 ids"):
        DATASETS["folder"].catalog(tmp_path, Config.from_text(values).data)


LAUGHS = "a: &a [1, 2]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LAUGHS, "references"),
        ("[" * 5_000, "levels"),
        ("scrub: {epochs: " + "9" * 5_000 + "}", "readable YAML"),
        ("scrub: {epochs: 0x" + "f" * 5_000 + "}", "usual size"),
        ("scrub: {epochs: .inf}", "usual size"),
        ("scrub: {epochs: 2024-13-45}", "readable YAML"),
        ("scrub: {epochs: 2024-12-31}", "a date"),
        ("scrub: {epochs: !!python/object/apply:os.system [id]}", "tags"),
        ("scrub: {epochs: 1}\nscrub: {epochs: 2}", "'scrub' comes twice"),
        ("scrub: {epochs: 1, epochs: 2}", "'epochs' comes twice"),
        ("scrub: {epochs: [1]}", "is not of the kind of its default, 10"),
        ("scrub: {epochs: -1}", "is not of the kind of its default, 10"),
        ("#" * 300_000, "larger than"),
    ],
)
def test_yaml_that_says_more_than_settings_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    """Catches references that unfold to gigabytes, code, and a setting that silently wins over its double."""
    path = tmp_path / "methods.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as raised:
        check_methods(Config.from_text({"method_config": str(path)}))
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("place", ["a long name", "behind the end"])
def test_archives_that_unpack_without_end_are_refused(tmp_path: Path, place: str) -> None:
    """Catches a header that is read into memory whole, and hours of zeros after the last member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        if place == "a long name":
            member = tarfile.TarInfo("x")
            member.type, member.size = tarfile.GNUTYPE_LONGNAME, 50_000_000
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        else:
            tar.fileobj.write(bytes(50_000_000))
    (tmp_path / "x.tar.gz").write_bytes(buffer.getvalue())
    archive = Archive("x", "http://x", "X", None, max_unpacked_bytes=20_000_000)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a header of 50,000,000 bytes|unpacks to more than 20,000,000"):
        _check_and_unpack(archive, tmp_path / "x.tar.gz", tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_dir", "~nobody-of-that-name/x"), ("data_dir", "a" * 5_000), ("forget_list", "a\0b"),
        ("method_config", "\udcff"), ("dataset_name", "x" * 500), ("seeds", str(2**70)), ("batch_size", "9" * 5_000),
        ("forget_percentage", "1e400"), ("\x1b[2J", "1"), ("x" * 5_000, "y" * 5_000),
    ],
)  # fmt: skip
def test_absurd_parameters_get_a_short_line(name: str, value: str) -> None:
    """Catches a traceback of the file system, a number that torch cannot hold, and an error of a thousand words."""
    with pytest.raises(UserError) as raised:
        Config.from_text({name: value})
    assert len(str(raised.value)) < 1_000
    assert str(raised.value).isprintable()


def test_every_imported_package_is_pinned() -> None:
    """Catches a new import whose version is left to the day of installation."""
    lists = ("requirements.txt", "requirements-cluster.txt", "requirements-pretrained.txt")
    lines = [line for name in lists for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9.]*", line) for line in lines)
    pinned = {line.partition("==")[0].lower() for line in lines}
    modules = set()
    for top in ("audio_mu", "entrypoints", "tests", "benchmarks", "experiments"):
        for path in (ROOT / top).rglob("*.py"):
            modules |= {name.split(".")[0] for name in imported(path)}
    places = packages_distributions()
    missing = {module for module in modules if module in places and not {p.lower() for p in places[module]} & pinned}
    assert missing == set()
