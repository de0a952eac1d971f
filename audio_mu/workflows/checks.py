"""Checks of a configuration that need the numeric modules, made before any work."""

from __future__ import annotations

from audio_mu.config import Config
from audio_mu.data.clips import DATASETS
from audio_mu.data.features import feature_shape
from audio_mu.errors import UserError
from audio_mu.models import build
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
        DATASETS[config.dataset].catalog(config.data_dir, config)
    if config.engine != "local":
        raise UserError(f"engine={config.engine!r} is not available yet: use engine=local")
    if config.register != "none":
        raise UserError(f"register={config.register!r} is not available yet: use register=none")
