"""How the cores at hand are shared between tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from audio_mu.config import MachineParameters
from audio_mu.system.cores import cores_at_hand
from audio_mu.training import pick_device


def threads_and_workers(config: MachineParameters) -> tuple[int, int]:
    """Threads of one task and tasks at once: by default one thread each and all cores; one task on a GPU."""
    cores = cores_at_hand()
    on_cpu = pick_device(config.device).type == "cpu"
    threads = config.threads or 1
    workers = config.workers or (max(1, cores // threads) if on_cpu else 1)
    return threads, workers


@contextmanager
def process_threads(threads: int = 1) -> Iterator[None]:
    """So many threads for this process inside the block: one where workers have the cores, else they wait in turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
