"""What the machine is, the arithmetic that torch and the project choose on it, and the rates that bound everything."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys

import numpy as np
import torch
from torch import Tensor, nn

from audio_mu.training import Batch, Examples, OptimizerSettings, cross_entropy, fit
from benchmarks.gpu.arithmetic import arithmetic
from benchmarks.gpu.measuring import seconds_of
from benchmarks.gpu.table import Clock, Settings, Table

PRODUCT = 8_192
COPIED = 2**30  # numbers


def machine(settings: Settings, table: Table, clock: Clock) -> None:
    """Rows of names and flags, then of two rates."""
    for what, value, unit in _named(settings):
        table.add("machine", what, value, unit)
    table.add("machine", "arithmetic of `fit` as it is shipped", shipped_arithmetic(settings.device))
    with table.attempt("machine", "rates"):
        _rates(settings, table)
    strangers = sorted({"mlflow", "soundfile"} & {n for n, m in sys.modules.items() if getattr(m, "__file__", None)})
    table.check("machine", "no MLflow and no soundfile are imported", not strangers, note=", ".join(strangers))


def _named(settings: Settings) -> list[tuple[str, float | str, str]]:
    rows: list[tuple[str, float | str, str]] = [
        ("Python", platform.python_version(), ""),
        ("torch", torch.__version__, ""),
        ("numpy", np.__version__, ""),
        ("cores", float(len(os.sched_getaffinity(0))), ""),
        ("threads of torch", float(torch.get_num_threads()), ""),
        ("memory", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, "GiB"),
    ]
    if settings.on_gpu:
        about = torch.cuda.get_device_properties(0)
        rows += [
            ("GPU", about.name, ""),
            ("GPU memory", about.total_memory / 2**30, "GiB"),
            ("multiprocessors", float(about.multi_processor_count), ""),
            ("compute capability", f"{about.major}.{about.minor}", ""),
            ("CUDA of torch", str(torch.version.cuda), ""),
            ("cuDNN", str(torch.backends.cudnn.version()), ""),
            ("driver", _driver(), ""),
        ]
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = {
        "cuda.matmul.allow_tf32": matmul.allow_tf32,
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.deterministic": cudnn.deterministic,
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "not set"),
    }
    return rows + [(what, str(value), "") for what, value in flags.items()]


def _driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"not told: {type(error).__name__}"


def shipped_arithmetic(device: str) -> str:
    """What `fit` computes in, asked from within."""
    seen: list[str] = []

    def listening(network: nn.Module, batch: Batch) -> Tensor:
        kind = batch.features.device.type
        seen.append(str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "float32")
        return cross_entropy(network, batch)

    network = nn.Linear(4, 2).to(device)
    examples = Examples(torch.randn(4, 4, device=device), *(torch.zeros(4, dtype=torch.long, device=device),) * 2)
    fit(
        network, examples, OptimizerSettings("sgd", 0.01).build(network.parameters()),
        epochs=1, batch_size=4, seed=0, objective=listening,
    )  # fmt: skip
    return f"{seen[0].removeprefix('torch.')}{' autocast' if seen[0] != 'float32' else ''}"


def _rates(settings: Settings, table: Table) -> None:
    n = PRODUCT if settings.on_gpu else 512
    a, b = (torch.randn(n, n, device=settings.device) for _ in range(2))
    for name in ("float32", "TF32", "bf16") if settings.on_gpu else ("float32",):
        with arithmetic(name):
            x, y = (a.bfloat16(), b.bfloat16()) if name == "bf16" else (a, b)
            taken = statistics.median(seconds_of(lambda x=x, y=y: x @ y, settings.device, 10))
        table.add("machine", f"matrix product of {n:,} squared, {name}", 2 * n**3 / taken / 1e12, "TFLOP/s")
    source = torch.randn(COPIED if settings.on_gpu else 2**22, device=settings.device)
    target = torch.empty_like(source)
    taken = statistics.median(seconds_of(lambda: target.copy_(source), settings.device, 10))
    table.add("machine", "copy, bytes read and written", 8 * len(source) / taken / 1e12, "TB/s")
    waiting = source[: 2**24].cpu()
    taken = statistics.median(seconds_of(lambda: waiting.to(settings.device, copy=True), settings.device, 5))
    table.add("machine", "from the host to the device, pageable", 4 * len(waiting) / taken / 1e9, "GB/s")
