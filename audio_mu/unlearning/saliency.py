"""Methods that choose weights by their gradients: which to replace, to train or to dampen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from audio_mu.errors import UserError
from audio_mu.models.attention import SelfAttention
from audio_mu.models.sharded import members
from audio_mu.training import Batch, gradient_sum, mean_squared_gradient, n_steps, trained_parameters
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import EPOCHS, RATE, REPAIR_STEP, SHARE, WEIGHT, choice, log_uniform
from audio_mu.unlearning.task import Task


def largest(scores: list[Tensor], share: float) -> list[Tensor]:
    """Masks that are True at the round(share · n) largest of all scores together; ties by position."""
    flat = torch.cat([score.reshape(-1) for score in scores])
    chosen = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    chosen[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = True
    parts = chosen.split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


@method(
    reads={"forget", "remain"},
    raises_forget_loss=True,
    settings={"impair_learning_rate"},
    limits={"mask_share": SHARE, "epochs": EPOCHS, "learning_rate": RATE},
    search={
        "mask_share": choice(0.1, 0.3, 0.5, 0.7),
        "epochs": choice(1, 3, 5, 10),
        "learning_rate": log_uniform(0.0001, 0.03),
    },
)
def salun(task: Task, *, mask_share: float = 0.5, epochs: int = 10, learning_rate: float = 0.01) -> nn.Module:
    """Train the weights that matter to the forget set on random labels for it (Fan et al. 2024).

    Mask: the half of all weights with the largest |Σ ∇CE(forget)| of the original. Each epoch passes over the forget
    set with labels drawn anew for each batch, uniform over all classes, then over the remain set with its own.
    The weights outside the mask are set back after each step: masked gradients alone would leave them to momentum's
    and weight decay's mercy, and to an optimiser that works entry by entry both come to the same.
    """
    network = task.base()
    parameters = trained_parameters(network)
    original = [parameter.detach().clone() for parameter in parameters]
    mask = largest([slope.abs() for slope in gradient_sum(network, task.examples("forget"))], mask_share)
    draw = task.draw("labels")

    @torch.no_grad()
    def set_back() -> None:
        for parameter, trained, before in zip(parameters, mask, original, strict=True):
            parameter.copy_(torch.where(trained, parameter, before))

    def mislabelled(network: nn.Module, batch: Batch) -> Tensor:
        labels = torch.randint(task.n_classes, batch.labels.shape, generator=draw).to(batch.labels.device)
        return functional.cross_entropy(network(batch.features), labels)

    optimizer = task.optimizer(network, learning_rate, task.settings.impair_learning_rate)
    common: dict[str, Any] = {"epochs": 1, "optimizer": optimizer, "after_step": set_back}
    for epoch in range(epochs):
        task.fit(network, "forget", mislabelled, purpose=f"forget {epoch}", **common)
        with task.repairing():
            task.fit(network, "remain", task.remain_loss, purpose=f"remain {epoch}", **common)
    return network


@method(
    reads={"forget", "remain"},
    raises_forget_loss=True,
    needs="head",
    settings=REPAIR_STEP,
    limits={"share": SHARE, "learning_rate": RATE, "weight_decay": WEIGHT, "kept_update": SHARE},
    search={
        "share": choice(0.1, 0.2, 0.3, 0.5, 0.7),
        "learning_rate": log_uniform(0.0003, 0.03),
        "kept_update": choice(0.03, 0.1, 0.3, 1.0),
    },
)
def msg(
    task: Task,
    *,
    share: float = 0.3,
    learning_rate: float = 0.001,
    weight_decay: float = 0.0005,
    kept_update: float = 0.1,
    linear_layers: bool = True,
) -> nn.Module:
    """Replace the weights on which forget and remain set disagree least, then repair ("Kookmin", Cadet et al. 2024).

    Gradient of Σ CE over |forget| clips of the remain set minus Σ CE over the forget set; in each convolution the 30 %
    of weights with the smallest |gradient| are drawn anew (Kaiming normal, fan-out). Repair: for the repair epochs at
    rate 0.001, rising linearly until half way and falling after it, weight decay 0.0005; in these layers the updates
    of the kept weights count a tenth. Ours: networks with attention are treated likewise in their linear layers, the
    head excepted, unless `linear_layers` is false.
    """
    network = task.base()
    layers = _replaceable(network, linear_layers)
    if not layers:
        task.warnings.append("no layer to replace weights in: this is fine-tuning; set linear_layers to true")
    kept = _replace_least_disputed(task, network, layers, share)
    optimizer = task.optimizer(network, learning_rate, task.settings.repair_learning_rate, weight_decay=weight_decay)
    settings = task.settings
    of_epoch = n_steps(network, len(task.examples("remain")), settings.batch_size, settings.optimizer.accumulate)
    rates = LambdaLR(optimizer, _triangle(of_epoch * settings.n_epoch_repair))
    slow_down = _slowed(layers, kept, kept_update)

    def after_step() -> None:
        slow_down()
        rates.step()

    with task.repairing():
        return task.fit(
            network,
            "remain",
            task.remain_loss,
            epochs=task.settings.n_epoch_repair,
            optimizer=optimizer,
            purpose="repair",
            after_step=after_step,
        )


def _replaceable(network: nn.Module, linear_layers: bool) -> list[Tensor]:
    """Weights of the convolutions and, in networks with attention, of the linear layers before the head.

    Frozen ones are left out, and those that are computed of others, as by weight norm.
    """
    modules, trained = list(network.modules()), {id(parameter) for parameter in trained_parameters(network)}
    kinds: tuple[type[nn.Conv1d | nn.Conv2d | nn.Linear], ...] = (nn.Conv1d, nn.Conv2d)
    if linear_layers and any(isinstance(module, SelfAttention) for module in modules):
        kinds += (nn.Linear,)
    heads = [own.head for own in members(network)]
    found = [module.weight for module in modules if isinstance(module, kinds) and module not in heads]
    return [weight for weight in found if id(weight) in trained]


@torch.no_grad()
def _replace_least_disputed(task: Task, network: nn.Module, layers: list[Tensor], share: float) -> list[Tensor]:
    """Draw the `share` of each layer with the smallest |∇CE(remain) - ∇CE(forget)| anew; masks of the kept weights."""
    forget, remain = task.examples("forget"), task.examples("remain")
    if len(forget) > len(remain):
        raise UserError(
            f"msg compares the {len(forget)} clips to forget with as many to keep, and there are {len(remain)}: leave "
            "msg out, or ask for fewer"
        )
    sample = torch.randperm(len(remain), generator=task.draw("sample"))[: len(forget)].to(remain.indices.device)
    with torch.enable_grad():
        pull = gradient_sum(network, replace(remain, indices=remain.indices[sample]))
        push = gradient_sum(network, forget)
    slopes = {id(p): r - f for p, r, f in zip(trained_parameters(network), pull, push, strict=True)}
    kept, draw = [], task.draw("weights")
    for weight in layers:
        (replaced,) = largest([-slopes[id(weight)].abs()], share)
        drawn = nn.init.kaiming_normal_(torch.empty(weight.shape), mode="fan_out", generator=draw)
        weight.copy_(torch.where(replaced, drawn.to(weight), weight))
        kept.append(~replaced)
    return kept


def _triangle(n_steps: int) -> Callable[[int], float]:
    """Factors of the rate for steps 0, 1, …: up from near 0 to 1 half way, and down again to near 0."""
    middle = (n_steps + 1) / 2
    return lambda step: max(0.0, 1 - abs(step + 1 - middle) / middle)


def _slowed(layers: list[Tensor], kept: list[Tensor], factor: float) -> Callable[[], None]:
    """After each step: take back the movement of the kept weights, all but `factor` of it.

    Scaling their gradients would do nothing under Adam, whose updates do not depend on the gradients' scale.
    """
    before = [weight.detach().clone() for weight in layers]

    @torch.no_grad()
    def slow_down() -> None:
        for weight, slow, last in zip(layers, kept, before, strict=True):
            weight.copy_(torch.where(slow, torch.lerp(last, weight, factor), weight))
            last.copy_(weight)

    return slow_down


@method(
    reads={"forget", "remain"},
    raises_forget_loss=True,
    settings=set(),
    limits={"alpha": WEIGHT, "dampening": WEIGHT},
    search={"alpha": log_uniform(0.5, 20), "dampening": log_uniform(0.1, 1)},
)
def ssd(task: Task, *, alpha: float | None = None, dampening: float = 1.0) -> nn.Module:
    """Dampen the weights that matter more to the forget set than to all of training (Foster et al. 2024).

    I = mean over clips of the squared gradient of each clip's CE, for the forget set F and the training set D; where
    I_F > α · I_D the weight is multiplied by min(λ · I_D / I_F, 1), λ = 1. No training. Ours: α = min(10, 0.3 ·
    |D| / |F|), because I_D ≥ |F| / |D| · I_F makes the paper's 10 the identity as soon as F is a tenth of D.
    """
    forget, remain = task.examples("forget"), task.examples("remain")
    n_all = len(forget) + len(remain)
    threshold = min(10.0, 0.3 * n_all / len(forget)) if alpha is None else alpha
    network = task.base()
    of_forget, of_remain = mean_squared_gradient(network, forget), mean_squared_gradient(network, remain)
    n_changed = 0
    with torch.no_grad():
        for weight, own, others in zip(trained_parameters(network), of_forget, of_remain, strict=True):
            overall = (len(forget) * own + len(remain) * others) / n_all
            factor = (dampening * overall / own).clamp(max=1.0)
            chosen = own > threshold * overall
            weight.copy_(torch.where(chosen, weight * factor, weight))
            n_changed += int((chosen & (factor < 1)).sum())
    n_weights = sum(weight.numel() for weight in trained_parameters(network))
    task.figures |= {"alpha": threshold, "share_changed": n_changed / n_weights}
    if n_changed == 0:
        task.warnings.append(f"no weight matters alpha={threshold:g} times more to the forget set: nothing changed")
    return network
