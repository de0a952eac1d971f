"""Sections of whole commands and of their parts: start-up, workers, one seed's methods, compare, MLflow's share."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from audio_mu.audit.attack_models import build_attack_network
from audio_mu.compute.jobs import UnlearnJob, unlearn_job
from audio_mu.compute.pool import LocalEngine
from audio_mu.compute.problem import Problem
from audio_mu.config import Config
from audio_mu.store.connect import open_store
from audio_mu.training import OptimizerSettings
from audio_mu.unlearning import Settings
from audio_mu.workflows.attack import attack
from audio_mu.workflows.train import train
from audio_mu.workflows.unlearn import unlearn
from benchmarks import many_runs
from benchmarks.speed.measuring import N_CLIPS, N_TRAIN, Context, pairs, torch_threads
from benchmarks.speed.rows import Row, limit_row, ratio_row, verdict
from benchmarks.speed.study_seed import SeedUnlearning
from benchmarks.speed.ways import BATCH, CLASSES, some_features
from tests import study_loop
from tests.commands import ROOT, own_environment

STUDY_SEED = 186.0
"""Seconds that the study's own code took for one seed's nine methods, 2,400 + 600 clips and both cores."""


def start_up(context: Context) -> list[Row]:
    """The answer to --help."""
    command = [sys.executable, "-m", "entrypoints.unlearn", "--help"]
    (taken,) = pairs(context.rounds, lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True))
    middle = statistics.median(taken)
    return [limit_row("start_up", "python -m entrypoints.unlearn --help", middle, 1.0)]


def five_seeds(context: Context) -> list[Row]:
    """Five seeds' jobs through the engine: two workers of one thread, one of one, one of two; pools already warm."""
    values, labels = some_features(500)
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        np.save(Path(folder) / "features.npy", values.numpy())
        problem = Problem(Path(folder) / "features.npy", labels.numpy(), "VGGish", CLASSES, "cpu", 1)
        order = [(seed, method) for seed in range(5) for method in ("naive", "fine_tune", "pop")]
        jobs = {t: [_seed_job(replace(problem, threads=t), *which) for which in order] for t in (1, 2)}
        with LocalEngine(2) as two, LocalEngine(1) as one, LocalEngine(1) as wide:
            works = [(two, 1), (one, 1), (wide, 2)]
            for engine, threads in works:
                list(engine.run(unlearn_job, jobs[threads][: engine.workers], "warm up"))
            taken = pairs(
                context.rounds,
                *(lambda e=engine, t=threads: list(e.run(unlearn_job, jobs[t], "seeds")) for engine, threads in works),
            )
    parallel, alone, threaded = taken
    return [
        ratio_row("five_seeds", "five seeds: one worker of 1 thread / two workers of 1 thread", alone, parallel, 1.7),
        ratio_row(
            "five_seeds", "five seeds: one worker of 2 threads / two workers of 1 thread", threaded, parallel, 1.0
        ),
    ]


def _seed_job(problem: Problem, seed: int, method: str) -> UnlearnJob:
    order = np.random.default_rng(42).permutation(len(problem.labels))
    forget, remain, test = np.split(order, [40, 400])
    state = {name: value.numpy() for name, value in problem.initialise(seed).state_dict().items()}
    return UnlearnJob(
        problem=problem, seed=seed, method=method, request="item", base_state=state,
        sets={"forget": forget, "remain": remain, "test": test},
        settings=Settings(OptimizerSettings("sgd", 0.01), BATCH, n_epochs=2, n_epoch_repair=1), hyper_parameters={},
        best_on=None,
    )  # fmt: skip


def one_seed(context: Context) -> list[Row]:
    """One seed's nine methods: our command's work with its workers and its store, models kept, against the study's."""
    n = context.unlearn_clips
    with tempfile.TemporaryDirectory(dir=context.folder) as name, torch_threads(context.threads):
        folder = Path(name)
        root = folder / "recordings"
        for path in sorted(context.recordings().glob("*/*.wav"))[:: N_CLIPS // n]:
            target = root / path.relative_to(context.recordings())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
        given = {"dataset": "audioMNIST", "data_dir": str(root), "seeds": "40", "n_epochs": "2", "n_epoch_repair": "1",
                 "force": "true", "duplicates": "ignore"}  # fmt: skip
        config = Config.from_text(given)
        study = _study_seed(config, folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        os.environ["AUDIO_MU_CACHE"] = str(folder / "cache")
        store = open_store()
        with LocalEngine(max(1, context.threads)) as engine:
            train(config, store, engine)
            attack(config, store, engine)

        def ours() -> None:
            with LocalEngine(max(1, context.threads)) as engine:
                unlearn(config, store, engine)

        baseline, taken = pairs(context.rounds, study, ours)
    return [
        ratio_row("one_seed", f"one seed's nine methods ({n:,} clips)", baseline, taken, 5, STUDY_SEED * n / N_CLIPS)
    ]


def _study_seed(config: Config, folder: Path) -> Callable[[], None]:
    recordings = sorted(config.data.data_dir.glob("*/*.wav"))
    clips = study_loop.load(study_loop.preprocess(recordings, folder / "files"))
    order = np.random.default_rng(42).permutation(len(clips)).tolist()
    n_train = len(clips) * N_TRAIN // N_CLIPS
    trained, test = order[:n_train], order[n_train:]
    n_forget = -(-n_train // 10)
    parts = {"forget": trained[:n_forget], "remain": trained[n_forget:], "test": test}
    sets = {name: clips.part(part) for name, part in parts.items()}
    base = study_loop.new_network("VGGish", 40)
    attacks = [build_attack_network().eval() for _ in range(3)]
    return lambda: SeedUnlearning(base, sets, attacks, folder / "study", 40).run(naive_epochs=2)


def compare(context: Context) -> list[Row]:
    """`compare` on a store of 10,000 runs, start-up included."""
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        taken = many_runs.measure(Path(folder), 10_000, context.rounds)
    return [limit_row("compare", "compare on a store of 10,000 runs", statistics.median(taken), 5.0)]


def demo(context: Context) -> list[Row]:
    """Where the time of `make demo`'s chain goes that is not arithmetic. Once: it takes minutes."""
    with tempfile.TemporaryDirectory(dir=context.folder) as name:
        folder = Path(name)
        environment = own_environment(folder / "cache")
        command = [sys.executable, "-m", "benchmarks.speed.demo_cost", str(folder / "cost.json")]
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
        cost = json.loads((folder / "cost.json").read_text())
    rows = [
        Row("demo", f"demo: {group}", cost["wall"], wall, "s", wall / cost["wall"], "shown", "", f"{cpu:.1f} CPU s")
        for group, (wall, cpu) in sorted(cost["groups"].items(), key=lambda item: -item[1][0])
    ]
    total = sum(wall for wall, _ in cost["groups"].values())
    share = total / cost["wall"]
    note = f"{sum(cpu for _, cpu in cost['groups'].values()):.1f} of the chain's {cost['cpu']:.0f} CPU s"
    return [
        *rows,
        Row(
            "demo", "demo: all that MLflow costs", cost["wall"], total, "s", share, "at most 0.2",
            verdict(share <= 0.2), note,
        ),
    ]  # fmt: skip
