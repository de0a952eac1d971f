"""Training of a sharded network: each shard's from its recordings and a seed of its own, as if there were no others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from audio_mu.models.sharded import Sharded
from audio_mu.optimizer import OptimizerSettings
from audio_mu.seeding import derive
from audio_mu.training import Examples, train_from_scratch


def seed_of(seed: int, shard: int) -> int:
    """The seed of a shard's network, by which it is drawn and its batches are ordered."""
    return derive(seed, "shard", shard)


def on_shard(examples: Examples, shard_of: Tensor, shard: int) -> Examples:
    """Those of the examples that are on a shard. `shard_of`: int64 [n], of every clip of the tensors."""
    return replace(examples, indices=examples.indices[shard_of[examples.indices] == shard])


def shards_with(examples: Examples, shard_of: Tensor) -> list[int]:
    """The shards that hold any of the examples, rising."""
    return shard_of[examples.indices].unique().tolist()


def train_base(
    initialise: Callable[[int], nn.Module],
    examples: Examples,
    optimizer: OptimizerSettings,
    *,
    seed: int,
    shard_of: Tensor | None,
    base: nn.Module | None = None,
    only: Collection[int] | None = None,
    **recipe: Any,
) -> nn.Module:
    """A base model: `train_from_scratch`, of each shard by itself where there are shards.

    Where `only` some shards are trained, the networks of the others are those of `base`, and nothing of their
    recordings is read.
    """
    if shard_of is None:
        return train_from_scratch(initialise, examples, optimizer, seed=seed, **recipe)
    network = cast(Sharded, initialise(seed).to(examples.features.device))
    for shard, own in enumerate(network.networks):
        if only is not None and shard not in only:
            before = cast(Sharded, base)
            own.load_state_dict(before.networks[shard].state_dict())
            network.taught[shard] = before.taught[shard]
            continue
        part = on_shard(examples, shard_of, shard)
        network.taught[shard] = float(len(part) > 0)
        if len(part):
            train_from_scratch(_at_its_start(own), part, optimizer, seed=seed_of(seed, shard), **recipe)
    return network.eval()


def _at_its_start(network: nn.Module) -> Callable[[int], nn.Module]:
    """What gives a network that has been initialised already."""
    return lambda _: network
