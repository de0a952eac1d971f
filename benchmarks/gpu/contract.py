"""The contract of a method, held by every method of the registry, on the tests' small problem moved to the device."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.training import Examples, predict
from audio_mu.unlearning import METHODS, run_method
from benchmarks.gpu.measuring import flat
from benchmarks.gpu.numerics import equal_runs
from benchmarks.gpu.table import SKIPPED, Clock, Settings, Table
from tests.unlearning.small_problem import N_CLASSES, Problem, same, trained, weights

Promise = Callable[[str, bool], None]

REPLACING = ("naive", "eu_k", "msg", "ssd")
"""Methods that change weights by other means than steps and pruning: rates of 0 do not make them the identity."""
WITHOUT_DRAWS = ("ssd",)
TUNED: dict[str, dict[str, Any]] = {
    "scrub": {"learning_rate": 0.01},
    "bad_teacher": {"learning_rate": 0.003},
    "delete": {"learning_rate": 0.01},
}
"""The tests' rates for methods whose published ones hardly move a base that fits its clips as well as this one."""


def contract(settings: Settings, table: Table, clock: Clock) -> None:
    """One row for each method: 1 where it keeps every promise, else which ones it breaks."""
    problem = OnDevice(trained(), settings.device)
    table.add("contract", "loss of the base on the forget set", problem.loss(problem.base, problem.home.forget), "nats")
    longest = 0.0
    for name in sorted(METHODS):
        before = clock.left
        if before < 1.5 * longest:
            table.add("contract", "contract", SKIPPED, method=name, note="no time is left")
            continue
        with table.attempt("contract", "contract", method=name):
            _hold(name, problem, table, few=settings.quick)
        longest = max(longest, before - clock.left)


@dataclass(frozen=True)
class OnDevice:
    """The tests' problem with its base model and clips on a device."""

    home: Problem
    device: str

    @cached_property
    def base(self) -> nn.Module:
        return copy.deepcopy(self.home.base).to(self.device)

    @cached_property
    def features(self) -> Tensor:
        return self.home.features.to(self.device)

    @cached_property
    def labels(self) -> Tensor:
        return self.home.labels.to(self.device)

    @cached_property
    def sets(self) -> dict[str, Examples]:
        return {
            name: Examples(self.features, self.labels, examples.indices.to(self.device))
            for name, examples in self.home.sets.items()
        }

    def changed(self, **values: Any) -> OnDevice:
        """The same under other settings."""
        return OnDevice(self.home.changed(**values), self.device)

    def run(self, name: str, seed: int = 40, hyper_parameters: dict[str, Any] | None = None) -> Any:
        """Unlearn."""
        return run_method(
            name, seed, self.base, self.home.initialise, self.sets, self.home.settings, N_CLASSES,
            request="item", hyper_parameters=hyper_parameters,
        )  # fmt: skip

    def loss(self, network: nn.Module, rows: Tensor) -> float:
        """Mean cross-entropy."""
        logits = torch.from_numpy(predict(network, self.features, rows))
        return float(functional.cross_entropy(logits, self.home.labels[rows]))

    def test_accuracy(self, network: nn.Module) -> float:
        """Share of the test clips that are answered rightly."""
        answers = predict(network, self.features, self.home.test).argmax(1)
        return float((answers == self.home.labels[self.home.test].numpy()).mean())


def _hold(name: str, problem: OnDevice, table: Table, few: bool) -> None:
    broken: list[str] = []

    def promise(words: str, holds: bool) -> None:
        if not holds:
            broken.append(words)

    base_before, inputs_before, globals_before = weights(problem.base), problem.features.clone(), _global_state()
    outcome = problem.run(name)
    result = weights(outcome.network)
    promise("global state is left as it was", globals_before == _global_state())
    promise("the base is left as it was", same(base_before, weights(problem.base)))
    promise("the clips are left as they were", torch.equal(inputs_before, problem.features))
    storages = [
        {value.untyped_storage().data_ptr() for value in network.state_dict().values()}
        for network in (problem.base, outcome.network)
    ]
    promise("the result shares no memory with the base", not storages[0] & storages[1])
    promise("the result is ready to use", not any(module.training for module in outcome.network.modules()))
    promise("weights are finite", all(value.isfinite().all() for value in result.values()))
    promise("weights stay where they were", all(value.device == problem.features.device for value in result.values()))
    promise("times are positive", outcome.total_seconds > 0 and outcome.impair_seconds > -1e-3)
    if not few:
        _draws(name, problem, outcome.network, table, promise)
    _rates_of_zero(name, problem, outcome.figures, promise)
    if METHODS[name].raises_forget_loss:
        forget, still = problem.home.forget, problem.changed(n_epoch_impair=3, n_epoch_repair=0)
        before = problem.loss(problem.base, forget)
        after = problem.loss(still.run(name, hyper_parameters=TUNED.get(name)).network, forget)
        promise(
            f"the loss on the forget set rises ({before:.3f} to {after:.3f})", after >= min(2 * before, before + 0.05)
        )
    # What dampening takes for small is a share, and 12 of these 64 clips are many.
    for n_forget in (1,) if few or name == "ssd" else (1, 12):
        small = OnDevice(problem.home.forgetting(list(range(n_forget))), problem.device)
        accuracy = small.test_accuracy(small.run(name).network)
        least = problem.test_accuracy(problem.base) - 0.1
        promise(f"a request of {n_forget} leaves the model whole (test {accuracy:.2f})", accuracy >= least)
    table.check("contract", "contract", not broken, method=name, note="; ".join(broken))


def _draws(name: str, problem: OnDevice, network: nn.Module, table: Table, promise: Promise) -> None:
    """Equal seeds, other seeds, and clips that a method may not look at (they are NaN in the second run)."""
    again = problem.run(name).network
    one, two, start = (flat(n.parameters()) for n in (network, again, problem.base))
    far = float((one - two).norm() / max(float((one - start).norm()), 1e-12))
    table.add("contract", "two equal runs apart, relative, torch's default", far, method=name)
    unread = {"forget", "remain"} - METHODS[name].reads
    poisoned = OnDevice(problem.home.poisoned(unread=unread), problem.device)
    with equal_runs(lambda: problem.run(name)) as nondeterministic:
        runs = [weights(p.run(name).network) for p in (problem, poisoned)]
        other = weights(problem.run(name, seed=41).network)
    words = f"equal seeds give equal weights and unread clips do not matter {nondeterministic}".strip()
    promise(words, same(*runs))
    promise("another seed gives other weights", same(runs[0], other) == (name in WITHOUT_DRAWS))


def _rates_of_zero(name: str, problem: OnDevice, figures: dict[str, float], promise: Promise) -> None:
    still = problem.changed(impair_learning_rate=0.0, repair_learning_rate=0.0)
    if "prune_rate" in figures:
        before, after = (flat(n.parameters()) for n in (problem.base, still.run(name).network))
        k = round(figures["prune_rate"] * len(before))
        kept = torch.ones(len(before), dtype=torch.bool)
        kept[before.abs().sort(stable=True).indices[:k]] = False
        promise("pruning leaves the larger weights alone", torch.equal(before[kept], after[kept]))
        promise("pruning changes the smallest", int((before != after).sum()) >= 0.99 * k)
    elif name not in REPLACING:
        promise("rates of 0 change nothing", same(weights(still.run(name).network), weights(problem.base)))


def _global_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_available() else b""
    return (
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), cuda,
        torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.is_autocast_enabled("cuda"), torch.get_rng_state().numpy().tobytes(), random.getstate(),
        np.random.get_state()[1].tobytes(),
    )  # fmt: skip
