"""The run of a method, and everything that a method may use. Half of the methods' contract holds by construction."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audio_mu.config.parsers import FLOAT32, UNWEIGHTED
from audio_mu.errors import UserError
from audio_mu.seeding import derive, generator, seeded
from audio_mu.sharding import on_shard, shards_with, train_base
from audio_mu.training import (
    Batch,
    Examples,
    Objective,
    OptimizerSettings,
    endless_batches,
    fit,
    loss_of,
    predict,
    trained_parameters,
)
from audio_mu.unlearning.registry import METHODS, NO_SHARDS

PUBLISHED_RATE = 0.01
"""The rate of the study's recipe. A rate r of a method's definition means recipe rate · r / 0.01."""


class UndeclaredSet(Exception):
    """A method reached for a set that its registry line does not declare."""


@dataclass(frozen=True)
class Settings:
    """The base recipe and the repair settings. A rate that is None follows the recipe; a given rate is exact."""

    optimizer: OptimizerSettings
    batch_size: int
    n_epochs: int
    n_epoch_impair: int = 1
    n_epoch_repair: int = 5
    impair_learning_rate: float | None = None
    repair_learning_rate: float | None = None
    precision: str = FLOAT32
    class_weights: str = UNWEIGHTED

    @property
    def clips_of_step(self) -> int:
        """Clips that a step of the recipe moves by: those of all its batches."""
        return self.batch_size * self.optimizer.accumulate


@dataclass(frozen=True)
class Unlearned:
    """The unlearned network, seconds of wall and CPU time, and the method's own records.

    `rates`: the learning rates in effect, `impair_learning_rate` and `repair_learning_rate`, of steps that trained.
    """

    network: nn.Module
    impair_seconds: float
    repair_seconds: float
    cpu_seconds: float
    figures: Mapping[str, float]
    curves: Mapping[str, tuple[tuple[int, float], ...]]
    warnings: tuple[str, ...]
    rates: Mapping[str, float]

    @property
    def total_seconds(self) -> float:
        """Everything that the method computed."""
        return self.impair_seconds + self.repair_seconds


class Task:
    """A method's work on a base model: copies, fresh networks, the declared sets, seeded draws and timed training.

    `initialise(seed)` builds a network of the base's architecture as its training starts.
    `checkpoint`, where given, scores a network after each epoch of training from scratch, outside the clock.
    `shard_of`: the shard of every clip, int64 [n], where the base is sharded.
    """

    def __init__(
        self,
        method: str,
        seed: int,
        base: nn.Module,
        initialise: Callable[[int], nn.Module],
        sets: Mapping[str, Examples],
        settings: Settings,
        n_classes: int,
        checkpoint: Callable[[nn.Module], float] | None = None,
        shard_of: Tensor | None = None,
    ) -> None:
        self.seed, self.settings, self.n_classes = seed, settings, n_classes
        self._method = METHODS[method]
        self._base, self._initialise, self._sets = base, initialise, sets
        self._checkpoint, self._shard_of = checkpoint, shard_of
        self._device = next(base.parameters()).device
        self._step = "impair"
        self._repair = self._paused = self._paused_cpu = 0.0
        self.figures: dict[str, float] = {}
        self.curves: dict[str, tuple[tuple[int, float], ...]] = {}
        self.warnings: list[str] = []
        self.rates: dict[str, float] = {}

    def base(self) -> nn.Module:
        """A copy of the base model, to change; what its class freezes is frozen in it."""
        return copy.deepcopy(self._base).eval()

    @cached_property
    def original(self) -> nn.Module:
        """The base model, frozen; it shares no storage with the copies that a method changes."""
        return copy.deepcopy(self._base).requires_grad_(False).eval()

    def fresh(self, purpose: str) -> nn.Module:
        """A network of the same architecture as training starts, never from the base's own initialisation."""
        return self._initialise(derive(self.seed, self._method.name, purpose)).to(self._device).eval()

    def draw(self, purpose: str) -> torch.Generator:
        """A generator (CPU) of this seed, method and purpose."""
        return generator(derive(self.seed, self._method.name, purpose))

    def examples(self, name: str) -> Examples:
        """The forget or the remain set. Raises `UndeclaredSet` where the registry line does not name it."""
        if name not in self._method.reads:
            raise UndeclaredSet(f"{self._method.name} reads {sorted(self._method.reads)}, not {name!r}")
        return self._sets[name]

    @cached_property
    def remain_loss(self) -> Objective:
        """The recipe's loss on the remain set: cross-entropy, with `class_weights=balanced` of the classes in it."""
        return loss_of(self.settings.class_weights, self.examples("remain"))

    @property
    def n_forget(self) -> int:
        """Clips in the forget set."""
        return len(self.examples("forget"))

    def endless(self, name: str, purpose: str) -> Iterator[Batch]:
        """Batches of a declared set of the recipe's size, pass after pass, each in a new order."""
        return endless_batches(self.examples(name), self.settings.batch_size, self.draw(purpose))

    def optimizer(
        self,
        network: nn.Module,
        published_rate: float,
        override: float | None = None,
        *,
        weight_decay: float | None = None,
    ) -> torch.optim.Optimizer:
        """The recipe's optimiser with fresh state; `override` is the user's exact rate, where given."""
        recipe = self.settings.optimizer
        rate = recipe.learning_rate * published_rate / PUBLISHED_RATE if override is None else override
        decay = recipe.weight_decay if weight_decay is None else weight_decay
        return replace(recipe, learning_rate=rate, weight_decay=decay).build(network.parameters())

    def impair(
        self,
        network: nn.Module,
        objective: Objective,
        *,
        published_rate: float = PUBLISHED_RATE,
        epochs: int | None = None,
        **hooks: Any,
    ) -> nn.Module:
        """Train on the forget set, for the impair epochs unless told; the clock books it as impairing."""
        epochs = self.settings.n_epoch_impair if epochs is None else epochs
        optimizer = self.optimizer(network, published_rate, self.settings.impair_learning_rate)
        return self.fit(network, "forget", objective, epochs=epochs, optimizer=optimizer, purpose="impair", **hooks)

    def repair(
        self,
        network: nn.Module,
        objective: Objective | None = None,
        *,
        published_rate: float = PUBLISHED_RATE,
        epochs: int | None = None,
        **hooks: Any,
    ) -> nn.Module:
        """Train on the remain set, for the repair epochs and with `remain_loss` unless told; booked as repairing."""
        epochs, objective = self.settings.n_epoch_repair if epochs is None else epochs, objective or self.remain_loss
        with self.repairing():
            optimizer = self.optimizer(network, published_rate, self.settings.repair_learning_rate)
            return self.fit(network, "remain", objective, epochs=epochs, optimizer=optimizer, purpose="repair", **hooks)

    def fit(
        self,
        network: nn.Module,
        clips: str | Examples,
        objective: Objective,
        *,
        epochs: int,
        optimizer: torch.optim.Optimizer,
        purpose: str,
        batch_size: int | None = None,
        **hooks: Any,
    ) -> nn.Module:
        """Train `network` in place on a declared set or on clips of one; see `audio_mu.training.fit` for the hooks.

        A `batch_size` of the method's own is that of its steps: the recipe's `accumulate` goes with the recipe's.
        """
        if epochs and "lr" in optimizer.defaults:  # the rate before any schedule
            self.rates[f"{self._step}_learning_rate"] = float(optimizer.defaults["lr"])
        fit(
            network,
            self.examples(clips) if isinstance(clips, str) else clips,
            optimizer,
            epochs=epochs,
            batch_size=batch_size or self.settings.batch_size,
            seed=derive(self.seed, self._method.name, purpose),
            accumulate=1 if batch_size else self.settings.optimizer.accumulate,
            precision=self.settings.precision,
            objective=objective,
            **hooks,
        )
        return network

    def logits(self, network: nn.Module, clips: str | Examples) -> Tensor:
        """Logits [n, classes] of a network on a declared set or on clips of one, in order, without gradient."""
        examples = self.examples(clips) if isinstance(clips, str) else clips
        return torch.from_numpy(predict(network, examples.features, examples.indices)).to(self._device)

    def clips_on_shards(self, name: str) -> dict[int, int]:
        """Shard → clips of a declared set on it, of the shards that have any; empty without shards."""
        if (shard_of := self._shard_of) is None:
            return {}
        own = self.examples(name)
        return {shard: len(on_shard(own, shard_of, shard)) for shard in shards_with(own, shard_of)}

    def retrain(self, name: str, shards: Collection[int] | None = None) -> nn.Module:
        """A network trained on a declared set from the base's own initialisation, exactly as the base was.

        Of some `shards` alone, where they are given: the others' networks are the base's, and none of the set's
        recordings on them is read.
        """
        checkpoint = None if self._checkpoint is None else self._outside_the_clock(self._checkpoint)
        with self.repairing():
            return train_base(
                self._initialise,
                self.examples(name),
                self.settings.optimizer,
                epochs=self.settings.n_epochs,
                batch_size=self.settings.batch_size,
                seed=self.seed,
                precision=self.settings.precision,
                class_weights=self.settings.class_weights,
                checkpoint=checkpoint,
                shard_of=self._shard_of,
                base=self._base,
                only=shards,
            )

    @contextmanager
    def repairing(self) -> Iterator[None]:
        """Book the block's time as repairing; everything else of a method counts as impairing."""
        start, paused = self._now(), self._paused
        self._step = "repair"
        try:
            yield
        finally:
            self._step = "impair"
            self._repair += self._now() - start - (self._paused - paused)

    def _outside_the_clock(self, function: Callable[[nn.Module], float]) -> Callable[[nn.Module], float]:
        def paused(network: nn.Module) -> float:
            start, start_cpu = self._now(), time.process_time()
            try:
                return function(network)
            finally:
                self._paused += self._now() - start
                self._paused_cpu += time.process_time() - start_cpu

        return paused

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def run(self, hyper_parameters: Mapping[str, Any]) -> Unlearned:
        """Run the method once, with every global draw seeded and the clock around all of it."""
        with seeded(derive(self.seed, self._method.name)):
            start, start_cpu = self._now(), time.process_time()
            network = self._method.scrub(self, **hyper_parameters)
            if not isinstance(network, nn.Module):
                raise UserError(f"{self._method.name} gives back {network!r:.80}: it must return the network")
            total = self._now() - start - self._paused
            cpu = time.process_time() - start_cpu - self._paused_cpu
        return Unlearned(
            network=network.eval(),
            impair_seconds=total - self._repair,
            repair_seconds=self._repair,
            cpu_seconds=cpu,
            figures=dict(self.figures),
            curves=dict(self.curves),
            warnings=tuple(self.warnings),
            rates=dict(self.rates),
        )


