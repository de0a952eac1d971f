"""The contract of a method, held by every registered method: each test's docstring says which defect it catches."""

from __future__ import annotations

import dataclasses
import inspect
import random
import time
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audio_mu.config import REPAIR_FIELDS
from audio_mu.config.parsers import ARCHITECTURES
from audio_mu.errors import UserError
from audio_mu.models.sharded import members
from audio_mu.unlearning import METHODS, Settings, Task, UndeclaredSet, Unlearned, choose
from audio_mu.unlearning.registry import REQUESTS
from tests.unlearning.small_problem import (
    ENCODER,
    FROZEN,
    NORMALISED,
    OF_WAVEFORMS,
    RECIPE,
    SHARDED,
    STUDY_SHAPE,
    Problem,
    same,
    small_problem,
    trained,
    weights,
)

every_method = pytest.mark.parametrize("name", sorted(METHODS))
every_whole_network = pytest.mark.parametrize("network", [None, NORMALISED, FROZEN])
every_network = pytest.mark.parametrize("network", [None, NORMALISED, FROZEN, SHARDED])

PRUNING = {"omp", "cosine", "pop", "orthogonal", "cosine_thesis", "pop_thesis"}
REPLACING = PRUNING | {"naive", "exact_shards", "eu_k", "fast_retrain", "msg", "ssd"}
"""Methods that change weights by other means than gradient steps, so that rates of 0 do not make them the identity."""
WITHOUT_DRAWS = {"ssd"}
"""Methods that draw nothing: every seed gives the same weights."""
UNBOUNDED = {"neggrad_plus"}
"""Climbs the loss of one clip in each of its steps; a network of normalised batches does not hold it (methods.md)."""
TUNED: dict[str, dict[str, Any]] = {
    "scrub": {"learning_rate": 0.01},
    "bad_teacher": {"learning_rate": 0.003},
    "delete": {"learning_rate": 0.01},
}
"""Rates for methods whose published ones hardly move a base that fits its clips as well as this one."""


def problem_of(name: str, network: str | None = None) -> Problem:
    """What a method is tried on: two shards of the network, where it works on shards alone."""
    shards = 2 if network == SHARDED or METHODS[name].of_shards else 1
    return trained(None if network == SHARDED else network, shards)


@cache
def trained_on_more() -> Problem:
    return small_problem(n_train=240, settings=dataclasses.replace(RECIPE, n_epochs=8))


@cache
def untrained(architecture: str, shards: int = 1) -> Problem:
    settings = dataclasses.replace(RECIPE, n_epochs=0, batch_size=8, n_epoch_repair=1)
    shape = (1_600,) if architecture in (OF_WAVEFORMS, ENCODER) else STUDY_SHAPE
    return small_problem(architecture, shape=shape, n_train=24, settings=settings, shards=shards)


def global_state() -> tuple[Any, ...]:
    """What a method must leave as it found it, in a form that can be compared."""
    return (
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes(),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Observed:
    """One run of a method, and the world before and after it."""

    outcome: Unlearned
    result: dict[str, Tensor]
    base_before: dict[str, Tensor]
    base_after: dict[str, Tensor]
    inputs_unchanged: bool
    globals_before: tuple[Any, ...]
    globals_after: tuple[Any, ...]
    elapsed: float


@cache
def observed(name: str, network: str | None = None) -> Observed:
    problem = problem_of(name, network)
    base_before, globals_before = weights(problem.base), global_state()
    features, labels, forget = problem.features.clone(), problem.labels.clone(), problem.forget.clone()
    start = time.perf_counter()
    outcome = problem.run(name)
    elapsed = time.perf_counter() - start
    inputs_unchanged = all(
        torch.equal(now, before)
        for now, before in [(problem.features, features), (problem.labels, labels), (problem.forget, forget)]
    )
    return Observed(
        outcome, weights(outcome.network), base_before, weights(problem.base),
        inputs_unchanged, globals_before, global_state(), elapsed,
    )  # fmt: skip


def storages(network: nn.Module) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in network.state_dict().values()}


