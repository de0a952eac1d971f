"""Retraining, fine-tuning, and training of the last block alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from audio_mu.errors import UserError
from audio_mu.training import OptimizerSettings, train_from_scratch
from audio_mu.unlearning import choose, run_method
from tests.unlearning.formulas import task_of
from tests.unlearning.small_problem import RECIPE, STUDY_SHAPE, Problem, same, small_problem, trained, weights


def test_naive_is_base_training_without_the_forget_set() -> None:
    """Catches another initialisation, another recipe, the repair epochs taken for the base's, and clips left in."""
    problem = trained().changed(n_epochs=3)
    expected = train_from_scratch(
        problem.initialise, problem.sets["remain"], problem.settings.optimizer, epochs=3, batch_size=4, seed=40
    )
    assert same(weights(problem.run("naive").network), weights(expected))
    assert same(weights(problem.changed(n_epochs=0).run("naive").network), weights(problem.initialise(40)))


def test_naive_takes_all_of_the_recipe() -> None:
    """Catches a schedule, a limit or class weights that the base has and naive lacks, and weights of the forget set."""
    optimizer = OptimizerSettings("adamw", 0.003, 0.9, 0.1, 0.5, schedule="linear", warmup=0.2, accumulate=2)
    problem = trained().changed(n_epochs=3, optimizer=optimizer, class_weights="balanced")
    problem = problem.forgetting([i for i in range(24) if int(problem.labels[i]) == 1])
    common = {"epochs": 3, "batch_size": 4, "seed": 40}
    remain, naive = problem.sets["remain"], weights(problem.run("naive").network)
    assert len({*torch.bincount(problem.labels[remain.indices]).tolist()}) > 1
    expected = train_from_scratch(problem.initialise, remain, optimizer, class_weights="balanced", **common)
    assert same(naive, weights(expected))
    assert not same(naive, weights(train_from_scratch(problem.initialise, remain, optimizer, **common)))
    without = {"schedule": "constant", "warmup": 0.0, "clip_gradient": 0.0, "weight_decay": 0.0, "accumulate": 1}
    for changed in ({name: value} for name, value in without.items()):
        other = replace(optimizer, **changed)
        found = train_from_scratch(problem.initialise, remain, other, class_weights="balanced", **common)
        assert not same(naive, weights(found)), changed


def test_repair_takes_weight_decay_limit_and_class_weights_and_no_schedule() -> None:
    """Catches a repair that pulls a balanced network towards the frequent classes, and one whose rate falls to 0."""
    plain = trained().changed(class_weights="balanced").forgetting([0, 4, 8, 12])
    found = weights(plain.run("fine_tune").network)
    scheduled = replace(plain.settings.optimizer, schedule="cosine", warmup=0.5)
    assert same(found, weights(plain.changed(optimizer=scheduled).run("fine_tune").network))
    assert not same(found, weights(plain.changed(class_weights="none").run("fine_tune").network))
    for changed in ({"clip_gradient": 0.1}, {"weight_decay": 0.1}, {"accumulate": 2}):
        other = replace(plain.settings.optimizer, **changed)
        assert not same(found, weights(plain.changed(optimizer=other).run("fine_tune").network)), changed


def last_block_names(network: nn.Module) -> set[str]:
    inside = {id(p) for module in network.last_block() for p in module.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in inside}


@pytest.mark.parametrize("architecture", ["VGGish", "CCT", "ViT"])
@pytest.mark.parametrize("method", ["cf_k", "eu_k"])
def test_last_block_methods_leave_the_rest_bit_identical(method: str, architecture: str) -> None:
    """Catches an optimiser over all parameters, whose weight decay moves the frozen ones; known from cf_k's code."""
    settings = replace(
        trained().settings, optimizer=OptimizerSettings("sgd", 0.05, weight_decay=0.1), n_epochs=0, batch_size=8
    )
    problem = small_problem(architecture, shape=STUDY_SHAPE, n_train=24, settings=settings)
    before = weights(problem.base)
    after = weights(problem.run(method, hyper_parameters={"epochs": 2}).network)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    expected = last_block_names(problem.base)
    assert moved <= expected
    assert {name for name in expected if name.endswith("weight")} <= moved


