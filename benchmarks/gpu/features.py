"""Seconds to compute the mel features of all clips, on the GPU and on the CPU."""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor

from audio_mu.data.clips import BATCH
from benchmarks.gpu import data
from benchmarks.gpu.measuring import wait_for
from benchmarks.gpu.sampler import peak_mb, reset_peak
from benchmarks.gpu.table import Clock, Settings, Table


def features(settings: Settings, table: Table, clock: Clock) -> None:
    """Waveforms lie in the host's memory, as reading leaves them, and features go back there, as the cache has them."""
    n = settings.clips if settings.on_gpu else min(settings.clips, 600)
    waves = torch.cat([part.cpu() for part, _ in data.parts(n, settings.device)])
    on_cpu = _rows(settings, table, waves, "cpu", 64)
    if settings.on_gpu:
        for batch in (BATCH, 1_024):
            on_gpu = _rows(settings, table, waves, settings.device, batch)
        difference = (on_gpu - on_cpu).abs().max() / on_cpu.abs().max()
        table.add("features", "largest difference of GPU and CPU, of the largest value", float(difference))
        table.check("features", "GPU and CPU agree to 1e-4", float(difference) < 1e-4)
        there = waves.to(settings.device)
        _rows(settings, table, there, settings.device, 1_024)
    with_one = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _rows(settings, table, waves[: max(1, n // 6)], "cpu", BATCH)
    finally:
        torch.set_num_threads(with_one)


def _rows(settings: Settings, table: Table, waves: Tensor, device: str, batch: int) -> Tensor:
    """Seconds of one way, after a first batch; its features on the CPU."""
    transform = data.frontend(device)
    with torch.inference_mode():
        transform(waves[:batch].to(device)).cpu()
        reset_peak(torch.device(device))
        wait_for(device)
        start = time.perf_counter()
        parts = [transform(part.to(device)).cpu() for part in waves.split(batch)]
        seconds = time.perf_counter() - start
    where = f"from {'the host' if waves.device.type == 'cpu' else 'the GPU'} " if device != "cpu" else ""
    threads = f", {torch.get_num_threads()} threads of {len(os.sched_getaffinity(0))} cores" if device == "cpu" else ""
    what = f"{len(waves):,} clips {where}on the {'CPU' if device == 'cpu' else 'GPU'}, {batch} at a time{threads}"
    name = "cpu" if device == "cpu" else None
    table.add("features", what, seconds, "s", device=name, note=f"{len(waves) / seconds:,.0f} clips/s")
    if (peak := peak_mb(torch.device(device))) is not None:
        table.add("features", f"{what}: peak of GPU memory", peak, "MB")
    return torch.cat(parts)
