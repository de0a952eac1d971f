"""The process that runs parts of the benchmark. Its worker processes import it again: nothing heavy at its top."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

from benchmarks.gpu.table import ENDED, FAILED, NO_DEVICE, SKIPPED, Clock, Settings, Table


def main(settings: Settings, plan: list[tuple[str, str, float, float]], progress: Path) -> None:
    """Run the parts (name, place, seconds at most, seconds at least); each line of `progress` is a part begun."""
    # `audio_mu.data.audio` and `tests.study_loop` import it for recordings, of which there are none here.
    sys.modules.setdefault("soundfile", ModuleType("soundfile"))
    import torch

    if settings.on_gpu and not torch.cuda.is_available():
        Table(settings.out, settings.device).add("machine", "device", FAILED, note="torch sees no CUDA device")
        sys.exit(NO_DEVICE)
    table = Table(settings.out, torch.cuda.get_device_name() if settings.on_gpu else "cpu")
    for name, place, most, least in plan:
        left = settings.deadline - time.time()
        seconds = min(most, left)
        with progress.open("a") as stream:
            stream.write(f"{name} {time.time() + seconds:.0f}\n")
        if left < least:
            table.add(name, "the part", SKIPPED, note=f"{max(0.0, left):.0f} s are left, it needs {least:.0f}")
            continue
        module, function = place.split(":")
        start = time.time()
        with table.attempt(name, "the part"):
            getattr(import_module(f"benchmarks.gpu.{module}"), function)(settings, table, Clock(seconds))
        table.add(name, "the part took", time.time() - start, "s")
    with progress.open("a") as stream:
        stream.write(f"{ENDED} {time.time():.0f}\n")


if __name__ == "__main__":
    main(Settings.from_text(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]))