def test_eu_k_starts_its_layers_from_a_fresh_network_and_trains_as_long_as_the_base() -> None:
    """Catches layers rewound to the base's own initialisation (or kept), and the number of repair epochs used."""
    problem = trained()
    start = problem.run("eu_k", hyper_parameters={"epochs": 0}).network
    fresh, own = task_of(problem, "eu_k").fresh("last block").state_dict(), problem.initialise(40).state_dict()
    for name, value in start.state_dict().items():
        inside = name in last_block_names(start)
        assert torch.equal(value, fresh[name] if inside else problem.base.state_dict()[name])
        assert not (inside and torch.equal(value, own[name]))
    as_base = problem.changed(n_epochs=3).run("eu_k").network
    assert same(weights(as_base), weights(problem.run("eu_k", hyper_parameters={"epochs": 3}).network))


def on(problem: Problem, *shards: int, n: int = 3) -> list[int]:
    """The first training clips on each of these shards."""
    places = problem.shard_of[: problem.n_train]
    return sorted(i for shard in shards for i in (places == shard).nonzero().flatten().tolist()[:n])


SHARDS = 4


@pytest.fixture(scope="module")
def sharded() -> Problem:
    return small_problem(settings=replace(RECIPE, n_epochs=3), shards=SHARDS)


@pytest.mark.parametrize("request_", ["a person", "a list over two shards", "a class", "a whole shard"])
def test_exact_shards_is_naive_bit_for_bit_and_leaves_other_shards(sharded: Problem, request_: str) -> None:
    """Catches a shard that is not retrained, one that is without need, and one from another start, seed or order."""
    clips = {
        "a person": on(sharded, 2),
        "a list over two shards": on(sharded, 0, 3),
        "a class": [i for i in range(sharded.n_train) if int(sharded.labels[i]) == 1],
        "a whole shard": on(sharded, 1, n=64),
    }[request_]
    problem = sharded.forgetting(clips)
    touched = {int(problem.shard_of[i]) for i in clips}
    assert len(touched) == {"a person": 1, "a list over two shards": 2, "a class": SHARDS, "a whole shard": 1}[request_]
    found, naive = (problem.run(method) for method in ("exact_shards", "naive"))
    assert same(weights(found.network), weights(naive.network))
    assert not same(weights(found.network), weights(problem.base))
    for shard in range(SHARDS):
        kept = same(weights(found.network.networks[shard]), weights(problem.base.networks[shard]))
        assert kept == (shard not in touched)
    left = {shard: int((problem.shard_of[problem.remain] == shard).sum()) for shard in touched}
    told = {f"shards/retrained_{shard}": float(n) for shard, n in left.items()}
    assert found.figures == {"shards/all": SHARDS, **told}


def test_exact_shards_reads_nothing_of_shards_that_rest(sharded: Problem) -> None:
    """Catches a pass over the whole remain set, and a look at the sound of what is to be forgotten."""
    problem = sharded.forgetting(on(sharded, 2))
    unread = torch.cat([problem.forget, problem.remain[problem.shard_of[problem.remain] != 2]])
    features = problem.features.clone()
    features[unread] = torch.nan
    found = replace(problem, features=features).run("exact_shards").network
    assert same(weights(found), weights(problem.run("exact_shards").network))


def test_requests_in_a_row_are_exact_again(sharded: Problem) -> None:
    """Catches a second answer that starts from more than the first one's networks: naive without both is the same."""
    first, second = on(sharded, 0), on(sharded, 0, 1, n=5)
    answered = sharded.forgetting(first).run("exact_shards").network
    both = sharded.forgetting(sorted({*first, *second}))
    asked = sorted({*second} - {*first})
    sets = {"forget": replace(both.sets["forget"], indices=torch.tensor(asked)), "remain": both.sets["remain"]}
    found = run_method(
        "exact_shards", 40, answered, both.initialise, sets, both.settings, 4, request="list", shard_of=both.shard_of
    )
    assert same(weights(found.network), weights(both.run("naive").network))


def test_exact_shards_needs_shards() -> None:
    """Catches a base model of one network that is retrained as a whole under the name of another method."""
    with pytest.raises(UserError, match=r"exact_shards retrains shards.* train with shards=4.* or take naive"):
        trained().run("exact_shards")
    assert "exact_shards" not in choose(["all"], "speaker") and "exact_shards" in choose(["all"], "speaker", 2)
    assert "exact_shards" not in choose(["study"], "speaker", 2)
