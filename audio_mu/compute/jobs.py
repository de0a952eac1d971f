"""Jobs of worker processes: to train a base model, or to run a method on a base model."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from audio_mu.audit.deeper import deep_figures
from audio_mu.audit.robust import PLAIN
from audio_mu.compute.problem import Problem, make_network
from audio_mu.config.parsers import FLOAT32, UNWEIGHTED
from audio_mu.data.altered import Altered
from audio_mu.errors import UserError
from audio_mu.models import AudioClassifier
from audio_mu.own_code import is_own
from audio_mu.progress import say
from audio_mu.seeding import seeded
from audio_mu.sharding import train_base
from audio_mu.training import Examples, OptimizerSettings, fit, predict
from audio_mu.unlearning import Settings, own_method, run_method

NAME = re.compile(r"[A-Za-z0-9_.: -]+(/[A-Za-z0-9_.: -]+)*")
QUIET_SECONDS = 20.0  # a longer training than this says how far it is


@dataclass(frozen=True)
class TrainJob:
    """Train a base model and evaluate `sets`. `best_on`: the set that chooses the checkpoint; None keeps the last.

    `shard_of`: the shard of every clip, int64 [n], where there are shards.
    """

    problem: Problem
    seed: int
    train: np.ndarray
    sets: Mapping[str, np.ndarray]
    optimizer: OptimizerSettings
    batch_size: int
    n_epochs: int
    best_on: str | None
    precision: str = FLOAT32
    class_weights: str = UNWEIGHTED
    shard_of: np.ndarray | None = None

    @property
    def runs_own_code(self) -> bool:
        """Whether the network is the user's own."""
        return is_own(self.problem.architecture)


@dataclass(frozen=True)
class UnlearnJob:
    """Run a method on a base model and evaluate `sets`. `reference`: the `place:name` of a method of the user's own."""

    problem: Problem
    seed: int
    method: str
    request: str
    base_state: Mapping[str, np.ndarray]
    sets: Mapping[str, np.ndarray]
    settings: Settings
    hyper_parameters: Mapping[str, Any]
    best_on: str | None
    deep_audits: bool = False
    altered: Altered = Altered()
    reference: str = ""
    shard_of: np.ndarray | None = None

    @property
    def runs_own_code(self) -> bool:
        """Whether the network or the method is the user's own."""
        return is_own(self.problem.architecture) or is_own(self.reference)