def frozen_in(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


@every_network
@every_method
def test_base_and_inputs_are_left_as_they_were(name: str, network: str | None) -> None:
    """Catches a method that trains the base, or hands it out, and one that relabels the shared label tensor."""
    problem, run = problem_of(name, network), observed(name, network)
    assert same(run.base_before, run.base_after)
    assert not storages(problem.base) & storages(run.outcome.network)
    assert all(p.grad is None for p in problem.base.parameters())
    assert frozen_in(problem.base) == frozen_in(problem.initialise(40))
    assert run.inputs_unchanged


@every_network
@every_method
def test_network_is_complete_and_ready_to_use(name: str, network: str | None) -> None:
    """Catches a network left in train mode or frozen otherwise, lost entries, and values that are not finite."""
    found, base = observed(name, network).outcome.network, problem_of(name, network).base
    assert not any(module.training for module in found.modules())
    assert frozen_in(found) == frozen_in(base)
    assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in base.state_dict().items()}
    assert all(value.isfinite().all() for value in found.state_dict().values())


@every_method
def test_frozen_parameters_stay_bit_for_bit(name: str) -> None:
    """Catches pruning, regrowth, masks, dampening, penalties, retraining and fresh layers that move what is frozen."""
    problem, run = problem_of(name, FROZEN), observed(name, FROZEN)
    frozen = frozen_in(problem.base)
    assert len(frozen) == 5 * len(members(problem.base))
    assert all(torch.equal(run.result[key], run.base_before[key]) for key in frozen)
    trains = run.result.keys() - frozen
    assert any(not torch.equal(run.result[key], run.base_before[key]) for key in trains if key.endswith("weight"))


@pytest.mark.parametrize("name", ["cf_k", "neggrad_plus", "ssd"])
def test_statistics_of_batches_rest_where_a_method_says_so(name: str) -> None:
    """Catches normalisation by batches of clips to forget, and front layers that go on learning."""
    run = observed(name, NORMALISED)
    moved = {key for key in run.result if "running" in key and not torch.equal(run.result[key], run.base_before[key])}
    assert moved == ({"layers.8.running_mean", "layers.8.running_var"} if name == "cf_k" else set())


@every_method
def test_single_clips_are_forgotten_by_the_statistics_that_there_are(name: str) -> None:
    """Catches a step that normalises one clip, which torch refuses, and a last batch of one.

    Mean over requests: a step of training alone moves this network's accuracy by 8 of the 80 clips.
    """
    problem, accuracies = problem_of(name, NORMALISED), []
    for clip in (0, 3, 10, 20, 33):
        network = problem.forgetting([clip]).run(name).network
        assert all(value.isfinite().all() for value in network.state_dict().values())
        accuracies.append(problem.test_accuracy(network))
    if name not in UNBOUNDED:
        assert np.mean(accuracies) >= problem.test_accuracy(problem.base) - 0.1


@every_network
@every_method
def test_same_seed_gives_same_weights_and_unread_clips_do_not_matter(name: str, network: str | None) -> None:
    """Catches draws outside the seed, and any look at test clips or at a set that is not declared (they are NaN)."""
    unread = {"forget", "remain"} - METHODS[name].reads
    torch.manual_seed(99)
    again = problem_of(name, network).poisoned(unread=unread).run(name)
    assert same(observed(name, network).result, weights(again.network))


@every_network
@every_method
def test_another_seed_gives_other_weights(name: str, network: str | None) -> None:
    """Catches a fixed seed inside a method."""
    other = weights(problem_of(name, network).run(name, seed=41).network)
    assert same(observed(name, network).result, other) == (name in WITHOUT_DRAWS)


@every_method
def test_global_state_is_untouched(name: str) -> None:
    """Catches torch.manual_seed, set_default_dtype, set_grad_enabled and the like without restoring."""
    run = observed(name)
    for before, after in zip(run.globals_before, run.globals_after, strict=True):
        assert before == after


