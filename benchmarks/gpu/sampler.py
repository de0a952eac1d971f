"""The GPU as nvidia-smi sees it while something runs, and its memory as torch counts it."""

from __future__ import annotations

import subprocess
import threading
import time
from types import TracebackType

import torch

QUERY = ("utilization.gpu", "memory.used", "power.draw", "clocks.sm")


class Sampler:
    """Samples of the GPU, ten a second, while the block runs; none where nvidia-smi does not answer."""

    def __init__(self, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self._process: subprocess.Popen[str] | None = None
        self._samples: list[tuple[float, tuple[float, ...]]] = []

    def __enter__(self) -> Sampler:
        words = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits", "-lms", "100"]
        if self._on_gpu:
            try:
                self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            except OSError:
                return self
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            try:
                values = tuple(float(word) for word in line.split(","))
            except ValueError:  # "[N/A]"
                continue
            self._samples.append((time.time(), values))

    def note(self, start: float) -> str:
        """Means of the samples since `start` (seconds since the epoch), in words; empty where there are none."""
        values = [sample for when, sample in self._samples if when > start + 0.1]
        if not values:
            return ""
        busy, memory, watts, clock = (sum(column) / len(values) for column in zip(*values, strict=True))
        return f"GPU busy {busy:.0f} %, {memory / 1024:.1f} GiB used, {watts:.0f} W, {clock:.0f} MHz"


def reset_peak(device: torch.device) -> None:
    """Count the peak of this process's GPU memory anew."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def peak_mb(device: torch.device) -> float | None:
    """MB of GPU memory that this process's tensors took at most; None on the CPU."""
    return torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
