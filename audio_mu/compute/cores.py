"""How the cores at hand are shared between tasks, and what they could do better."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from audio_mu.config import Config, MachineParameters
from audio_mu.config.parsers import BF16
from audio_mu.errors import counted
from audio_mu.progress import say_once
from audio_mu.system.cores import CPU_INFO, cores_at_hand, multiplies_bf16
from audio_mu.training import pick_device


def threads_and_workers(config: MachineParameters) -> tuple[int, int]:
    """Threads of one task and tasks at once: by default one thread each and all cores; one task on a GPU."""
    cores = cores_at_hand()
    on_cpu = pick_device(config.device).type == "cpu"
    threads = config.threads or 1
    workers = config.workers or (max(1, cores // threads) if on_cpu else 1)
    return threads, workers


def tell_idle(config: MachineParameters, n_tasks: int) -> None:
    """Say once where a command leaves cores idle that more threads would use; not where the user has decided."""
    cores = cores_at_hand()
    decided = config.threads or config.workers or config.engine != "local" or pick_device(config.device).type != "cpu"
    if not decided and n_tasks and (threads := cores // n_tasks) > 1:
        say_once(
            f"note: {counted(cores - n_tasks, 'core')} of {cores} idle: threads={threads} would use them; its figures "
            "differ from one thread's by rounding, and are not compared with them"
        )


def tell_precision(config: Config, cpu_info: Path = CPU_INFO) -> None:
    """Say once where a CPU would train faster in the other precision. Figures: docs/speed.md."""
    if pick_device(config.machine.device).type != "cpu":
        return
    has_units, in_bf16 = multiplies_bf16(cpu_info), config.training.precision == BF16
    if has_units and not in_bf16 and "precision" not in config.given:
        say_once(
            "note: this processor has matrix units for bf16: base models of precision=bf16, and what is unlearned from "
            "them, train about 1.7 to 2.8 times as fast"
        )
    elif in_bf16 and not has_units:
        say_once("note: no matrix units for bf16 are found here: precision=float32 may train many times as fast")


@contextmanager
def process_threads(threads: int = 1) -> Iterator[None]:
    """So many threads for this process inside the block: one where workers have the cores, else they wait in turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
