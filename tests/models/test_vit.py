"""ViT against its definition, its positions, and its patches."""

import math

import pytest
import torch

from audio_mu.models import tiny
from audio_mu.models.vit import ViT, sine_cosine_positions
from tests.models.networks import attention_by_hand, clips, gelu_mlp, normed, scatter_weights, small


def test_vit_equals_its_definition() -> None:
    """Catches patches cut across frequencies, a lost norm or position, and heads mixed up."""
    network = small("ViT").eval()
    scatter_weights(network)
    inputs = clips(3)
    patches = torch.stack([inputs[:, 0, :, 3 * n : 3 * n + 3].reshape(3, -1) for n in range(21)], dim=1)
    first, linear, second = network.embedding
    tokens = normed(second, normed(first, patches) @ linear.weight.T + linear.bias)
    tokens = tokens + sine_cosine_positions(1, 21, 16)
    for layer in network.layers:
        tokens = tokens + attention_by_hand(layer.attention, normed(layer.attention_norm, tokens))
        tokens = tokens + gelu_mlp(layer.mlp[1], layer.mlp[3], normed(layer.mlp[0], tokens))
    expected = normed(network.norm, tokens).sum(1) / 21
    torch.testing.assert_close(network.penultimate(inputs), expected, rtol=1e-4, atol=1e-5)


def test_vit_positions_follow_the_formula() -> None:
    """Catches sine and cosine, or row and column, exchanged, and frequencies that end at the wrong value."""
    width, columns = 512, 21
    positions = sine_cosine_positions(2, columns, width)
    assert positions.shape == (2 * columns, width)
    for row, column, k in [(0, 0, 0), (0, 1, 0), (0, 20, 64), (1, 7, 127), (1, 20, 3)]:
        angle = 10_000 ** (-k / (width // 4 - 1))
        expected = [
            math.sin(column * angle),
            math.cos(column * angle),
            math.sin(row * angle),
            math.cos(row * angle),
        ]
        vector = positions[row * columns + column]
        assert [vector[k + quarter * 128].item() for quarter in range(4)] == pytest.approx(expected, abs=1e-6)
    assert torch.equal(small("ViT").positions, sine_cosine_positions(1, 21, 16))


def test_vit_repeats_the_last_frame_where_patches_do_not_divide() -> None:
    """Catches trailing sound that is cut off, and filling with zeros."""
    torch.manual_seed(0)
    network = ViT(5, (32, 61), **tiny("ViT")).eval()
    whole = small("ViT", (32, 63)).eval()
    whole.load_state_dict(network.state_dict())
    inputs = clips(2, (32, 61))
    padded = torch.cat([inputs, inputs[..., 60:], inputs[..., 60:]], dim=-1)
    assert torch.equal(network(inputs), whole(padded))
