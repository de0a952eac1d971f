"""Several tasks at once on one GPU: is one at a time, the default of `workers` there, right?"""

from __future__ import annotations

import time

import numpy as np

from audio_mu.compute.attempt import Failed
from audio_mu.compute.jobs import TrainJob, train_job
from audio_mu.compute.pool import LocalEngine
from audio_mu.compute.problem import Problem
from audio_mu.training import OptimizerSettings
from benchmarks.gpu import data
from benchmarks.gpu.measuring import BATCH, CLASSES, RATE
from benchmarks.gpu.sampler import Sampler
from benchmarks.gpu.table import SKIPPED, Clock, Settings, Table

AT_ONCE = (1, 2, 4, 8)
ALONE = 1.5  # seconds that a task by itself should take


def tasks(settings: Settings, table: Table, clock: Clock) -> None:
    """One pool of workers; each is given a base model to train, so many at the same time."""
    most = 2 if settings.quick or not settings.on_gpu else max(AT_ONCE)
    n = settings.clips if settings.on_gpu else min(settings.clips, 48)
    path, labels = data.features_file(settings, n)
    with LocalEngine(most) as engine, Sampler(settings.on_gpu) as sampler:

        def run(architecture: str, k: int, epochs: int) -> float:
            problem = Problem(path, labels, architecture, CLASSES, settings.device, 1)
            jobs = [
                TrainJob(problem, seed, np.arange(n), {}, OptimizerSettings("sgd", RATE), BATCH, epochs, None)
                for seed in range(k)
            ]
            start = time.time()
            for _, result in engine.run(train_job, jobs, "tasks"):
                assert not isinstance(result, Failed), result.reason
            return time.time() - start

        for architecture in ("VGGish",) if settings.quick else ("VGGish", "ViT", "CCT"):
            with table.attempt("tasks", "tasks at once", network=architecture):
                run(architecture, most, 1)  # starts the workers and warms them up
                short, longer = run(architecture, 1, 1), run(architecture, 1, 4)
                epochs = 1 if settings.quick else max(2, round(ALONE / max((longer - short) / 3, 0.01)))
                first = 0.0
                for k in (k for k in AT_ONCE if k <= most):
                    if clock.left < 3 + (k * ALONE if settings.on_gpu else 0):
                        table.add("tasks", f"{k} at once", SKIPPED, network=architecture, note="no time is left")
                        continue
                    start = time.time()
                    seconds = run(architecture, k, epochs)
                    rate = k * epochs * n / seconds
                    first = first or rate
                    note = f"{seconds:.2f} s for {k} x {epochs} epochs; {rate / first:.2f} times one alone"
                    busy = sampler.note(start)
                    table.add(
                        "tasks", f"{k} at once, clips a second in total", rate, "clips/s", network=architecture,
                        note="; ".join(filter(None, (note, busy))),
                    )  # fmt: skip
