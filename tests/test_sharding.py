"""Training of the networks of shards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from audio_mu.models.sharded import Sharded
from audio_mu.sharding import on_shard, seed_of, shards_with, train_base
from audio_mu.training import Examples, train_from_scratch
from tests.unlearning.small_problem import N_CLASSES, Problem, same, small_problem, weights

COMMON = {"epochs": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def problem() -> Problem:
    short = replace(small_problem.__kwdefaults__["settings"], n_epochs=1)
    return small_problem(shards=3, settings=short)


def everything(problem: Problem) -> Examples:
    return Examples(problem.features, problem.labels, torch.arange(problem.n_train))


def trained(problem: Problem, examples: Examples, **changes) -> Sharded:
    return train_base(
        problem.initialise, examples, problem.settings.optimizer, **COMMON,
        **{"seed": 40, "shard_of": problem.shard_of, **changes},
    )  # fmt: skip


def test_each_network_is_training_alone_on_its_recordings(problem: Problem) -> None:
    """Catches a seed, an order of batches or a start that depends on the other shards, and one seed for all."""
    found = trained(problem, everything(problem))
    assert len({seed_of(40, shard) for shard in range(3)} | {seed_of(41, shard) for shard in range(3)} | {40}) == 7
    for shard, own in enumerate(found.networks):
        part = on_shard(everything(problem), problem.shard_of, shard)
        assert 20 <= len(part) <= 24
        alone = train_from_scratch(
            lambda _, shard=shard: problem.initialise(40).networks[shard], part, problem.settings.optimizer,
            **COMMON, seed=seed_of(40, shard),
        )  # fmt: skip
        assert same(weights(own), weights(alone))
    first, second = (weights(problem.initialise(40).networks[shard]) for shard in (0, 1))
    assert not same(first, second)


def test_what_a_shard_becomes_does_not_depend_on_the_others(problem: Problem) -> None:
    """Catches anything that is shared between shards: a draw, a statistic, a schedule over all recordings."""
    whole = trained(problem, everything(problem))
    others = problem.shard_of != 1
    changed = replace(everything(problem), features=torch.where(others[:, None, None, None], 9.0, problem.features))
    fewer = replace(everything(problem), indices=torch.arange(4, problem.n_train))  # shard 0 lacks some
    for examples in (changed, fewer):
        found = trained(problem, examples)
        assert same(weights(found.networks[1]), weights(whole.networks[1]))
        assert not same(weights(found.networks[0]), weights(whole.networks[0]))


def test_a_shard_without_recordings_is_silent(problem: Problem) -> None:
    """Catches a network of an emptied shard that is trained on nothing and answers with its start."""
    all_of = everything(problem)
    left = replace(all_of, indices=all_of.indices[problem.shard_of[all_of.indices] != 2])
    assert shards_with(left, problem.shard_of) == [0, 1]
    found = trained(problem, left)
    assert found.taught.tolist() == [1, 1, 0]
    assert same(weights(found.networks[2]), weights(problem.initialise(40).networks[2]))
    assert not any(module.training for module in found.modules())


def test_without_shards_it_is_training_as_ever(problem: Problem) -> None:
    """Catches base models of one network that are other ones than before there were shards."""
    one = small_problem(settings=problem.settings)
    expected = train_from_scratch(one.initialise, everything(one), one.settings.optimizer, **COMMON, seed=40)
    assert same(weights(trained(one, everything(one))), weights(expected))
    assert N_CLASSES == 4
