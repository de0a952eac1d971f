"""How the cores of this machine are shared between tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from audio_mu.config import MachineParameters
from audio_mu.training import pick_device


def threads_and_workers(config: MachineParameters) -> tuple[int, int]:
    """Threads of one task and tasks at once: by default one thread each and all cores; one task on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = pick_device(config.device).type == "cpu"
    threads = config.threads or 1
    workers = config.workers or (max(1, cores // threads) if on_cpu else 1)
    return threads, workers


@contextmanager
def cores_left_to_workers() -> Iterator[None]:
    """One thread for this process inside the block: several wait for each other where workers have the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