def run_method(
    name: str,
    seed: int,
    base: nn.Module,
    initialise: Callable[[int], nn.Module],
    sets: Mapping[str, Examples],
    settings: Settings,
    n_classes: int,
    *,
    request: str,
    hyper_parameters: Mapping[str, Any] | None = None,
    checkpoint: Callable[[nn.Module], float] | None = None,
    shard_of: Tensor | None = None,
) -> Unlearned:
    """Unlearn with a registered method. The base model is left as it was.

    Raises `UserError`, before anything is trained, for an unknown method, hyper-parameter, or an unsupported kind
    of request.
    """
    if name not in METHODS:
        raise UserError(f"method {name!r} is not known: choose {', '.join(METHODS)}")
    method = METHODS[name]
    if method.of_shards and shard_of is None:
        raise UserError(f"{name} {NO_SHARDS}")
    if request not in method.requests:
        raise UserError(f"{name} does not support forget={request!r}, only {', '.join(sorted(method.requests))}")
    given = dict(hyper_parameters or {})
    unknown = sorted(set(given) - set(method.hyper_parameters))
    if unknown:
        raise UserError(f"{name} has no hyper-parameter {unknown}: it has {sorted(method.hyper_parameters)}")
    task = Task(name, seed, base, initialise, sets, settings, n_classes, checkpoint, shard_of)
    return task.run({**method.hyper_parameters, **given})


def flat_parameters(network: nn.Module) -> np.ndarray:
    """All parameters that are not frozen as one float32 vector, in the order of `network.parameters()`."""
    return torch.cat([p.detach().cpu().reshape(-1) for p in trained_parameters(network)]).numpy()
