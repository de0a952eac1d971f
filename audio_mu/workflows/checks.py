"""Checks of a configuration that need the numeric modules, made before any work."""

from __future__ import annotations

from audio_mu.config import Config
from audio_mu.data.datasets import DATASETS
from audio_mu.data.features import feature_shape
from audio_mu.errors import UserError
from audio_mu.models import build
from audio_mu.unlearning import choose
from audio_mu.workflows.unlearn import check_methods


def check(config: Config) -> None:
    """Raise `UserError` for unknown methods, clips too short for the network, an engine or rule not there."""
    check_methods(config)
    resolved = config.resolved()
    assert resolved.pipeline is not None
    try:
        build(resolved.architecture, feature_shape(resolved.pipeline, resolved.clip_samples), 2)
    except ValueError as error:
        raise UserError(f"clip_seconds={resolved.clip_seconds:g}: {error}") from None
    if config.dataset not in DATASETS:
        raise UserError(f"dataset={config.dataset!r} is not available: choose {', '.join(DATASETS)}")
    if config.data_dir is not None:
        dataset = DATASETS[config.dataset]
        dataset.catalog(dataset.root(config), config)
    if config.engine != "local":
        raise UserError(f"engine={config.engine!r} is not available yet: use engine=local")
    _check_register(config)


def _check_register(config: Config) -> None:
    """Raise `UserError` where `register` names a method that is not asked for, or whose model would not be kept."""
    if config.register == "none":
        return
    methods = choose(config.methods, config.forget)
    if config.register not in ("best", *methods):
        raise UserError(
            f"register={config.register!r} is not among the methods: choose none, best, or one of {', '.join(methods)}"
        )
    kept = config.save_models == "all" or (config.save_models, config.register) == ("naive", "naive")
    if not kept:
        raise UserError(
            f"register={config.register!r} needs its models but save_models={config.save_models!r} was given: "
            "give save_models=all"
        )
