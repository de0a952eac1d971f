"""VGGish against its definition."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_mu.models.vggish import VGGish
from tests.models.networks import clips, small


def relu_before_pool(network: VGGish, inputs: Tensor) -> Tensor:
    """VGGish written out in the study's order, from the same weights."""
    convolutions = [module for module in network.convolutions if isinstance(module, nn.Conv2d)]
    maps = inputs
    for convolution, pool in zip(convolutions, (True, True, False, True, False, True), strict=True):
        maps = F.conv2d(maps, convolution.weight, convolution.bias, padding=1).relu()
        if pool:
            maps = F.max_pool2d(maps, 2)
    hidden = maps.reshape(len(inputs), -1)
    first, _, second, _ = network.hidden
    hidden = (hidden @ first.weight.T + first.bias).relu()
    hidden = (hidden @ second.weight.T + second.bias).relu()
    return hidden @ network.head.weight.T + network.head.bias


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_vggish_equals_relu_before_pool(memory_format: torch.memory_format) -> None:
    """Catches a pool in the wrong place, and a flattening that follows the memory instead of the meaning."""
    network = small("VGGish")
    network.load_state_dict({name: value * 2 for name, value in network.state_dict().items()})
    plain = copy.deepcopy(network)
    labels = torch.arange(8) % 5
    logits = network.to(memory_format=memory_format)(clips(8).contiguous(memory_format=memory_format))
    expected = relu_before_pool(plain, clips(8))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for (name, parameter), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
