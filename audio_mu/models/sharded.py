"""Networks of one architecture that have each learnt recordings of their own, as one network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from audio_mu.models.base import AudioClassifier


class Sharded(nn.Module):
    """The networks of all shards, whose probabilities are averaged (Bourtoule et al. 2021, by mean vectors).

    Float32 [batch, 1, …] → [batch, classes], the logarithm of the mean of the networks' softmax: its softmax is that
    mean. A network of the shard without recordings has learnt nothing and has no voice: `taught`, float32 [shards], is
    0 for it and 1 for the others.
    """

    taught: Tensor

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("taught", torch.ones(len(self.networks)))

    def forward(self, features: Tensor) -> Tensor:
        answers = torch.stack([network(features).float() for network in self.networks]).log_softmax(dim=-1)
        shares = (self.taught / self.taught.sum()).log()
        return (answers + shares[:, None, None]).logsumexp(dim=0)

    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, …] → [batch, the sum of their widths], the inputs of the networks' last layers side by side."""
        return torch.cat([cast(AudioClassifier, network).penultimate(features) for network in self.networks], dim=1)

    def last_block(self) -> list[nn.Module]:
        """The modules of the networks' last blocks and heads, one network after another."""
        return [module for network in self.networks for module in cast(AudioClassifier, network).last_block()]


def members(network: nn.Module) -> list[nn.Module]:
    """The networks of a sharded one, else the network itself."""
    return list(network.networks) if isinstance(network, Sharded) else [network]