@every_method
def test_times_add_up_and_lie_inside_the_call(name: str) -> None:
    """Catches phases booked twice or not at all."""
    run = observed(name)
    outcome = run.outcome
    assert outcome.impair_seconds >= 0 and outcome.repair_seconds >= 0 and outcome.cpu_seconds > 0
    assert 0 < outcome.impair_seconds + outcome.repair_seconds <= run.elapsed
    assert outcome.total_seconds > 0.5 * run.elapsed


@every_network
@pytest.mark.parametrize("name", sorted(set(METHODS) - REPLACING))
def test_rates_of_zero_change_nothing(name: str, network: str | None) -> None:
    """Catches weights that move by other means than the optimiser's rate, statistics of batches excepted."""
    still = problem_of(name, network).changed(impair_learning_rate=0.0, repair_learning_rate=0.0)
    found = still.run(name).network
    assert same(dict(found.named_parameters()), dict(still.base.named_parameters()))
    assert network is not None or same(weights(found), weights(still.base))


@pytest.mark.parametrize("name", sorted(PRUNING))
def test_pruning_with_rates_of_zero_changes_the_smallest_weights_alone(name: str) -> None:
    """Catches a mask applied the wrong way round, layer by layer, or to another share than the one recorded."""
    still = trained().changed(repair_learning_rate=0.0)
    outcome = still.run(name)
    before = torch.cat([p.detach().flatten() for p in still.base.parameters()])
    after = torch.cat([p.detach().flatten() for p in outcome.network.parameters()])
    k = round(outcome.figures["prune_rate"] * len(before))
    smallest = before.abs().sort(stable=True).indices[:k]
    kept = torch.ones(len(before), dtype=torch.bool).index_fill(0, smallest, False)
    assert torch.equal(before[kept], after[kept])
    assert (before != after).sum() >= 0.99 * k


@every_whole_network
@pytest.mark.parametrize("name", sorted(name for name, m in METHODS.items() if m.raises_forget_loss))
def test_forget_loss_rises(name: str, network: str | None) -> None:
    """Catches an impair step with the wrong sign, without effect, or on the wrong set."""
    problem = trained(network).changed(n_epoch_impair=3, n_epoch_repair=0)
    before = problem.loss(problem.base, problem.forget)
    after = problem.loss(problem.run(name, hyper_parameters=TUNED.get(name)).network, problem.forget)
    assert before < 0.05, "the base has not learned the forget set: the test cannot see anything"
    assert after >= 2 * before or after >= before + 0.05


@every_method
@pytest.mark.parametrize("n_forget", [1, 4, 12])
def test_small_requests_do_not_destroy_the_model(name: str, n_forget: int) -> None:
    """Catches rates that grow as the request shrinks, empty batches, and divisions by a count that can be 0."""
    # What dampening takes for small is a share: 12 of 64 clips are a large request to it.
    problem = (trained_on_more() if name == "ssd" else problem_of(name)).forgetting(list(range(n_forget)))
    network = problem.run(name).network
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert problem.test_accuracy(network) >= problem.test_accuracy(problem.base) - 0.1


@every_method
@pytest.mark.parametrize("architecture", (*ARCHITECTURES, OF_WAVEFORMS, ENCODER))
def test_every_architecture_is_supported_reproducibly(name: str, architecture: str) -> None:
    """Catches code that needs images, that per-clip dropout defeats, and draws outside the seed."""
    problem = untrained(architecture, 1 + METHODS[name].of_shards)
    quick = {"epochs": 1} if "epochs" in METHODS[name].hyper_parameters else {}
    one, two = (problem.run(name, hyper_parameters=quick).network for _ in range(2))
    assert same(weights(one), weights(two))
    assert all(value.isfinite().all() for value in one.state_dict().values())
    if architecture == ENCODER and name not in REPLACING:
        assert all(torch.equal(weights(one)[key], weights(problem.base)[key]) for key in frozen_in(one))


