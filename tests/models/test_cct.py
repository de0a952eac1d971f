"""CCT against its definition, its initialisation, and its draws."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from audio_mu.models import tiny
from audio_mu.models.cct import CCT, CCTLayer
from tests.models.networks import MEL, attention_by_hand, clips, gelu_mlp, normed, scatter_weights, small


def test_cct_equals_its_definition() -> None:
    """Catches a pre-norm block (the second residual must start from the normalised tokens), a lost norm or
    position, and a pooling over the wrong axis."""
    network = small("CCT").eval()
    scatter_weights(network)
    inputs = clips(3)
    maps = inputs
    for convolution in (module for module in network.tokenizer if isinstance(module, nn.Conv2d)):
        maps = F.conv2d(maps, convolution.weight, stride=2, padding=3).relu()
        maps = F.max_pool2d(maps, 3, 2, 1)
    tokens = torch.stack([maps[:, :, i, j] for i in range(2) for j in range(4)], dim=1) + network.positions
    for layer in network.layers:
        tokens = tokens + attention_by_hand(layer.attention, normed(layer.attention_norm, tokens))
        tokens = normed(layer.mlp_norm, tokens)
        tokens = tokens + gelu_mlp(layer.mlp[0], layer.mlp[2], tokens)
    tokens = normed(network.norm, tokens)
    scores = (tokens @ network.pool.score.weight.T).squeeze(-1).exp()
    pooled = torch.einsum("bn,bnd->bd", scores / scores.sum(1, keepdim=True), tokens)
    torch.testing.assert_close(network.penultimate(inputs), pooled, rtol=1e-4, atol=1e-5)


def test_stochastic_depth_drops_whole_clips_and_keeps_the_mean() -> None:
    """Catches element-wise dropout in the place of stochastic depth, a missing 1 / (1 - rate), and rates
    that do not rise linearly to the last layer."""
    assert [layer.drop_rate for layer in CCT(3, MEL).layers] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])
    layer = CCTLayer(8, 2, 16, attention_dropout=0.0, drop_rate=0.25)
    torch.manual_seed(0)
    kept = layer._drop(torch.ones(4000, 5, 8))
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (kept[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert layer.eval()._drop(kept) is kept


def test_attention_dropout_alone_is_drawn() -> None:
    """Catches an attention dropout that is declared but not applied (stochastic depth off here)."""
    torch.manual_seed(0)
    network = CCT(5, MEL, **tiny("CCT"), stochastic_depth=0.0).train()
    assert not torch.equal(network(clips(16)), network(clips(16)))
    network = CCT(5, MEL, **tiny("CCT"), stochastic_depth=0.0, attention_dropout=0.0).train()
    assert torch.equal(network(clips(16)), network(clips(16)))


def test_cct_initialisation() -> None:
    """Catches torch's default initialisation left in place where CCT has its own."""
    torch.manual_seed(0)
    network = CCT(10, MEL)
    assert network.layers[0].mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.positions.std().item() == pytest.approx(0.2, rel=0.1)
    first, second = (module for module in network.tokenizer if isinstance(module, nn.Conv2d))
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / 49), rel=0.05)
    assert second.weight.std().item() == pytest.approx(math.sqrt(2 / (49 * 64)), rel=0.02)
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Linear) and m.bias is not None]
    assert all(bias.abs().max() == 0 for bias in biases)
