"""Both ways of training and evaluating on random features: the study's, and this project's."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from audio_mu.audit.performance import performance
from audio_mu.models import build
from audio_mu.seeding import generator
from audio_mu.training import Examples, OptimizerSettings, fit, predict
from tests import study_loop
from tests.study_loop import ClipList

SHAPE, CLASSES, BATCH = (32, 63), 10, 256


def some_features(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features [n, 1, 32, 63] and labels [n]: here the arithmetic alone matters."""
    draw = generator(0)
    return torch.randn(n, 1, *SHAPE, generator=draw), torch.randint(CLASSES, (n,), generator=draw)


def as_list(features: torch.Tensor, labels: torch.Tensor) -> ClipList:
    """The same clips as a list of tensors, each with memory of its own."""
    return ClipList([clip.clone() for clip in features], labels.tolist())


@cache
def studys_way(architecture: str, n: int) -> tuple[nn.Module, ClipList, torch.optim.Optimizer]:
    """A plain network with clips and an optimiser, made once in a process."""
    network = study_loop.new_network(architecture, 0)
    return network, as_list(*some_features(n)), study_loop.optimizer_of(network)


@cache
def our_way(architecture: str, n: int) -> tuple[nn.Module, Examples, torch.optim.Optimizer]:
    """The same in this project's way."""
    torch.manual_seed(0)
    network = build(architecture, SHAPE, CLASSES).to(memory_format=torch.channels_last)
    optimizer = OptimizerSettings("sgd", 0.01).build(network.parameters())
    return network, Examples(*some_features(n), torch.arange(n)), optimizer


def study_epoch(architecture: str, n: int, threads: int) -> None:
    """One pass of the study's loop."""
    network, clips, optimizer = studys_way(architecture, n)
    torch.set_num_threads(threads)
    study_loop.train_epoch(network, clips, optimizer)


def our_epoch(architecture: str, n: int, threads: int) -> None:
    """One pass of `fit`."""
    network, examples, optimizer = our_way(architecture, n)
    torch.set_num_threads(threads)
    fit(network, examples, optimizer, epochs=1, batch_size=BATCH, seed=0)


def study_evaluation(architecture: str, n: int, threads: int) -> None:
    """The figures of all clips, as the study's loop gets them."""
    network, clips, _ = studys_way(architecture, n)
    torch.set_num_threads(threads)
    study_loop.evaluate(network, clips)


def our_evaluation(architecture: str, n: int, threads: int) -> None:
    """The figures of all clips: logits once, and what follows from them."""
    network, examples, _ = our_way(architecture, n)
    torch.set_num_threads(threads)
    performance(predict(network, examples.features, examples.indices), examples.labels.numpy())
