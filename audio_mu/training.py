"""The only loops over batches: `fit` steps, `predict` answers, `gradient_sum` and `mean_squared_gradient` look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from audio_mu.config.parsers import BALANCED, BF16, FLOAT32, UNWEIGHTED
from audio_mu.optimizer import OptimizerSettings
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
    """Features [b, 1, f, t], labels [b], and `rows` [b]: positions within the set that is trained on.

    `of_step`: the labels of all clips of the step that the batch is a part of, None where it is the whole of it.
    """

    features: Tensor
    labels: Tensor
    rows: Tensor
    of_step: Tensor | None = None

    @property
    def share(self) -> float:
        """The part of its step's clips that it has."""
        return 1.0 if self.of_step is None else len(self.labels) / len(self.of_step)


Objective = Callable[[nn.Module, Batch], Tensor]


def cross_entropy(network: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of the batch."""
    return functional.cross_entropy(network(batch.features), batch.labels)


def balanced_cross_entropy(examples: Examples) -> Objective:
    """Cross-entropy in which every class counts as much as another in the set, however many clips it has.

    A clip of a class with n of the N clips, of K classes that occur, weighs N / (K · n). Mean over the batch by these
    weights, as of torch's `CrossEntropyLoss(weight)`; the shares of a step's batches make the mean over all of them.
    """
    counts = examples.labels[examples.indices].bincount()
    weights = len(examples) / ((counts > 0).sum() * counts.clamp(min=1)).float()

    def balanced(network: nn.Module, batch: Batch) -> Tensor:
        weight = weights[batch.labels]
        losses = functional.cross_entropy(network(batch.features), batch.labels, reduction="none")
        whole = weight.sum() if batch.of_step is None else batch.share * weights[batch.of_step].sum()
        return (weight * losses).sum() / whole

    return balanced


def loss_of(class_weights: str, examples: Examples) -> Objective:
    """The loss that a recipe trains with on a set of clips: `none` or `balanced` weights of the classes in it."""
    return balanced_cross_entropy(examples) if class_weights == BALANCED else cross_entropy


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that training moves: those that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def normalisations(network: nn.Module) -> list[nn.Module]:
    """The modules that normalise by the statistics of a batch."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


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


def batch_sizes(network: nn.Module, n: int, batch_size: int) -> list[int]:
    """Clips in each batch of a pass over n. A batch of one cannot be normalised: it joins the batch before it."""
    sizes = [len(part) for part in torch.arange(n).split(batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch_size and normalisations(network):
        sizes[-2:] = [batch_size + 1]
    return sizes


def n_steps(network: nn.Module, n: int, batch_size: int, accumulate: int) -> int:
    """Steps of a pass over n clips."""
    return math.ceil(len(batch_sizes(network, n, batch_size)) / accumulate)


def shuffled_steps(
    examples: Examples, sizes: int | list[int], accumulate: int, draw: torch.Generator
) -> Iterator[Iterator[Batch]]:
    """One pass over the set in an order drawn from `draw`: the batches of each step, at most `accumulate` of them.

    With one size for all the last batch may be smaller.
    """
    batches = torch.randperm(len(examples), generator=draw).to(examples.indices.device).split(sizes)
    for first in range(0, len(batches), accumulate):
        parts = batches[first : first + accumulate]
        whole = examples.labels[examples.indices[torch.cat(parts)]] if len(parts) > 1 else None
        yield (_batch(examples, rows, whole) for rows in parts)


def _batch(examples: Examples, rows: Tensor, of_step: Tensor | None = None) -> Batch:
    index = examples.indices[rows]
    return Batch(examples.features[index], examples.labels[index], rows, of_step)


def endless_batches(examples: Examples, batch_size: int, draw: torch.Generator) -> Iterator[Batch]:
    """Pass after pass, each in a new order drawn from `draw`."""
    while True:
        for step in shuffled_steps(examples, batch_size, 1, draw):
            yield from step


@in_float32()
def fit(
    network: nn.Module,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    accumulate: int = 1,
    precision: str = FLOAT32,
    objective: Objective = cross_entropy,
    at_rest: Sequence[nn.Module] = (),
    after_step: Callable[[], None] | None = None,
    before_epoch: Callable[[int], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Minimise `objective` over `examples`, in place.

    The order of batches depends on `seed` alone. A step moves by the mean over all clips of `accumulate` batches, whose
    gradients are added; the last of a pass may have fewer. `after_step` runs after each update (masks),
    `before_epoch(e)` and `after_epoch(e, mean loss)` around each pass, e counting from 0. The network is left in
    evaluation mode, without gradients. Weights, the optimiser's state and sums are float32 at every `precision`.
    Modules `at_rest` stay in evaluation mode; a single clip is normalised as in it too, by the network's statistics.
    """
    draw, sizes = generator(seed), batch_sizes(network, len(examples), batch_size)
    if len(examples) == 1:
        at_rest = [*at_rest, *normalisations(network)]
    for epoch in range(epochs):
        if before_epoch is not None:
            before_epoch(epoch)
        network.train()
        for module in at_rest:
            module.eval()
        total = torch.zeros((), device=examples.features.device)
        for step in shuffled_steps(examples, sizes, accumulate, draw):
            optimizer.zero_grad(set_to_none=True)
            for batch in step:
                loss = _loss(network, batch, objective, precision)
                (loss if batch.of_step is None else loss * batch.share).backward()
                total += loss.detach() * len(batch.rows)
            optimizer.step()
            if after_step is not None:
                after_step()
        network.eval()
        if after_epoch is not None:
            after_epoch(epoch, float(total) / len(examples))
    optimizer.zero_grad(set_to_none=True)
    network.eval()


def ordered_batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """One pass over the set in its own order; the last batch may be smaller."""
    for rows in torch.arange(len(examples), device=examples.indices.device).split(batch_size):
        yield _batch(examples, rows)


@in_float32()
def gradient_sum(network: nn.Module, examples: Examples) -> list[Tensor]:
    """Σ over the clips of ∇CE, in evaluation mode, one tensor per parameter that is not frozen; no weight moves."""
    network.eval()
    parameters = trained_parameters(network)
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for batch in ordered_batches(examples, PREDICT_BATCH):
        loss = functional.cross_entropy(network(batch.features), batch.labels, reduction="sum")
        for total, slope in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total.add_(slope)
    return totals


@in_float32()
def mean_squared_gradient(network: nn.Module, examples: Examples) -> list[Tensor]:
    """Diagonal of the empirical Fisher information: the mean over clips of each clip's own (∇CE)², per parameter.

    Of the parameters that are not frozen, in evaluation mode; squares of a batch's gradient would be another, far
    smaller quantity. As many clips at a time as have `PER_CLIP_NUMBERS` gradient entries between them bound the memory.
    """
    network.eval()
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}

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
    """Logits float32 [len(indices), classes], in evaluation mode; the modes of the network's modules are restored."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    index = torch.as_tensor(indices, device=features.device)
    parts = [network(features[rows]).float().cpu() for rows in index.split(PREDICT_BATCH)]
    for module, training in modes:
        module.training = training
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
    class_weights: str = UNWEIGHTED,
    checkpoint: Callable[[nn.Module], float] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Base training: weights drawn from the seed, then the recipe, the seed set again before training.

    Here alone the rate follows the recipe's schedule. `class_weights` are of the classes in these examples. With
    `checkpoint` the weights of the epoch with the highest score are kept (the first of equals), otherwise the last.
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

    steps = optimizer.build(network.parameters())
    total = epochs * n_steps(network, len(examples), batch_size, optimizer.accumulate)
    with seeded(seed):
        fit(
            network,
            examples,
            steps,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            accumulate=optimizer.accumulate,
            precision=precision,
            objective=loss_of(class_weights, examples),
            after_step=optimizer.follow_schedule(steps, total),
            after_epoch=finish_epoch,
        )
    if best_state is not None:
        network.load_state_dict(best_state)
    return network
