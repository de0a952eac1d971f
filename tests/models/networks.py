"""Small networks and clips for the tests of the models, and layers by hand."""

import math

import torch
from torch import Tensor, nn

from audio_mu.models import AudioClassifier, build, tiny

MEL, SPEC, MEL_TWO_SECONDS = (32, 63), (257, 63), (32, 126)


def small(architecture: str, shape: tuple[int, int] = MEL, n_classes: int = 5, seed: int = 0) -> AudioClassifier:
    torch.manual_seed(seed)
    return build(architecture, shape, n_classes, **tiny(architecture))


def clips(n: int, shape: tuple[int, int] = MEL, seed: int = 1) -> Tensor:
    return torch.randn(n, 1, *shape, generator=torch.Generator().manual_seed(seed))


def attention_by_hand(block: nn.Module, tokens: Tensor) -> Tensor:
    """Softmax attention head by head, clip by clip, for weights laid out as query, key, value."""
    query, key, value = (tokens @ weight.T for weight in block.query_key_value.weight.chunk(3))
    size = query.shape[-1] // block.heads
    mixed = []
    for head in range(block.heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("bic,bjc->bij", query[..., part], key[..., part]) / math.sqrt(size)
        mixed.append(scores.softmax(-1) @ value[..., part])
    bias = 0 if block.output.bias is None else block.output.bias
    return torch.cat(mixed, -1) @ block.output.weight.T + bias


def normed(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def gelu_mlp(first: nn.Linear, second: nn.Linear, tokens: Tensor) -> Tensor:
    hidden = tokens @ first.weight.T + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ second.weight.T + second.bias


def scatter_weights(network: AudioClassifier) -> None:
    """Give every parameter its own value: fresh norms are the identity and would hide a missing one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
