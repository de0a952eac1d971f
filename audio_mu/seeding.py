"""All randomness: one way to derive a seed for a purpose, one way to use it without touching the caller's state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) that depends on `seed` and the words of its purpose alone."""
    text = "\x1f".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, numpy and torch (CPU and accelerators) inside the block; restore the caller's states after it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_available() else []):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put back what code of the user's own sets for all of torch in the block: others are computed as ever."""
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    device, matrices = torch.get_default_device(), torch.get_float32_matmul_precision()
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cast = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")}
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        torch.set_float32_matmul_precision(matrices)
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        for kind, (on, to) in cast.items():
            torch.set_autocast_enabled(kind, on)
            torch.set_autocast_dtype(kind, to)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


def generator(seed: int) -> torch.Generator:
    """A torch generator on the CPU, so that draws are the same on every device."""
    return torch.Generator().manual_seed(seed)
