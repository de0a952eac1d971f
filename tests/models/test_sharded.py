"""Networks of shards that answer as one."""

from __future__ import annotations

import torch
from torch import nn

from audio_mu.models import build, tiny
from audio_mu.models.sharded import Sharded, members
from audio_mu.seeding import seeded

SHAPE = (32, 63)


def sharded(n: int = 3) -> Sharded:
    with seeded(5):
        return Sharded(build("VGGish", SHAPE, 4, **tiny("VGGish")) for _ in range(n)).eval()


def test_probabilities_are_the_mean_of_the_networks() -> None:
    """Catches a mean of logits, in which one network that is sure outvotes all others, and sums that overflow."""
    network, clips = sharded(), torch.randn(5, 1, *SHAPE) * 30
    with torch.no_grad():
        expected = sum(own(clips).double().softmax(dim=1) for own in members(network)) / 3
        torch.testing.assert_close(network(clips).double().exp(), expected, rtol=1e-5, atol=1e-7)
        assert network(1_000 * clips).isfinite().all()


def test_a_network_that_has_learnt_nothing_has_no_voice() -> None:
    """Catches an emptied shard whose random network answers along, and gradients that are lost with it."""
    network, clips = sharded(), torch.randn(5, 1, *SHAPE)
    network.taught[1] = 0
    rest = Sharded([network.networks[0], network.networks[2]])
    torch.testing.assert_close(network(clips), rest(clips))
    nn.functional.cross_entropy(network(clips), torch.arange(5) % 4).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert not any(p.grad.any() for p in network.networks[1].parameters())
    assert any(p.grad.any() for p in network.networks[0].parameters())


def test_interface_of_the_networks_side_by_side() -> None:
    """Catches deep audits and methods of the last block that see one shard alone."""
    network, clips = sharded(), torch.randn(2, 1, *SHAPE)
    widths = [own.penultimate(clips).shape[1] for own in members(network)]
    assert network.penultimate(clips).shape == (2, sum(widths))
    assert len(network.last_block()) == sum(len(own.last_block()) for own in members(network))
    assert members(network.networks[0]) == [network.networks[0]]


def test_it_is_exported_for_any_number_of_clips() -> None:
    """Catches a loop or a shape that serving cannot trace, and weights that the served form lacks."""
    network = sharded()
    shape = ({0: torch.export.Dim("n", min=1)},)
    program = torch.export.export(network, (torch.randn(2, 1, *SHAPE),), dynamic_shapes=shape)
    clips = torch.randn(7, 1, *SHAPE)
    torch.testing.assert_close(program.module()(clips), network(clips))
    assert "taught" in program.state_dict
