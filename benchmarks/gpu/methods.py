"""One seed's methods at the data's full size, and the study's nine in both ways of working with the same settings."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from audio_mu import training
from audio_mu.audit.attack_models import Attack, build_attack_network
from audio_mu.audit.distances import distances
from audio_mu.audit.performance import accuracy, cross_entropy, performance
from audio_mu.compute.jobs import Result, TrainJob, UnlearnJob, train_job, unlearn_job
from audio_mu.compute.problem import Problem
from audio_mu.names import STUDY
from audio_mu.training import OptimizerSettings
from audio_mu.unlearning import METHODS
from audio_mu.unlearning import Settings as Recipe
from benchmarks.gpu import data
from benchmarks.gpu.measuring import BATCH, CLASSES, RATE
from benchmarks.gpu.sampler import peak_mb, reset_peak
from benchmarks.gpu.table import SKIPPED, Clock, Settings, Table
from benchmarks.speed.study_seed import SeedUnlearning
from tests import study_loop
from tests.study_loop import ClipList

SEED, TRAIN_SHARE, FORGET_SHARE = 40, 0.8, 0.1
EPOCHS, REPAIR_EPOCHS = 30, 5
STUDY_CLIPS = 3_000
"""Clips of the study's way: it asks for the loss of every clip by itself."""
SLOW = {"salun": 8, "scrub": 12, "ssd": 40}
"""Methods that come last because they take longest, and the seconds that must be left for them on a GPU."""
CLIPS_AT_ONCE = 2**29
"""Gradient entries at once that a GPU has the memory for: 16 times what `mean_squared_gradient` is shipped with."""


def methods(settings: Settings, table: Table, clock: Clock) -> None:
    """VGGish: the study's nine, both ways of working beside each other, then the rest of the registry."""
    threads = torch.get_num_threads()
    n = settings.clips if settings.on_gpu else min(settings.clips, 60)
    seed = Seed.of("VGGish", n, settings, table, *_epochs(settings))
    seed.base()
    seed.unlearn(STUDY, clock)
    if clock.left < 45:
        table.add("nine", "the part", SKIPPED, network="VGGish", note="no time is left")
    else:
        with table.attempt("nine", "the part", network="VGGish"):
            study_beside_ours(settings, table, threads)
    seed.unlearn(sorted(set(METHODS) - set(STUDY) - set(SLOW)), clock)
    if settings.on_gpu and clock.left > 10:
        with (
            table.attempt("methods", "method", network="VGGish", method="ssd, more clips at once"),
            patch.object(training, "PER_CLIP_NUMBERS", CLIPS_AT_ONCE),
        ):
            seed.timed("ssd, more clips at once", lambda: unlearn_job(seed.job("ssd")))
    seed.unlearn(SLOW, clock)


def transformers(settings: Settings, table: Table, clock: Clock) -> None:
    """CCT and ViT: the study's nine, with as many epochs as the time allows."""
    for position, architecture in enumerate(("CCT", "ViT")):
        n = settings.clips if settings.on_gpu else min(settings.clips, 20)
        epochs, repair = _epochs(settings)
        share = clock.left / (2 - position)
        probe = Seed.of(architecture, n, settings, table, 1, 1)
        start = time.time()
        probe.train()  # warms up
        probe.train()
        an_epoch = (time.time() - start) / 2
        # The base and naive train for all epochs, the seven others impair once and repair.
        all_epochs = 2 * epochs + 7 * (repair + 0.2) + repair
        if an_epoch * all_epochs > share:
            epochs, repair = max(1, round(epochs * share / (an_epoch * all_epochs))), 1
        if share < 10 * min(1.0, settings.minutes / 6):
            table.add("transformers", "methods", SKIPPED, network=architecture, note="no time is left")
            continue
        with table.attempt("transformers", "methods", network=architecture):
            seed = Seed.of(architecture, n, settings, table, epochs, repair, part="transformers")
            seed.base()
            seed.unlearn(STUDY, clock)


def _epochs(settings: Settings) -> tuple[int, int]:
    return (2, 1) if settings.quick else (EPOCHS, REPAIR_EPOCHS)


