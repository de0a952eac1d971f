"""The served model: raw waveforms to logits in one module."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from audio_mu.data.audio import MAX_AMPLITUDE

REFUSED = f"waveforms must be finite numbers, of at most {MAX_AMPLITUDE:g} times full scale"


class WaveformClassifier(nn.Module):
    """Waveforms float32 [n, samples] at 16 kHz → logits float32 [n, classes].

    The features are computed inside, so that whoever serves the model needs no code of this project. Waveforms that
    would give NaN (NaN, infinities, samples beyond `MAX_AMPLITUDE`) are refused by an assertion in the exported graph:
    raises `RuntimeError`, for the whole batch.
    """

    def __init__(self, frontend: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.frontend, self.network = frontend, network

    def forward(self, waveforms: Tensor) -> Tensor:
        # A comparison with NaN is false. An operator, because `assert` would be decided once, at export.
        torch._assert_async((waveforms.abs() <= MAX_AMPLITUDE).all(), REFUSED)
        return self.network(self.frontend(waveforms))


def servable(frontend: nn.Module, network: nn.Module) -> WaveformClassifier:
    """A copy of the network behind the frontend, on the CPU, in evaluation mode."""
    return WaveformClassifier(frontend, copy.deepcopy(network).cpu()).eval()


def network_state(served_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's own entries of a served model's state."""
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in served_state.items() if name.startswith(prefix)}