@dataclass(frozen=True)
class Result:
    """Weights, logits per set, times, and the figures that the job recorded."""

    state: Mapping[str, np.ndarray]
    logits: Mapping[str, np.ndarray]
    impair_seconds: float
    repair_seconds: float
    cpu_seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    altered: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of copies, see `altered_logits`."""

    @property
    def total_seconds(self) -> float:
        """Wall seconds of the training or of everything that the method computed."""
        return self.impair_seconds + self.repair_seconds

    @property
    def seconds(self) -> dict[str, float]:
        """The times under the names of the store."""
        return {
            "time/impair_s": self.impair_seconds,
            "time/repair_s": self.repair_seconds,
            "time/total_s": self.total_seconds,
            "time/cpu_s": self.cpu_seconds,
        }


def _state(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().contiguous().numpy() for name, value in network.state_dict().items()}


def _accuracy_on(problem: Problem, features: torch.Tensor, indices: np.ndarray) -> Callable[[nn.Module], float]:
    def accuracy(network: nn.Module) -> float:
        return float((predict(network, features, indices).argmax(axis=1) == problem.labels[indices]).mean())

    return accuracy


@cache
def warm_up(architecture: str, shape: tuple[int, ...], n_classes: int, shards: int, batch_size: int,
            optimizer: OptimizerSettings, precision: str, device: torch.device) -> None:  # fmt: skip
    """Take the first step of this process with such a network, on noise, so that no method's clock has it.

    The libraries choose their kernels and the system gives memory in it. It would be naive's, the first job of a
    worker, and every speed-up is measured against naive.
    """
    with seeded(0):
        network = make_network(architecture, shape, n_classes, shards).to(device)
        noise, labels = torch.rand(batch_size, 1, *shape), torch.arange(batch_size) % n_classes
        examples = Examples(noise.to(device), labels.to(device), torch.arange(batch_size, device=device))
        moved = optimizer.build(network.parameters())
        fit(network, examples, moved, epochs=1, batch_size=batch_size, seed=0, precision=precision)


def train_job(job: TrainJob) -> Result:
    """Train a base model from its seed, then compute its logits on every set."""
    features, labels = job.problem.tensors()
    losses: list[tuple[int, float]] = []
    told = time.monotonic()

    def after_epoch(epoch: int, loss: float) -> None:
        nonlocal told
        losses.append((len(losses), loss))  # of shards one after another
        if time.monotonic() - told > QUIET_SECONDS:
            told = time.monotonic()
            say(f"  seed {job.seed}: epoch {epoch + 1} of {job.n_epochs}, training loss {loss:.3f}")

    start, start_cpu = time.perf_counter(), time.process_time()
    network = train_base(
        job.problem.initialise,
        Examples(features, labels, torch.from_numpy(job.train).to(features.device)),
        job.optimizer,
        epochs=job.n_epochs,
        batch_size=job.batch_size,
        seed=job.seed,
        precision=job.precision,
        class_weights=job.class_weights,
        checkpoint=None if job.best_on is None else _accuracy_on(job.problem, features, job.sets[job.best_on]),
        after_epoch=after_epoch,
        shard_of=job.problem.shards_of(job.shard_of),
    )
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return Result(
        state=_state(network),
        logits={name: predict(network, features, indices) for name, indices in job.sets.items()},
        impair_seconds=0.0,
        repair_seconds=seconds,
        cpu_seconds=cpu_seconds,
        curves={"epoch/train_loss": tuple(losses)},
    )


def answers_to(problem: Problem, seed: int, state: Mapping[str, np.ndarray], altered: Altered) -> dict[str, np.ndarray]:
    """What a network of given weights answers to altered copies, see `altered_logits`."""
    if not altered.copies:
        return {}
    features, _ = problem.tensors()
    return altered_logits(problem.filled(seed, state).to(features.device), features, altered)


def reference_job(job: TrainJob) -> Result:
    """Train a reference model: its weights stay behind, none are kept."""
    return replace(train_job(job), state={})


def evaluate(problem: Problem, seed: int, state: Mapping[str, np.ndarray], sets: Mapping[str, np.ndarray]) -> Result:
    """The logits of given weights on every set, as of a trained base model."""
    features, _ = problem.tensors()
    network = problem.filled(seed, state).to(features.device)
    logits = {name: predict(network, features, indices) for name, indices in sets.items()}
    return Result(state, logits, 0.0, 0.0, 0.0)


def altered_logits(network: nn.Module, features: torch.Tensor, altered: Altered) -> dict[str, np.ndarray]:
    """Name of an alteration → logits [n, classes] of the copies, with those of the clips themselves; empty without."""
    if not altered.copies:
        return {}
    every = np.arange(len(altered.rows))
    copies = {name: torch.from_numpy(found).to(features.device) for name, found in altered.copies.items()}
    own = {PLAIN: predict(network, features, altered.rows)}
    return own | {name: predict(network, found, every) for name, found in copies.items()}


def unlearn_job(job: UnlearnJob) -> Result:
    """Run a method, then compute the unlearned network's logits on every set."""
    if job.reference:
        own_method(job.reference)
    features, labels = job.problem.tensors()
    base = job.problem.filled(job.seed, job.base_state).to(features.device)
    made = job.problem.architecture, tuple(features.shape[2:]), job.problem.n_classes, job.problem.shards
    size, optimizer, precision = job.settings.batch_size, job.settings.optimizer, job.settings.precision
    with suppress(Exception):  # what cannot take a step is told by the method that takes one
        warm_up(*made, size, optimizer, precision, features.device)
    sets = {
        name: Examples(features, labels, torch.from_numpy(job.sets[name]).to(features.device))
        for name in ("forget", "remain")
    }
    unlearned = run_method(
        job.method,
        job.seed,
        base,
        job.problem.initialise,
        sets,
        job.settings,
        job.problem.n_classes,
        request=job.request,
        hyper_parameters=job.hyper_parameters,
        checkpoint=None if job.best_on is None else _accuracy_on(job.problem, features, job.sets[job.best_on]),
        shard_of=job.problem.shards_of(job.shard_of),
    )
    _refuse_another(job.method, unlearned.network, base)
    deep: Mapping[str, float] = {}
    if job.deep_audits:  # after the method, outside its clock
        network = cast(AudioClassifier, unlearned.network)  # of others, deep audits are refused beforehand
        deep = deep_figures(network, base, sets["forget"], sets["remain"], optimizer, batch_size=size, seed=job.seed)
    return Result(
        state=_state(unlearned.network),
        logits={name: predict(unlearned.network, features, indices) for name, indices in job.sets.items()},
        impair_seconds=unlearned.impair_seconds,
        repair_seconds=unlearned.repair_seconds,
        cpu_seconds=unlearned.cpu_seconds,
        figures={_name(name): float(value) for name, value in {**unlearned.figures, **deep}.items()},
        curves={_name(key): tuple((int(s), float(v)) for s, v in points) for key, points in unlearned.curves.items()},
        warnings=tuple(map(str, unlearned.warnings)),
        rates=unlearned.rates,
        altered=altered_logits(unlearned.network, features, job.altered),
    )


def _refuse_another(method: str, network: nn.Module, base: nn.Module) -> None:
    own, given = ({name: value.shape for name, value in n.state_dict().items()} for n in (network, base))
    if own != given:
        raise UserError(
            f"{method} gives back a network of other weights than the base's: return one of task's networks"
        )


def _name(name: str) -> str:
    """The name of what a method has recorded. Raises `UserError` where the store takes none such."""
    if not NAME.fullmatch(name):
        raise UserError(f"a method records {name!r:.80}: give a name of letters, digits, and _ - . : /")
    return name
