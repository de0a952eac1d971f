"""Clocks, alternating pairs, processes to measure in, and the recordings that are measured on."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from audio_mu.data.synthetic import generate
from audio_mu.system.tuning import keep_freed_memory
from benchmarks.speed.rows import Row
from tests.commands import ROOT

N_CLIPS, N_TRAIN = 3_000, 2_400


@dataclass(frozen=True)
class Context:
    """What every section is told: rounds to measure, threads, a folder to work in, clips of the section one_seed."""

    rounds: int
    threads: int
    folder: Path
    unlearn_clips: int

    def recordings(self) -> Path:
        """A folder of 3,000 one-second recordings in AudioMNIST's layout, written once."""
        root = self.folder / "recordings"
        if not root.exists():
            write_recordings(root)
        return root


Section = Callable[[Context], list[Row]]


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """Wall seconds of each piece of work, `rounds` times, in turn."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, values in zip(works, taken, strict=True):
            values.append(seconds(work))
    return taken


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """So many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_recordings(root: Path) -> None:
    """Copies of recordings, each with faint noise of its own, until there are 3,000; no two are alike."""
    data = os.environ.get("AUDIO_MU_TEST_DATA")
    source = Path(data) / "audiomnist_layout" if data else generate(root.parent / "spoken", n_speakers=20, n_takes=5)
    paths = sorted(source.glob("[0-9][0-9]/*.wav"))
    draw = np.random.default_rng(0)
    for number in range(N_CLIPS):
        path = paths[number % len(paths)]
        samples, rate = soundfile.read(path, dtype="float32")
        digit, speaker, take = path.stem.split("_")
        target = root / speaker / f"{digit}_{speaker}_{int(take) + 100 * (number // len(paths))}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        noisy = samples + 1e-3 * draw.standard_normal(len(samples), dtype=np.float32)
        soundfile.write(target, noisy.clip(-1, 1), rate, subtype="PCM_16")


@contextmanager
def two_processes() -> Iterator[tuple[ProcessPoolExecutor, ProcessPoolExecutor]]:
    """A process as it comes, for the study's way, and one that is set up as our workers are."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as study, ProcessPoolExecutor(1, spawn, keep_freed_memory) as ours:
        yield study, ours


def side_by_side(
    rounds: int, baseline: Callable[..., None], ours: Callable[..., None], *arguments: object
) -> list[list[float]]:
    """Wall seconds of both ways, each in its process, in turn; a first call of each is not counted."""
    with two_processes() as processes:
        works = [lambda p=p, w=w: p.submit(w, *arguments).result() for p, w in zip(processes, (baseline, ours))]
        for work in works:
            work()
        return pairs(rounds, *works)


def child(task: str, *arguments: str) -> tuple[float, float]:
    """Wall seconds of a process of `children` with its start-up, and the number that it printed."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.speed.children", task, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(done.stdout.split()[-1])


def matrix_rate(threads: int, repeats: int = 5) -> float:
    """GFLOP/s of a single-precision matrix product of 2,048 squared: the machine's measured limit."""
    n = 2_048
    a, b = torch.randn(n, n), torch.randn(n, n)
    with torch_threads(threads):
        a @ b
        return 2 * n**3 / statistics.median(seconds(lambda: a @ b) for _ in range(repeats)) / 1e9