@every_method
def test_training_computes_in_bf16_and_evaluation_in_float32(name: str) -> None:
    """Catches a step of a method outside `task.fit`, evaluation in bf16, and weights that are not float32."""
    trained_in, evaluated_in = set(), set()

    def look(module: nn.Module, _: Any, answer: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            (trained_in if module.training else evaluated_in).add(answer.dtype)

    hyper_parameters = {"epochs": 1} if "epochs" in METHODS[name].hyper_parameters else {}
    with nn.modules.module.register_module_forward_hook(look):
        problem = untrained("VGGish", 1 + METHODS[name].of_shards).changed(precision="bf16", n_epochs=1)
        network = problem.run(name, hyper_parameters=hyper_parameters).network
    assert trained_in == (set() if name == "ssd" else {torch.bfloat16})
    assert evaluated_in <= {torch.float32}
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in network.state_dict().values())


@every_method
def test_unsupported_request_is_refused_before_anything_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a refusal that comes after training, or whose message does not name the request."""

    def scrub(task: Task, **hyper_parameters: Any) -> nn.Module:
        raise AssertionError("the method ran")

    limited = dataclasses.replace(METHODS[name], requests=frozenset({"speaker"}), scrub=scrub)
    monkeypatch.setitem(METHODS, name, limited)
    with pytest.raises(UserError, match=r"class.*speaker"):
        problem_of(name).run(name, request="class")
    with pytest.raises(UserError, match=r"class.*speaker"):
        choose([name], "class")


@every_method
def test_unknown_hyper_parameter_is_refused(name: str) -> None:
    """Catches a misspelt hyper-parameter that would leave the default in force."""
    with pytest.raises(UserError, match="no hyper-parameter"):
        problem_of(name).run(name, hyper_parameters={"misspelt": 1})


@every_method
def test_task_hands_out_declared_sets_alone(name: str) -> None:
    """Catches a way to the test set, and to a set that the registry line does not name."""
    problem = trained()
    sets = {**problem.sets, "test": problem.sets["remain"]}
    task = Task(name, 40, problem.base, problem.initialise, sets, problem.settings, 4)
    for undeclared in {"forget", "remain", "test", "held_out"} - METHODS[name].reads:
        with pytest.raises(UndeclaredSet):
            task.examples(undeclared)
        with pytest.raises(UndeclaredSet):
            task.logits(problem.base, undeclared)
    assert METHODS[name].reads <= {"forget", "remain"}


@every_method
def test_settings_are_those_that_the_method_reads(name: str) -> None:
    """Catches a setting that a method takes and never reads, and one that it reads and refuses."""
    problem, read = untrained("VGGish", 1 + METHODS[name].of_shards), set()

    class Watched(Settings):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    settings = {field.name: getattr(problem.settings, field.name) for field in dataclasses.fields(Settings)}
    dataclasses.replace(problem, settings=Watched(**settings)).run(name)
    assert read & set(REPAIR_FIELDS) == METHODS[name].settings


@every_method
def test_every_number_has_limits_that_hold_its_default_and_its_range(name: str) -> None:
    """Catches a hyper-parameter that may be anything, and a range of `tune` that `method_config` refuses."""
    registered = METHODS[name]
    numbers = {key for key, value in registered.hyper_parameters.items() if not isinstance(value, bool | str)}
    assert numbers == set(registered.limits)
    for key, limits in registered.limits.items():
        default = registered.hyper_parameters[key]
        assert default is None or limits.allows(default)
        assert not limits.allows(-1) and not limits.allows(True) and not limits.allows(float("nan"))
        if key in registered.search:
            drawn = (registered.search[key].draw(np.random.default_rng(i), 0.01) for i in range(20))
            assert all(map(limits.allows, drawn))


@every_method
def test_method_is_documented_and_its_defaults_fit_a_configuration_file(name: str) -> None:
    """Catches a method without a one-line summary, and defaults that YAML cannot hold."""
    registered = METHODS[name]
    assert (inspect.getdoc(registered.scrub) or "").splitlines()[0].endswith(".")
    assert all(isinstance(v, int | float | str | None) for v in registered.hyper_parameters.values())
    assert registered.requests <= REQUESTS
