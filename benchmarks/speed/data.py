"""Sections of the data's way: pre-processing, the split of a request, memory."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from audio_mu.config import Config
from audio_mu.data.clips import Clips
from audio_mu.data.splits import split_clips
from audio_mu.requests.request import resolve_request
from audio_mu.system.hashing import sha256
from benchmarks.speed.measuring import Context, child, pairs, seconds
from benchmarks.speed.rows import Row, ratio_row, study_note, verdict
from benchmarks.speed.ways import SHAPE
from tests import study_loop

SPEECH_COMMANDS = 95_848
STUDY_PREPARATION, STUDY_START_AND_PREPARATION, STUDY_SPLIT = 6.0, 23.0, 25.0
"""Seconds that the study's own code took on such a machine."""


def features(context: Context) -> list[Row]:
    """Pre-processing of 3,000 recordings in processes of their own, with and without their start-up; a cached start."""
    root = context.recordings()
    taken: dict[str, list[tuple[float, float]]] = {"study": [], "ours": [], "cached": []}
    for _ in range(context.rounds):
        with tempfile.TemporaryDirectory(dir=context.folder) as cache:
            for way, values in taken.items():  # the third finds what the second has made
                who = "study" if way == "study" else "ours"
                values.append(child("prepare", who, str(root), cache, str(context.threads)))
    after = {way: [own for _, own in values] for way, values in taken.items()}
    whole = {way: [total for total, _ in values] for way, values in taken.items()}
    return [
        ratio_row("features", "pre-processing, after start-up", after["study"], after["ours"], 4, STUDY_PREPARATION),
        ratio_row(
            "features", "pre-processing, with start-up", whole["study"], whole["ours"], 8, STUDY_START_AND_PREPARATION
        ),
        ratio_row("features", "features of a cached start", after["study"], after["cached"], 100),
    ]


def split(context: Context) -> list[Row]:
    """Forget and remain sets of a data set of Speech Commands' size."""
    n_train = 84_843
    ids = tuple(f"word{i % 35:02d}/{i * 7919 % 2618:08x}_nohash_{i}.wav" for i in range(SPEECH_COMMANDS))
    parts = ("train",) * n_train + ("test",) * (SPEECH_COMMANDS - n_train)
    speakers = tuple(id_[7:15] for id_ in ids)
    hashes = tuple(map(sha256, ids))
    clips = Clips(
        torch.zeros(1), Path(), torch.arange(SPEECH_COMMANDS) % 35, ids, speakers, hashes, hashes, parts,
        tuple(f"word{i:02d}" for i in range(35)), (), (), Path(), "",
    )  # fmt: skip
    config = Config.from_text({"dataset": "SpeechCommands"})
    base = split_clips("official", 42, clips)
    (ours,) = pairs(context.rounds, lambda: resolve_request(config.request, clips, base))
    baseline = seconds(lambda: study_loop.split(ids[:n_train], 10))  # half a minute: once is enough
    middle = statistics.median(ours)
    what = "forget/remain split of 84,843 clips"
    return [
        Row(
            "split", what, baseline, middle, "s", baseline / middle, "ours below 0.05", verdict(middle < 0.05),
            study_note(STUDY_SPLIT),
        )
    ]  # fmt: skip


def memory(context: Context) -> list[Row]:
    """Peak memory of a process that trains on features of Speech Commands' size, mapped from their file."""
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        path = Path(folder) / "features.npy"
        mapped = np.lib.format.open_memmap(path, "w+", np.float32, (SPEECH_COMMANDS, 1, *SHAPE))
        for start in range(0, SPEECH_COMMANDS, 8_192):
            part = mapped[start : start + 8_192]
            part[:] = np.random.default_rng(start).standard_normal(part.shape, dtype=np.float32)
        mapped.flush()
        own = mapped.nbytes / 1e6
        del mapped, part
        peak = child("train", str(path), str(context.threads))[1]
    limit = own + 1_000
    return [
        Row(
            "memory", f"peak while training on {SPEECH_COMMANDS:,} x 32 x 63, beside features + 1 GB", limit, peak,
            "MB",
            limit / peak, "ours at most the limit", verdict(peak <= limit),
        )
    ]  # fmt: skip
