"""Retraining and fine-tuning: the gold standard and the cheapest baseline."""

from __future__ import annotations

from typing import cast

from torch import nn

from audio_mu.models import AudioClassifier
from audio_mu.models.sharded import members
from audio_mu.names import RETRAINED, SHARDS
from audio_mu.training import normalisations, trained_parameters
from audio_mu.unlearning.registry import method
from audio_mu.unlearning.search import EPOCHS, RATE, REPAIR, REPAIR_STEP, choice, log_uniform
from audio_mu.unlearning.task import Task


@method(reads={"remain"}, retrains_only=True)
def naive(task: Task) -> nn.Module:
    """Retrain on the remain set alone, from the base's initialisation, with the base recipe: the gold standard."""
    return task.retrain("remain")


@method(reads={"forget", "remain"}, retrains_only=True, of_shards=True)
def exact_shards(task: Task) -> nn.Module:
    """Retrain the shards that held forgotten recordings, leave the others as they are (Bourtoule et al. 2021, SISA).

    Exact where the base's networks are each what training on its shard's recordings gives: the result is naive's, bit
    for bit on the same machine. Without their slicing: a shard is trained from its start.
    """
    held, remain = task.clips_on_shards("forget"), task.clips_on_shards("remain")
    for shard in held:
        task.figures[f"{RETRAINED}{shard}"] = float(remain.get(shard, 0))
    network = task.retrain("remain", shards=held)
    task.figures[SHARDS] = float(len(members(network)))
    return network


@method(reads={"remain"}, settings=REPAIR_STEP, search=REPAIR)
def fine_tune(task: Task) -> nn.Module:
    """The repair step alone: train the original on the remain set."""
    return task.repair(task.base())


def _last_block(network: nn.Module) -> list[nn.Module]:
    """The modules of the last block and of the head; `needs="last_block"` makes sure that the network has them."""
    return cast(AudioClassifier, network).last_block()


def _train_last_block_alone(task: Task, network: nn.Module, epochs: int, published_rate: float) -> nn.Module:
    """Repair the last block and the head; all else rests, statistics of batch normalisation among it.

    The optimiser holds these parameters alone, so that weight decay cannot move the others.
    """
    trained = trained_parameters(network)
    inside = {id(part) for module in _last_block(network) for part in (*module.modules(), *module.parameters())}
    at_rest = [module for module in normalisations(network) if id(module) not in inside]
    for parameter in trained:
        parameter.requires_grad_(id(parameter) in inside)
    task.repair(network, epochs=epochs, published_rate=published_rate, at_rest=at_rest)
    for parameter in trained:
        parameter.requires_grad_(True)
    return network


@method(
    reads={"remain"},
    needs="last_block",
    settings={"repair_learning_rate"},
    limits={"epochs": EPOCHS, "learning_rate": RATE},
    search={"epochs": choice(3, 5, 10, 20), "learning_rate": log_uniform(0.001, 0.1)},
)
def cf_k(task: Task, *, epochs: int = 10, learning_rate: float = 0.01) -> nn.Module:
    """Catastrophic forgetting of the last layers: fine-tune them on the remain set, the rest frozen (Goel et al. 2022).

    k = 1: the last block and the head.
    """
    return _train_last_block_alone(task, task.base(), epochs, learning_rate)


@method(
    reads={"remain"},
    needs="last_block",
    settings={"repair_learning_rate"},
    limits={"epochs": EPOCHS, "learning_rate": RATE},
    search={"epochs": choice(5, 10, 20, 30), "learning_rate": log_uniform(0.001, 0.1)},
)
def eu_k(task: Task, *, epochs: int | None = None, learning_rate: float = 0.01) -> nn.Module:
    """Exact unlearning of the last layers: re-initialise, then train them on the remain set (Goel et al. 2022).

    k = 1: the last block and the head, from a fresh network; the rest is frozen. As many epochs as the base was
    trained for, unless `epochs` says otherwise.
    """
    network = task.base()
    for module, fresh in zip(_last_block(network), _last_block(task.fresh("last block")), strict=True):
        frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
        kept = {name: value for name, value in module.state_dict().items() if name in frozen}
        module.load_state_dict(fresh.state_dict() | kept)
    return _train_last_block_alone(task, network, task.settings.n_epochs if epochs is None else epochs, learning_rate)
