"""Jobs of worker processes: to train a base model, or to run a method on a base model."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from audio_mu.audit.deeper import deep_figures
from audio_mu.audit.robust import PLAIN
from audio_mu.config.parsers import FLOAT32, UNWEIGHTED
from audio_mu.data.altered import Altered
from audio_mu.errors import UserError
from audio_mu.models import AudioClassifier, build
from audio_mu.own_code import is_own, is_reference, load, name_of, own_code
from audio_mu.progress import say
from audio_mu.seeding import seeded, settings_kept
from audio_mu.training import Examples, OptimizerSettings, fit, pick_device, predict, train_from_scratch
from audio_mu.unlearning import Settings, own_method, run_method

NAME = re.compile(r"[A-Za-z0-9_.: -]+(/[A-Za-z0-9_.: -]+)*")
QUIET_SECONDS = 20.0  # a longer training than this says how far it is


def make_network(architecture: str, shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """A new network of the package, or the user's own: a class called with (n_classes, input_shape).

    `shape`: of a clip's features behind their one channel, which is `input_shape` = (frequencies, frames); of waveforms
    (samples,), and `input_shape` = (1, samples). Weights are drawn from torch's global generator. Float32 [batch, 1,
    *shape] → logits [batch, n_classes]. The package's networks are in the memory format that convolutions are fastest
    in; in it others' `view` may fail.
    """
    if is_reference(architecture):
        given = (n_classes, (1, *shape) if len(shape) == 1 else shape)
        where = f"architecture={architecture!r}, called as {name_of(architecture)}{given},"
        with settings_kept(), own_code(lambda about: f"{where} fails ({about}): mend it"):
            network: nn.Module = load(architecture)(*given)
        return network
    network = build(architecture, (shape[0], shape[1]), n_classes)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


def at_start(network: nn.Module, architecture: str, seed: int) -> nn.Module:
    """What training starts from: the network as it was made, or as the `start(seed)` of the user's own class leaves it.

    Raises `UserError` where `start` fails, or changes more than numbers: shapes, names, what is frozen.
    """
    if not is_reference(architecture) or not callable(getattr(type(network), "start", None)):
        return network
    where, before = f"architecture={architecture!r}", _form(network)
    with settings_kept(), own_code(lambda about: f"{where}: start({seed}) fails ({about}): mend it"):
        cast(Any, network).start(seed)
    after = _form(network)
    if other := [name for name in {**before, **after} if before.get(name) != after.get(name)]:
        raise UserError(
            f"{where}: start({seed}) makes another network, in {other[0]!r}: it may change numbers alone; freeze in "
            "the class's __init__"
        )
    return network


def _form(network: nn.Module) -> dict[str, Any]:
    """Names with shapes and types of all weights, and which of them train."""
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {n: (v.shape, v.dtype, n in trained) for n, v in network.state_dict().items()}


@dataclass(frozen=True)
class Problem:
    """The data, the network and the machine, which all jobs of a command share.

    `features`: float32 [n, 1, frequencies, frames] or [n, 1, samples], as the file to map, which is cheap to send to a
    process of this machine, or, on another machine, as the array itself.
    """

    features: Path | np.ndarray
    labels: np.ndarray
    architecture: str
    n_classes: int
    device: str
    threads: int

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(features, labels) on the device; sets this process's threads."""
        torch.set_num_threads(self.threads)
        device = pick_device(self.device)
        return torch.from_numpy(self._mapped()).to(device), torch.from_numpy(self.labels).to(device)

    def _mapped(self) -> np.ndarray:
        """Copy-on-write, because torch wants writable memory."""
        return self.features if isinstance(self.features, np.ndarray) else np.load(self.features, mmap_mode="c")

    def network(self, seed: int) -> nn.Module:
        """A network to be filled, its weights drawn from the seed."""
        with seeded(seed):
            return self._drawn()

    def filled(self, seed: int, state: Mapping[str, np.ndarray]) -> nn.Module:
        """A network of these weights on the CPU; what it has beside them is drawn from the seed."""
        network = self.network(seed)
        network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
        return network.eval()

    def initialise(self, seed: int) -> nn.Module:
        """A network as its training starts: weights drawn from the seed, or what the class's own `start` gives it."""
        with seeded(seed):
            return at_start(self._drawn(), self.architecture, seed)

    def _drawn(self) -> nn.Module:
        return make_network(self.architecture, self._mapped().shape[2:], self.n_classes)


@dataclass(frozen=True)
class TrainJob:
    """Train a base model and evaluate `sets`. `best_on`: the set that chooses the checkpoint; None keeps the last."""

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
def warm_up(architecture: str, shape: tuple[int, ...], n_classes: int, batch_size: int, optimizer: OptimizerSettings,
            precision: str, device: torch.device) -> None:  # fmt: skip
    """Take the first step of this process with such a network, on noise, so that no method's clock has it.

    The libraries choose their kernels and the system gives memory in it. It would be naive's, the first job of a
    worker, and every speed-up is measured against naive.
    """
    with seeded(0):
        network = make_network(architecture, shape, n_classes).to(device)
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
        losses.append((epoch, loss))
        if time.monotonic() - told > QUIET_SECONDS:
            told = time.monotonic()
            say(f"  seed {job.seed}: epoch {epoch + 1} of {job.n_epochs}, training loss {loss:.3f}")

    start, start_cpu = time.perf_counter(), time.process_time()
    network = train_from_scratch(
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
    shape, size = tuple(features.shape[2:]), job.settings.batch_size
    optimizer, precision = job.settings.optimizer, job.settings.precision
    with suppress(Exception):  # what cannot take a step is told by the method that takes one
        warm_up(job.problem.architecture, shape, job.problem.n_classes, size, optimizer, precision, features.device)
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
