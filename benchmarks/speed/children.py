"""Work that is measured in a process of its own, memory and start-up included; each task prints one number last.

    python -m benchmarks.speed.children prepare study|ours FOLDER CACHE THREADS   seconds of pre-processing
    python -m benchmarks.speed.children train FEATURES THREADS                    MB at the peak while training

Imports are where they are used: a process's start-up is part of what is measured.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path


def prepare(way: str, folder: str, cache: str, threads: str) -> float:
    """Pre-process the recordings of a folder, or map what the cache has of them."""
    return (_study_prepares if way == "study" else _we_prepare)(Path(folder), Path(cache), int(threads))


def _study_prepares(folder: Path, cache: Path, threads: int) -> float:
    # What code of its kind imports at its top; the study's own libraries took 17 s to start.
    import matplotlib.pyplot
    import pandas
    import sklearn.model_selection
    import torch
    import torchmetrics

    from tests import study_loop

    del matplotlib, pandas, sklearn, torchmetrics
    torch.set_num_threads(threads)
    recordings = sorted(folder.glob("*/*.wav"))
    start = time.perf_counter()
    study_loop.load(study_loop.preprocess(recordings, cache / "files"))
    return time.perf_counter() - start


def _we_prepare(folder: Path, cache: Path, threads: int) -> float:
    from audio_mu.system.tuning import look_seldom_for_garbage

    look_seldom_for_garbage()  # as every command does
    import torch
    import torchaudio.transforms

    from audio_mu.config import Config
    from audio_mu.data.clips import load_clips

    del torchaudio  # its start belongs to the start-up: `load_clips` would import it
    torch.set_num_threads(threads)
    os.environ["AUDIO_MU_CACHE"] = str(cache)
    config = Config.from_text({"dataset": "audioMNIST", "data_dir": str(folder), "pipeline": "mel"})
    start = time.perf_counter()
    load_clips(config.data)
    return time.perf_counter() - start


def train(features: str, threads: str) -> float:
    """Train a small network on all clips, so that each is touched, then VGGish on some of them, and predict."""
    import numpy as np
    import torch

    from audio_mu.models import build, tiny
    from audio_mu.system.tuning import keep_freed_memory
    from audio_mu.training import Examples, OptimizerSettings, fit, predict

    keep_freed_memory()
    torch.set_num_threads(int(threads))
    mapped = torch.from_numpy(np.load(features, mmap_mode="c"))
    labels = torch.arange(len(mapped)) % 10
    for widths, clips in ((tiny("VGGish"), torch.arange(len(mapped))), ({}, torch.randperm(len(mapped))[:2_048])):
        network = build("VGGish", tuple(mapped.shape[2:]), 10, **widths).to(memory_format=torch.channels_last)
        optimizer = OptimizerSettings("sgd", 0.01).build(network.parameters())
        fit(network, Examples(mapped, labels, clips), optimizer, epochs=1, batch_size=256, seed=0)
        predict(network, mapped, clips)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    print({"prepare": prepare, "train": train}[task](*arguments))
