"""Methods that zero the smallest weights, for good or to let them grow again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from audio_mu.cosine_curve import CUTS, RATES
from audio_mu.training import trained_parameters
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import REPAIR, REPAIR_STEP, SHARE, choice
from audio_mu.unlearning.task import Task, flat_parameters

REINITIALISED = 0.99  # a prune rate from which hardly anything of the base is left


@dataclass(frozen=True)
class Magnitudes:
    """Magnitudes of a weight vector [n] where they stand and rising, and the cosine curve c(r) [101]."""

    values: np.ndarray
    rising: np.ndarray
    cosine: np.ndarray

    def smallest(self, rate: float) -> np.ndarray:
        """Bool [n]: the round(rate · n) smallest, of equal ones those that come first."""
        n = round(rate * len(self.values))
        if n == 0:
            return np.zeros(len(self.values), dtype=bool)
        limit = self.rising[n - 1]
        chosen = self.values < limit
        chosen[np.flatnonzero(self.values == limit)[: n - np.count_nonzero(chosen)]] = True
        return chosen


def magnitudes(weights: np.ndarray) -> Magnitudes:
    """Sort once; c(r) = cos(w, w_r) = |w_r| / |w|, w_r being w with the round(r · n) smallest entries zeroed.

    Zeroing entries leaves w · w_r = |w_r|², hence the quotient of norms. Values are sorted, not positions: that
    takes a quarter of the time.
    """
    values = np.abs(weights)
    rising = np.sort(values)
    removed = np.concatenate([[0.0], np.cumsum(np.square(rising, dtype=np.float64))])
    pruned = np.round(RATES * len(weights)).astype(np.int64)
    total = removed[-1]
    remaining = np.clip(total - removed[pruned], 0.0, None)
    return Magnitudes(values, rising, np.sqrt(remaining / total) if total > 0 else np.zeros(len(RATES)))


@torch.no_grad()
def keep_mask(network: nn.Module, found: Magnitudes, rate: float) -> list[torch.Tensor]:
    """For every parameter that is not frozen a mask that is False at the round(rate · n) smallest entries of all."""
    parameters = trained_parameters(network)
    parts = torch.from_numpy(~found.smallest(rate)).split([p.numel() for p in parameters])
    return [part.view_as(p).to(p.device) for part, p in zip(parts, parameters, strict=True)]


@torch.no_grad()
def apply_mask(network: nn.Module, mask: list[torch.Tensor]) -> None:
    """Zero the entries that the mask does not keep."""
    for parameter, keep in zip(trained_parameters(network), mask, strict=True):
        parameter.mul_(keep)


@torch.no_grad()
def regrow(network: nn.Module, mask: list[torch.Tensor], fresh: nn.Module) -> None:
    """Give the entries that the mask does not keep the values of a freshly initialised network."""
    new = [grown for own, grown in zip(network.parameters(), fresh.parameters(), strict=True) if own.requires_grad]
    for parameter, keep, grown in zip(trained_parameters(network), mask, new, strict=True):
        parameter.copy_(torch.where(keep, parameter, grown))


def _cut(task: Task, network: nn.Module, cut: str, beyond: float = 0.0) -> list[torch.Tensor]:
    """The mask at a cut of the network's cosine curve, which is recorded with the prune rate."""
    sorted_weights = magnitudes(flat_parameters(network))
    rate = round(CUTS[cut](sorted_weights.cosine) + beyond, 2)  # 0.83 + 0.1 is 0.9299999999999999 without it
    if beyond and rate >= 0.96:
        rate = 0.95
    task.figures["prune_rate"] = rate
    task.curves["prune/cosine_by_percent"] = tuple(enumerate(sorted_weights.cosine.tolist()))
    if rate >= REINITIALISED:
        task.warnings.append(f"prune rate {rate:.2f}: this is re-initialisation rather than pruning")
    return keep_mask(network, sorted_weights, rate)


def _prune_and_regrow(task: Task, cut: str) -> nn.Module:
    network = task.base()
    regrow(network, _cut(task, network, cut), task.fresh("regrow"))
    return task.repair(network)


@method(
    reads={"remain"},
    settings=REPAIR_STEP,
    limits={"prune_rate": SHARE},
    search={"prune_rate": choice(0.5, 0.7, 0.8, 0.9, 0.95, 0.98)} | REPAIR,
)
def omp(task: Task, *, prune_rate: float = 0.95) -> nn.Module:
    """One-shot magnitude pruning: zero the smallest weights of the whole network for good, then repair (the study).

    The mask stays during repair: masked entries are zero after every step, whatever momentum would do.
    """
    network = task.base()
    mask = keep_mask(network, magnitudes(flat_parameters(network)), prune_rate)
    apply_mask(network, mask)
    task.figures["prune_rate"] = prune_rate
    return task.repair(network, after_step=lambda: apply_mask(network, mask))


@method(reads={"remain"}, settings=REPAIR_STEP, search=REPAIR)
def cosine(task: Task) -> nn.Module:
    """Prune at the cosine cut, regrow from a fresh initialisation, repair (the study)."""
    return _prune_and_regrow(task, "cosine")


@method(reads={"remain"}, settings=REPAIR_STEP, search=REPAIR)
def pop(task: Task) -> nn.Module:
    """Prune at the post-optimal cut, regrow from a fresh initialisation, repair (the study)."""
    return _prune_and_regrow(task, "post_optimal")


@method(reads={"remain"}, settings=REPAIR_STEP, search=REPAIR)
def orthogonal(task: Task) -> nn.Module:
    """Prune at the orthogonal cut, regrow from a fresh initialisation, repair (an ablation of the study)."""
    return _prune_and_regrow(task, "orthogonal")


@method(reads={"remain"}, settings=REPAIR_STEP, search=REPAIR)
def cosine_thesis(task: Task) -> nn.Module:
    """Prune at the cosine cut, without regrowth and without a mask, repair (the study's first version)."""
    network = task.base()
    apply_mask(network, _cut(task, network, "cosine"))
    return task.repair(network)


@method(reads={"remain"}, settings=REPAIR_STEP, search=REPAIR)
def pop_thesis(task: Task) -> nn.Module:
    """Prune at the cosine cut + 0.10 (0.95 where that gives 0.96 or more), then as `cosine_thesis`."""
    network = task.base()
    apply_mask(network, _cut(task, network, "cosine", beyond=0.10))
    return task.repair(network)
