"""Checks of a configuration that need the numeric modules, made before any work."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from audio_mu.compute.problem import make_network
from audio_mu.config import Config
from audio_mu.data.datasets import check_folder
from audio_mu.data.features import feature_shape
from audio_mu.errors import UserError
from audio_mu.models import AudioClassifier
from audio_mu.own_code import is_reference, load, own_code
from audio_mu.seeding import settings_kept
from audio_mu.unlearning import METHODS, choose
from audio_mu.unlearning.registry import whole_or_nothing
from audio_mu.workflows.method_settings import check_methods

SOME_CLASSES = 3
"""A network of the user's own is tried with so many where no `data_dir` says how many there are."""


def check(config: Config, on_workers: bool = True) -> None:
    """Raise `UserError` for unknown methods, clips too short for the network, an engine, a GPU or a rule not there.

    `on_workers`: the tasks are the engine's, on whatever machines it has.
    """
    _check_device(config, elsewhere=on_workers and config.machine.engine == "ray")
    methods = check_methods(config)
    n_classes = check_folder(config.data) or SOME_CLASSES
    shape = feature_shape(config.data.pipeline, config.data.clip_samples)
    if is_reference(config.training.architecture):
        _check_own_network(config, methods, shape, n_classes)
    else:
        try:
            make_network(config.training.architecture, shape, 2)
        except ValueError as error:
            raise UserError(f"clip_seconds={config.data.clip_seconds:g}: {error}") from None
    if config.machine.engine == "ray" and find_spec("ray") is None:
        raise UserError("engine='ray' needs Ray: run `pip install -r requirements-cluster.txt`, or give engine=local")
    _check_register(config)


def _check_device(config: Config, elsewhere: bool) -> None:
    """Raise `UserError` where every task would fail for want of a GPU; of Ray's machines nobody knows here."""
    if config.machine.device == "cuda" and not elsewhere and not torch.cuda.is_available():
        raise UserError("device=cuda: this machine has no GPU that torch can use: give device=cpu or auto")


def _features(shape: tuple[int, ...]) -> str:
    """What a network of the user's own gets, in words."""
    return f"waveforms [batch, 1, {shape[0]}]" if len(shape) == 1 else f"features of {shape[0]} x {shape[1]}"


def _check_own_network(config: Config, methods: tuple[str, ...], shape: tuple[int, ...], n: int) -> None:
    """Raise `UserError` where the user's own network cannot be made, gives no logits, or lacks what is asked of it."""
    where = f"architecture={config.training.architecture!r}"
    with whole_or_nothing(config.training.architecture):  # a file may hold methods too
        network_class = load(config.training.architecture)
    if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
        raise UserError(f"{where} is no class of torch.nn.Module: name one that is made by (n_classes, input_shape)")
    called = f"called as {network_class.__name__}({n}, {(1, *shape) if len(shape) == 1 else shape})"
    words = f"{where}, {called}, fails on {_features(shape)}"
    with settings_kept(), own_code(lambda about: f"{words} ({about}): mend it"), torch.no_grad():
        network = make_network(config.training.architecture, shape, n).eval()
        answer = network(torch.zeros(2, 1, *shape))
    if getattr(answer, "shape", None) != (2, n):
        given = getattr(answer, "shape", answer)
        raise UserError(f"{where}, {called}, answers 2 clips of {n} classes with {given!r}: give [2, {n}]")
    missing = [(f"methods={name!r}", METHODS[name].needs) for name in methods if METHODS[name].needs]
    missing += [("deep_audits=true", "penultimate")] if config.methods.deep_audits else []
    for asks, attribute in missing:
        if not hasattr(network, attribute):
            raise UserError(
                f"{asks} needs a network with {attribute!r}, which {where} lacks: add it as in "
                f"audio_mu.models.{AudioClassifier.__name__}, or leave {asks} out"
            )


def _check_register(config: Config) -> None:
    """Raise `UserError` where `register` names a method that is not asked for, or whose model would not be kept."""
    register, save_models = config.methods.register, config.methods.save_models
    if register == "none":
        return
    # Of shards only the base models know.
    methods = choose(config.methods.methods, config.request.forget, 2)
    if register not in ("best", *methods):
        raise UserError(
            f"register={register!r} is not among the methods: choose none, best, or one of {', '.join(methods)}"
        )
    if save_models != "all" and (save_models, register) != ("naive", "naive"):
        raise UserError(
            f"register={register!r} needs its models but save_models={save_models!r} was given: give save_models=all"
        )
