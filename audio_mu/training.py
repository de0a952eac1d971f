"""The only two loops over batches: `fit` and `predict`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.seeding import generator, seeded

PREDICT_BATCH = 256


@dataclass(frozen=True)
class Examples:
    """Clips to train on: all features [n, 1, f, t], all labels [n], and the positions that belong to this set."""

    features: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Batch:
    """Features [b, 1, f, t], labels [b], and `rows` [b]: positions within the set that is trained on."""

    features: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights move: `name` sgd (with momentum) or adam, and the learning rate."""

    name: str
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimiser, without any state, over the parameters that want gradients."""
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        common = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
        if self.name == "adam":
            return torch.optim.Adam(wanted, **common)
        return torch.optim.SGD(wanted, momentum=self.momentum, **common)


Objective = Callable[[nn.Module, Batch], Tensor]


def cross_entropy(network: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of the batch."""
    return functional.cross_entropy(network(batch.features), batch.labels)


def pick_device(name: str) -> torch.device:
    """`auto`: an accelerator where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _autocast(device: torch.device) -> AbstractContextManager[None]:
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


def shuffled_batches(examples: Examples, batch_size: int, draw: torch.Generator) -> Iterator[Batch]:
    """One pass over the set in an order drawn from `draw`; the last batch may be smaller."""
    order = torch.randperm(len(examples), generator=draw).to(examples.indices.device)
    for rows in order.split(batch_size):
        index = examples.indices[rows]
        yield Batch(examples.features[index], examples.labels[index], rows)


def endless_batches(examples: Examples, batch_size: int, seed: int) -> Iterator[Batch]:
    """Pass after pass, each in a new order."""
    draw = generator(seed)
    while True:
        yield from shuffled_batches(examples, batch_size, draw)


def fit(
    network: nn.Module,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    objective: Objective = cross_entropy,
    after_step: Callable[[], None] | None = None,
    before_epoch: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Minimise `objective` over `examples`, in place.

    The order of batches depends on `seed` alone. `after_step` runs after each update (masks), `before_epoch(e)`
    and `after_epoch(e, mean loss)` around each pass, e counting from 0. The network is left in evaluation mode,
    without gradients.
    """
    draw = generator(seed)
    device = examples.features.device
    for epoch in range(epochs):
        if before_epoch is not None:
            before_epoch(epoch)
        network.train()
        total = torch.zeros((), device=device)
        for batch in shuffled_batches(examples, batch_size, draw):
            optimizer.zero_grad(set_to_none=True)
            with _autocast(device):
                loss = objective(network, batch)
            loss.backward()
            optimizer.step()
            if after_step is not None:
                after_step()
            total += loss.detach() * len(batch.rows)
        network.eval()
        if after_epoch is not None:
            after_epoch(epoch, float(total) / len(examples))
    optimizer.zero_grad(set_to_none=True)
    network.eval()


@torch.inference_mode()
def predict(network: nn.Module, features: Tensor, indices: np.ndarray | Tensor) -> np.ndarray:
    """Logits float32 [len(indices), classes], in evaluation mode; the network's mode is restored."""
    was_training = network.training
    network.eval()
    index = torch.as_tensor(indices, device=features.device)
    with _autocast(features.device):
        parts = [network(features[rows]).float().cpu() for rows in index.split(PREDICT_BATCH)]
    network.train(was_training)
    return torch.cat(parts).numpy()


def train_from_scratch(
    initialise: Callable[[int], nn.Module],
    examples: Examples,
    optimizer: OptimizerSettings,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    checkpoint: Callable[[nn.Module], float] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Base training: weights drawn from the seed, then the recipe, the seed set again before training.

    With `checkpoint` the weights of the epoch with the highest score are kept (the first of equals), otherwise
    the last ones.
    """
    network = initialise(seed).to(examples.features.device)
    best_score, best_state = -math.inf, None

    def finish_epoch(epoch: int, loss: float) -> None:
        nonlocal best_score, best_state
        if after_epoch is not None:
            after_epoch(epoch, loss)
        if checkpoint is not None and (score := checkpoint(network)) > best_score:
            best_score = score
            best_state = {name: value.clone() for name, value in network.state_dict().items()}

    with seeded(seed):
        fit(
            network,
            examples,
            optimizer.build(network.parameters()),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            after_epoch=finish_epoch,
        )
    if best_state is not None:
        network.load_state_dict(best_state)
    return network