@dataclass
class Seed:
    """One seed's base model, and methods on it, as the workers run them: `train_job` and `unlearn_job`.

    A job's own seconds hold the clips' way to the device, and the logits' and weights' way back.
    """

    problem: Problem
    sets: Mapping[str, np.ndarray]
    recipe: Recipe
    table: Table
    part: str
    quick: bool
    trained: Result | None = None

    @staticmethod
    def of(
        architecture: str, n: int, settings: Settings, table: Table, epochs: int, repair: int, part: str = "methods"
    ) -> Seed:
        """A seed on n clips: 80 % of them to train on, a tenth of these to forget."""
        path, labels = data.features_file(settings, n)
        problem = Problem(path, labels, architecture, CLASSES, settings.device, 1)
        order = np.random.default_rng(42).permutation(n)
        trained, test = np.split(order, [int(TRAIN_SHARE * n)])
        forget, remain = np.split(trained, [int(np.ceil(FORGET_SHARE * len(trained)))])
        recipe = Recipe(OptimizerSettings("sgd", RATE), BATCH, n_epochs=epochs, n_epoch_repair=repair)
        return Seed(problem, {"forget": forget, "remain": remain, "test": test}, recipe, table, part, settings.quick)

    def add(self, method: str, what: str, value: float, unit: str, note: str = "") -> None:
        """A row of this seed."""
        self.table.add(self.part, what, value, unit, network=self.problem.architecture, method=method, note=note)

    def train(self) -> Result:
        """Train the base."""
        training = np.concatenate([self.sets["forget"], self.sets["remain"]])
        return train_job(
            TrainJob(
                self.problem, SEED, training, self.sets, self.recipe.optimizer, self.recipe.batch_size,
                self.recipe.n_epochs, None,
            )
        )  # fmt: skip

    def base(self) -> None:
        """Train the base, with its rows."""
        self.trained = self.timed("original", self.train, f"{self.recipe.n_epochs} epochs")

    def job(self, name: str) -> UnlearnJob:
        """A method's job."""
        assert self.trained is not None
        hyper_parameters = METHODS[name].hyper_parameters
        return UnlearnJob(
            self.problem, SEED, name, "item", self.trained.state, self.sets, self.recipe,
            {"epochs": 1} if self.quick and "epochs" in hyper_parameters else {}, None,
        )  # fmt: skip

    def unlearn(self, names: Iterable[str], clock: Clock) -> None:
        """Methods with their rows, while time is left."""
        for name in names:
            if clock.left < (4 if self.quick else SLOW.get(name, 6)):
                self.table.add(
                    self.part, "method", SKIPPED, network=self.problem.architecture, method=name,
                    note="no time is left",
                )  # fmt: skip
                continue
            with self.table.attempt(self.part, "method", network=self.problem.architecture, method=name):
                self.timed(name, lambda n=name: unlearn_job(self.job(n)))

    def timed(self, name: str, work: Callable[[], Result], note: str = "") -> Result:
        """A job with its rows."""
        device = torch.device(self.problem.device)
        reset_peak(device)
        start = time.time()
        result = work()
        whole = time.time() - start
        if name != "original":
            self.add(name, "impair", result.impair_seconds, "s")
            self.add(name, "repair", result.repair_seconds, "s")
        self.add(name, "total", result.total_seconds, "s", note)
        self.add(name, "job", whole, "s")
        words = "; ".join([*result.warnings, *(f"{k} {v:.3g}" for k, v in result.figures.items())])
        for set_name, logits in result.logits.items():
            share = _accuracy(logits, self.problem.labels[self.sets[set_name]])
            self.add(name, f"{set_name} accuracy", share, "", words if set_name == "forget" else "")
        if (peak := peak_mb(device)) is not None:
            self.add(name, "peak of GPU memory", peak, "MB")
        return result


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy, also of a network that diverged."""
    return accuracy(np.nan_to_num(logits), labels)


class TimedStudy(SeedUnlearning):
    """The study's way, with the seconds of each method's training and evaluation."""

    def run_timed(self, epochs: int, repair: int) -> dict[str, tuple[float, float]]:
        """Per method the seconds of training with its evaluations, and of what comes after it."""
        self.seconds: dict[str, tuple[float, float]] = {}
        self._begin = time.time()
        self.run(epochs, repair)
        return self.seconds

    def _finish(self, method: str, network: nn.Module) -> None:
        trained = time.time()
        super()._finish(method, network)
        self.seconds[method] = trained - self._begin, time.time() - trained
        self._begin = time.time()


def study_beside_ours(settings: Settings, table: Table, threads: int) -> None:
    """The nine methods on the same clips from the same base with the same epochs, in the study's way and in ours.

    Ours: `unlearn_job`s one after the other in this process; then what the study computes and writes of each, by the
    audits. The study's rate of amnesiac's impair step is ten times ours.
    """
    n = min(settings.clips, STUDY_CLIPS if settings.on_gpu and not settings.quick else 60)
    epochs, repair = _epochs(settings)
    seed = Seed.of("VGGish", n, settings, table, epochs, repair)
    seed.trained = seed.train()
    attacks = [build_attack_network().eval() for _ in range(3)]
    features, labels = data.clips(settings, n)
    clips = ClipList([clip.clone() for clip in features], labels.tolist())
    base = study_loop.new_network("VGGish", SEED)
    base.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in seed.trained.state.items()})
    base.to(settings.device)
    folder = settings.folder / f"study-{time.time_ns()}"
    study = TimedStudy(base, {name: clips.part(rows) for name, rows in seed.sets.items()}, attacks, folder, SEED)
    torch.set_num_threads(threads)  # which the jobs have set to one
    start = time.time()
    parts = study.run_timed(epochs, repair)
    whole = {"study": time.time() - start}
    start = time.time()
    ours = _ours(seed, attacks, folder / "ours")
    whole["ours"] = time.time() - start
    with (folder / "results.csv").open(newline="") as stream:
        lines = [line.split(",") for line in stream.read().split()]
    for line in lines:  # method, then accuracy, loss and ece of forget, after them the attack's answer, …
        method, training, after = line[0], *parts[line[0]]
        add = partial(table.add, "nine", network="VGGish", method=method)
        add("study: training, evaluations", training, "s")
        add("study: losses, attack, files", after, "s")
        add("ours: all", ours[method]["seconds"], "s")
        for name, place in (("forget", 1), ("remain", 5), ("test", 8)):
            add(f"study: {name} accuracy", float(line[place]))
            add(f"ours: {name} accuracy", ours[method][name])
    note = f"{n:,} clips, {epochs} epochs of naive, {repair} of repair"
    for way, seconds in whole.items():
        table.add("nine", f"all, {way}", seconds, "s", network="VGGish", note=note)
    table.add("nine", "study / ours", whole["study"] / whole["ours"], "times", network="VGGish")


def _ours(seed: Seed, attacks: list[nn.Module], folder: Path) -> dict[str, dict[str, float]]:
    """Per method the seconds of its job, audits and files, and the accuracies."""
    folder.mkdir(parents=True)
    attack = Attack(tuple(attacks), "loss", {})
    naive: Mapping[str, np.ndarray] | None = None
    found: dict[str, dict[str, float]] = {}
    for name in STUDY:
        start = time.time()
        result = unlearn_job(seed.job(name))
        naive = naive or result.logits
        row: dict[str, Any] = {"method": name}
        for set_name, rows in seed.sets.items():
            logits, labels = result.logits[set_name], seed.problem.labels[rows]
            row |= {f"{set_name}_{key}": value for key, value in performance(logits, labels).items()}
            losses = cross_entropy(logits, labels)
            np.savetxt(folder / f"{name}-{set_name}.csv", losses)
            if set_name == "forget":
                row["mia"] = float(attack.called_nonmember(losses, SEED).mean())
        row |= distances(result.logits["forget"], naive["forget"])
        np.savez(folder / f"{name}.npz", **result.state)
        with (folder / "results.csv").open("a", newline="") as stream:
            csv.DictWriter(stream, row).writerow(row)
        found[name] = {set_name: row[f"{set_name}_accuracy"] for set_name in seed.sets}
        found[name]["seconds"] = time.time() - start
    return found
