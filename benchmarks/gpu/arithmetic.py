"""The kinds of arithmetic that training could use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from audio_mu.training import Batch, Objective, cross_entropy

SHIPPED = "as shipped"
DEFAULT = "float32, torch's default"
"""Convolutions of cuDNN may use TF32, matrix products do not."""

_ALLOWED = {"float32": (False, False), DEFAULT: (False, True), "TF32": (True, True), "bf16": (False, True)}
"""Whether matrix products and convolutions may use TF32."""


@contextmanager
def arithmetic(name: str) -> Iterator[Objective]:
    """The flags of a kind of arithmetic inside the block, and the cross-entropy that computes in it.

    `as shipped` leaves all as it is; the others override what `fit` sets.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = _ALLOWED.get(name, before)
    try:
        yield cross_entropy if name == SHIPPED else _cast(name == "bf16", _ALLOWED[name][1])
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _cast(to_bf16: bool, tf32: bool) -> Objective:
    def objective(network: nn.Module, batch: Batch) -> Tensor:
        torch.backends.cudnn.allow_tf32 = tf32  # which `fit` forbids, and sets back at its end
        with torch.autocast(batch.features.device.type, dtype=torch.bfloat16, enabled=to_bf16):
            return cross_entropy(network, batch)

    return objective


@torch.inference_mode()
def logits_in(name: str, network: nn.Module, features: Tensor) -> Tensor:
    """Logits [n, classes] on the CPU, of all clips, in float32 or bf16, whatever `predict` chooses."""
    network.eval()
    with arithmetic(name), torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=name == "bf16"):
        return torch.cat([network(part).float().cpu() for part in features.split(256)])
