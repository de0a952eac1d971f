"""The kinds of input that users, archives and stores bring: examples of each, and the function that reads it."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch

from audio_mu.cli import read_words
from audio_mu.config import Config, defaults
from audio_mu.data import download
from audio_mu.data.audio import read_clip
from audio_mu.data.clips import Clips
from audio_mu.data.datasets import DATASETS
from audio_mu.data.splits import Split
from audio_mu.requests.request import request_table, resolve_request
from audio_mu.store.weights import read_weights
from audio_mu.workflows.method_settings import check_methods
from tests.faults.damage import Kind


@cache
def _sounds(*formats: tuple[str, str]) -> tuple[bytes, ...]:
    wave = 0.3 * np.sin(np.arange(4_000) / 7)
    encoded = []
    for container, encoding in formats:
        for channels in (1, 2):
            buffer = io.BytesIO()
            soundfile.write(buffer, np.stack([wave] * channels, axis=1), 16_000, encoding, format=container)
            encoded.append(_timeless(buffer.getvalue()))
    return tuple(encoded)


def _timeless(data: bytes) -> bytes:
    """A recording without the time of its making, which libsndfile writes beside the peaks of a float WAV."""
    at = data.find(b"PEAK")
    return data if at < 0 else data[: at + 12] + bytes(4) + data[at + 16 :]


def _sound(suffix: str, words: tuple[bytes, ...], *formats: tuple[str, str]) -> Kind:
    def read(data: bytes, folder: Path) -> np.ndarray:
        path = folder / f"x{suffix}"
        path.write_bytes(data)
        clip = read_clip(path, 16_000).waveform
        assert clip.shape == (16_000,) and np.isfinite(clip).all()
        return clip

    return Kind(lambda: _sounds(*formats), words, read)


def _texts(*texts: str) -> Callable[[], tuple[bytes, ...]]:
    return lambda: tuple(text.encode() for text in texts)


IDS = ("cat/anna_1.wav", "cat/ben_2.wav", "dog/anna_3.wav", "dog/ben_4.wav", "dog/cleo_5.wav", "cat/cleo_6.wav")


def _read_request(data: bytes, folder: Path) -> object:
    path = folder / "requests.csv"
    path.write_bytes(data)
    n = len(IDS)
    clips = Clips(
        features=torch.empty(n, 1, 0, 0), features_file=folder, labels=torch.tensor([0, 0, 1, 1, 1, 0]), ids=IDS,
        speakers=("anna", "ben", "anna", "ben", "cleo", "cleo"), hashes=tuple(map(str, range(n))),
        sources=tuple(map(str, range(n))), parts=("",) * n, class_names=("cat", "dog"), skipped=(), constant=(),
        root=Path("/data"), digest="digest",
    )  # fmt: skip
    config = Config.from_text({"forget": "list", "forget_list": str(path)})
    request = resolve_request(config.request, clips, Split("random", np.arange(4), np.arange(4, n), np.arange(4, n)))
    return request_table(config.request, clips, request).to_csv()


def _folder(folder: Path, **values: str) -> Config:
    for id_ in IDS:
        (folder / id_).parent.mkdir(exist_ok=True)
        (folder / id_).touch()
    return Config.from_text({"dataset": "folder", "dataset_name": "t", "data_dir": str(folder), **values})


def _read_speakers(data: bytes, folder: Path) -> object:
    (folder / "speakers.csv").write_bytes(data)
    return DATASETS["folder"].catalog(folder, _folder(folder).data)


def _read_lists(data: bytes, folder: Path) -> object:
    for id_ in ("yes/00000001_nohash_0.wav", "no/00000001_nohash_1.wav"):
        (folder / id_).parent.mkdir()
        (folder / id_).touch()
    (folder / "testing_list.txt").write_bytes(data)
    (folder / "validation_list.txt").touch()
    config = Config.from_text({"dataset": "SpeechCommands", "data_dir": str(folder)})
    return DATASETS["SpeechCommands"].catalog(folder, config.data)


def _read_settings(data: bytes, folder: Path) -> object:
    path = folder / "methods.yaml"
    path.write_bytes(data)
    return check_methods(Config.from_text({"method_config": str(path)}))


def _read_parameters(data: bytes, folder: Path) -> object:
    words = data.decode("utf-8", "surrogateescape").split("\n")
    return Config.from_text(read_words(words)).as_text()


@cache
def _tars() -> tuple[bytes, ...]:
    made = []
    for layout in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=layout) as tar:
            for name in ("yes/a.wav", f"no/{'b' * 80}.wav", *([f"{'long/' * 40}c.wav", "ü.wav"] if layout else [])):
                member = tarfile.TarInfo(name)
                member.size = 700
                tar.addfile(member, io.BytesIO(bytes(700)))
        made.append(buffer.getvalue())
    return tuple(made)


def _read_archive(data: bytes, folder: Path) -> object:
    packed = folder / "inside" / "x.tar.gz"
    packed.parent.mkdir()
    packed.write_bytes(data)
    archive = download.Archive("x", "http://x", "X", None, max_unpacked_bytes=1 << 20, max_members=100)
    try:
        return download._check_and_unpack(archive, packed, folder / "inside" / "x")
    finally:
        outside = sorted(path.name for path in folder.iterdir())
        assert outside == ["inside"], f"{outside} written outside"
        assert not any(path.is_symlink() for path in folder.rglob("*"))


@cache
def _models() -> tuple[bytes, ...]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()
    program = torch.export.export(network, (torch.zeros(2, 3),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as content:  # without its padding and graph, so that mutations meet what is read
        kept = {info.filename: content.read(info) for info in content.infolist() if "/weights/" in info.filename}
    small = io.BytesIO()
    with zipfile.ZipFile(small, "w") as archive:
        for name, part in kept.items():
            archive.writestr(zipfile.ZipInfo(name), part)
    return (small.getvalue(),)


def _read_model(data: bytes, folder: Path) -> object:
    (folder / "model.pt2").write_bytes(data)
    return read_weights(folder / "model.pt2")


TREE = (b",", b'"', b"\n", b"\r", b"\0", b"\t", b"\xff", b"\x1b[2J", "\u2028".encode(), b"../", b"/", b"=1+1", b"'")
CHUNKS = (b"RIFF", b"RF64", b"LIST", b"data", b"fmt ", b"fact", b"fLaC", b"OggS", b"ID3", b"\xff\xfb")
PARAMETERS = tuple(f"\n--{name}\n".encode() for name in defaults())

KINDS: dict[str, Kind] = {
    "wav": _sound(".wav", CHUNKS, ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAV", "MS_ADPCM"),
                  ("WAVEX", "PCM_24"), ("RF64", "PCM_16")),
    "flac": _sound(".flac", CHUNKS, ("FLAC", "PCM_16")),
    "ogg": _sound(".ogg", CHUNKS, ("OGG", "VORBIS"), ("OGG", "OPUS")),
    "mp3": _sound(".mp3", CHUNKS, ("MP3", "MPEG_LAYER_III")),
    "request": Kind(
        _texts("clip_id,reason,audio_hash\ncat/anna_1.wav,GDPR,0\n/data/cat/ben_2.wav,,\n", "cat/anna_1.wav\n"),
        (*TREE, b"clip_id", b"path", b"requested", b"label", b"audio_hash", *(id_.encode() for id_ in IDS)),
        _read_request,
    ),
    "speakers": Kind(
        _texts("id,speaker\ncat/anna_1.wav,anna\ndog/anna_3.wav,anna\n", 'speaker,path\n"a,b",cat/ben_2.wav\n'),
        (*TREE, b"id", b"path", b"speaker"),
        _read_speakers,
    ),
    "lists": Kind(_texts("yes/00000001_nohash_0.wav\n"), TREE, _read_lists),
    "yaml": Kind(
        _texts("salun: {epochs: 5, learning_rate: 0.001}\ngradient_ascent: {impair_learning_rate: 0.0003}\n",
               "scrub:\n  msteps: 3\n  gamma: 1.0\n"),
        (b"&a ", b"*a", b"!!python/object/apply:os.system ", b"!!bool ", b"!!timestamp ", b"[" * 3000, b"- ", b": ",
         b"\n", b"<<: ", b"? ", b"|", b"0x" + b"f" * 5000, b"9" * 5000, b"1:59", b"2024-13-45", b".nan", b"null",
         b"true", b"-1", b"\xff"),
        _read_settings,
    ),
    "parameters": Kind(
        _texts("--forget\nclass\n--forget-class-names\n7,8", "--seeds=40,41\n--n_epochs\n3\n--clip_seconds\n1",
               "--learning_rate\n1e-3\n--pipeline\nmel\n--methods\npop,omp\n--data_dir\n/tmp"),
        (*PARAMETERS, b"auto", b"-1", b"nan", b"inf", b"9" * 5000, b"1e400", b"~nobody/x", b"\0", b"\xff", b"a" * 5000,
         b"$(touch x)", b"; touch x", b"/dev/zero", b"=", b"--", b"true"),
        _read_parameters,
    ),
    "archive (packed)": Kind(
        lambda: tuple(gzip.compress(tar, mtime=0) for tar in _tars()), (b"\x1f\x8b\x08", b"\0" * 64), _read_archive
    ),
    "archive (members)": Kind(
        _tars,
        (b"../", b"../../x\0", b"/tmp/x\0", b"2", b"1", b"x", b"L", b"S", b"\x80" + b"\xff" * 11, b"\xff" * 12,
         b"30 size=99999999999999999999\n", b"22 GNU.sparse.major=1\n"),
        _read_archive,
        lambda data: gzip.compress(data, 1, mtime=0),
    ),
    "model": Kind(
        _models,
        (b'"use_pickle": true', b'{"as_int": 99999999999}', b'{"as_int": -1}', b'"dtype": 5', b"null", b"PK\x01\x02",
         b"PK\x05\x06"),
        _read_model,
    ),
}  # fmt: skip
