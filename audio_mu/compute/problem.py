"""The network of a command and the data that its jobs share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from audio_mu.errors import UserError
from audio_mu.models import build
from audio_mu.models.sharded import Sharded
from audio_mu.own_code import is_reference, load, name_of, own_code
from audio_mu.seeding import seeded, settings_kept
from audio_mu.sharding import seed_of
from audio_mu.training import pick_device


def make_network(architecture: str, shape: tuple[int, ...], n_classes: int, shards: int = 1) -> nn.Module:
    """A new network of the package, or the user's own: a class called with (n_classes, input_shape); or one of shards.

    `shape`: of a clip's features behind their one channel, which is `input_shape` = (frequencies, frames); of waveforms
    (samples,), and `input_shape` = (1, samples). Weights are drawn from torch's global generator. Float32 [batch, 1,
    *shape] → logits [batch, n_classes]. The package's networks are in the memory format that convolutions are fastest
    in; in it others' `view` may fail.
    """
    if shards > 1:
        return Sharded(make_network(architecture, shape, n_classes) for _ in range(shards))
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
    shards: int = 1

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
            return self._drawn(self.shards)

    def filled(self, seed: int, state: Mapping[str, np.ndarray]) -> nn.Module:
        """A network of these weights on the CPU; what it has beside them is drawn from the seed."""
        network = self.network(seed)
        network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
        return network.eval()

    def initialise(self, seed: int) -> nn.Module:
        """A network as its training starts: weights drawn from the seed, or what the class's own `start` gives it.

        Of shards each network starts from a seed of its own.
        """
        if self.shards > 1:
            alone = replace(self, shards=1)
            return Sharded(alone.initialise(seed_of(seed, shard)) for shard in range(self.shards))
        with seeded(seed):
            return at_start(self._drawn(), self.architecture, seed)

    def _drawn(self, shards: int = 1) -> nn.Module:
        return make_network(self.architecture, self._mapped().shape[2:], self.n_classes, shards)

    def shards_of(self, shard_of: np.ndarray | None) -> torch.Tensor | None:
        """The shard of every clip, int64 [n], on the device; None without shards."""
        return None if shard_of is None else torch.from_numpy(shard_of).to(pick_device(self.device))
