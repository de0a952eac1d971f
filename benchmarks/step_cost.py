"""CPU seconds of one training step per clip for the study's networks on one thread: what `make study` will cost.

    python -m benchmarks.step_cost

CPU seconds and not wall seconds, so that other programs on the machine disturb little. SGD, batch 256, mel.
"""

from __future__ import annotations

import time

import torch

from audio_mu.config import ARCHITECTURES
from audio_mu.models import build
from audio_mu.training import Examples, OptimizerSettings, fit

BATCH, STEPS, SHAPE, CLASSES = 256, 3, (32, 63), 10


def main() -> None:
    """Print milliseconds per clip and epoch of each network."""
    torch.set_num_threads(1)
    features = torch.randn(BATCH * STEPS, 1, *SHAPE)
    examples = Examples(features, torch.randint(CLASSES, (len(features),)), torch.arange(len(features)))
    for architecture in ARCHITECTURES:
        network = build(architecture, SHAPE, CLASSES).to(memory_format=torch.channels_last)
        optimizer = OptimizerSettings("sgd", 0.01).build(network.parameters())
        fit(network, examples, optimizer, epochs=1, batch_size=BATCH, seed=0)  # warm up
        start = time.process_time()
        fit(network, examples, optimizer, epochs=1, batch_size=BATCH, seed=0)
        seconds = time.process_time() - start
        print(f"{architecture}: {1000 * seconds / len(features):.2f} ms per clip and epoch")


if __name__ == "__main__":
    main()
