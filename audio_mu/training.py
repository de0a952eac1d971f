"""The only loops over batches: `fit` steps, `predict` answers, `gradient_sum` and `mean_squared_gradient` look."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from audio_mu.config.parsers import BF16, FLOAT32
from audio_mu.seeding import generator, seeded

PREDICT_BATCH = 256
PER_CLIP_NUMBERS = 2**25  # 128 MiB of float32


@dataclass(frozen=True)
class Examples:
    """Clips to train on: all features [n, 1, f, t], all labels [n], and the positions that belong to this set."""

    features: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def joined(self, other: Examples) -> Examples:
        """These clips and then the other's. Raises ValueError where they are not of the same tensor."""
        if self.features is not other.features or self.labels is not other.labels:
            raise ValueError("only sets of the same features and labels can be joined")
        return replace(self, indices=torch.cat([self.indices, other.indices]))


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
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
        if self.name == "adam":
            return _Adam(wanted, **common)
        return _SGD(wanted, momentum=self.momentum, **common)


Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


def _never_compiled(kind: type[Kind]) -> type[Kind]:
    """The same optimiser without torch's guards against compiling it.

    They import torch's compiler when they are first called: a second and 110 MB in every process that trains.
    """
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "step")}
    return cast(type[Kind], type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(bare["step"])}))


_SGD, _Adam = _never_compiled(torch.optim.SGD), _never_compiled(torch.optim.Adam)

Objective = Callable[[nn.Module, Batch], Tensor]


def cross_entropy(network: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of the batch."""
    return functional.cross_entropy(network(batch.features), batch.labels)


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is the accelerator of the machine, if it has any."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def in_float32() -> Iterator[None]:
    """The arithmetic of every loop here on every device: that of a served model, without TF32 in convolutions."""
    cudnn = torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "benchmark_limit", "deterministic")}
    with cudnn.flags(**kept, allow_tf32=False):
        yield


def _loss(network: nn.Module, batch: Batch, objective: Objective, precision: str) -> Tensor:
    """The objective of a batch. With `bf16` the network's forward pass computes in it, and nothing else does.

    The logits that an objective is given are float32 again, and so are its loss and every weight's gradient.
    """
    if precision != BF16:
        return objective(network, batch)
    forward, own = network.forward, vars(network).get("forward")

    def in_bf16(*inputs: Any, **named: Any) -> Tensor:
        # An objective may evaluate the network too, by `predict`, which wants no gradient.
        with torch.autocast(batch.features.device.type, dtype=torch.bfloat16, enabled=torch.is_grad_enabled()):
            return forward(*inputs, **named).float()

    network.forward = in_bf16  # an objective calls the network itself
    try:
        return objective(network, batch)
    finally:
        del network.forward
        if own is not None:
            network.forward = own


def shuffled_batches(examples: Examples, batch_size: int, draw: torch.Generator) -> Iterator[Batch]:
    """One pass over the set in an order drawn from `draw`; the last batch may be smaller."""
    order = torch.randperm(len(examples), generator=draw).to(examples.indices.device)
    for rows in order.split(batch_size):
        index = examples.indices[rows]
        yield Batch(examples.features[index], examples.labels[index], rows)


def endless_batches(examples: Examples, batch_size: int, draw: torch.Generator) -> Iterator[Batch]:
    """Pass after pass, each in a new order drawn from `draw`."""
    while True:
        yield from shuffled_batches(examples, batch_size, draw)


@in_float32()
def fit(
    network: nn.Module,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    precision: str = FLOAT32,
    objective: Objective = cross_entropy,
    after_step: Callable[[], None] | None = None,
    before_epoch: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Minimise `objective` over `examples`, in place.

    The order of batches depends on `seed` alone. `after_step` runs after each update (masks), `before_epoch(e)`
    and `after_epoch(e, mean loss)` around each pass, e counting from 0. The network is left in evaluation mode,
    without gradients. Weights, the optimiser's state and sums are float32 at every `precision`.
    """
    draw = generator(seed)
    for epoch in range(epochs):
        if before_epoch is not None:
            before_epoch(epoch)
        network.train()
        total = torch.zeros((), device=examples.features.device)
        for batch in shuffled_batches(examples, batch_size, draw):
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(network, batch, objective, precision)
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


def ordered_batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """One pass over the set in its own order; the last batch may be smaller."""
    for rows in torch.arange(len(examples), device=examples.indices.device).split(batch_size):
        index = examples.indices[rows]
        yield Batch(examples.features[index], examples.labels[index], rows)


@in_float32()
def gradient_sum(network: nn.Module, examples: Examples) -> list[Tensor]:
    """Σ over the clips of ∇CE, in evaluation mode, one tensor per parameter; no weight moves."""
    network.eval()
    parameters = list(network.parameters())
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for batch in ordered_batches(examples, PREDICT_BATCH):
        loss = functional.cross_entropy(network(batch.features), batch.labels, reduction="sum")
        for total, slope in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total.add_(slope)
    return totals


@in_float32()
def mean_squared_gradient(network: nn.Module, examples: Examples) -> list[Tensor]:
    """Diagonal of the empirical Fisher information: the mean over clips of each clip's own (∇CE)², per parameter.

    In evaluation mode; squares of a batch's gradient would be another, far smaller quantity. As many clips at a
    time as have `PER_CLIP_NUMBERS` gradient entries between them bound the memory.
    """
    network.eval()
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss_of_clip(weights: dict[str, Tensor], features: Tensor, label: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(network, weights, features[None]), label[None])

    per_clip = vmap(grad(loss_of_clip), in_dims=(None, 0, 0))
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    chunk = max(1, PER_CLIP_NUMBERS // sum(parameter.numel() for parameter in parameters.values()))
    # The fused kernels of attention have no rule for vmap.
    with sdpa_kernel(SDPBackend.MATH):
        for batch in ordered_batches(examples, chunk):
            for name, slopes in per_clip(parameters, batch.features, batch.labels).items():
                totals[name] += slopes.square_().sum(dim=0)
    return [total / len(examples) for total in totals.values()]


@in_float32()
@torch.inference_mode()
def predict(network: nn.Module, features: Tensor, indices: np.ndarray | Tensor) -> np.ndarray:
    """Logits float32 [len(indices), classes], in evaluation mode; the network's mode is restored."""
    was_training = network.training
    network.eval()
    index = torch.as_tensor(indices, device=features.device)
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
    precision: str = FLOAT32,
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
            precision=precision,
            after_epoch=finish_epoch,
        )
    if best_state is not None:
        network.load_state_dict(best_state)
    return network
