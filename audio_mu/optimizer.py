"""How weights move: the optimiser of a recipe, the limit of its gradients, and the schedule of its rate."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from audio_mu.config.parsers import CONSTANT, COSINE


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights move: `name` sgd (with momentum), adam or adamw, the learning rate, and what goes with them.

    `clip_gradient`: the largest norm of a step's gradient over all parameters, 0 for none. `schedule` and `warmup` are
    of training from scratch, see `follow_schedule`. `accumulate`: batches of a step, see `audio_mu.training.fit`.
    """

    name: str
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_gradient: float = 0.0
    schedule: str = CONSTANT
    warmup: float = 0.0
    accumulate: int = 1

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimiser, without any state, over the parameters that want gradients; at a constant rate."""
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        kind = _KINDS[self.name, self.clip_gradient > 0]
        common: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
        if self.name == "sgd":
            common["momentum"] = self.momentum
        optimizer = kind(wanted, **common)
        if self.clip_gradient:
            optimizer.defaults["clip_gradient"] = self.clip_gradient
        return optimizer

    def follow_schedule(self, optimizer: torch.optim.Optimizer, n_steps: int) -> Callable[[], None] | None:
        """What is to be called after each of `n_steps` steps; None where the rate is constant."""
        if self.schedule == CONSTANT and not self.warmup:
            return None
        return LambdaLR(optimizer, lambda step: self.share_of_rate(step, n_steps)).step

    def share_of_rate(self, step: int, n_steps: int) -> float:
        """The share of the rate that step 0, 1, … of `n_steps` moves by.

        It rises in equal parts over the first `warmup` of the steps, whose last has all of it; then it stays, or falls
        along a line or half a cosine from 1, to be 0 one step after the last.
        """
        rising = round(self.warmup * n_steps)
        if step < rising:
            return (step + 1) / rising
        if self.schedule == CONSTANT:
            return 1.0
        gone = min(1.0, (step - rising) / max(1, n_steps - rising))
        return (1 + math.cos(math.pi * gone)) / 2 if self.schedule == COSINE else 1 - gone


Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


def _never_compiled(kind: type[Kind], clips: bool) -> type[Kind]:
    """The same optimiser without torch's guards against compiling it; with `clips` one that limits gradients first.

    The guards import torch's compiler when they are first called: a second and 110 MB in every process that trains.
    """
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "step")}
    plain = bare["step"]

    def clipped(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> Any:
        moved = [parameter for group in self.param_groups for parameter in group["params"]]
        clip_grad_norm_(moved, self.defaults["clip_gradient"])
        return plain(self, closure)

    step = torch.no_grad()(clipped if clips else plain)
    return cast(type[Kind], type(kind.__name__, (kind,), bare | {"step": step}))


_KINDS: dict[tuple[str, bool], type[torch.optim.Optimizer]] = {
    (name, clips): _never_compiled(kind, clips)
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW))
    for clips in (False, True)
}
