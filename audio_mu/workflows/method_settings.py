"""The settings of methods: the chosen methods, their hyper-parameters, and what each of them trains with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from audio_mu.base_models.fingerprints import optimizer_settings
from audio_mu.config import REPAIR_FIELDS, Config, parse
from audio_mu.errors import UserError, one_line
from audio_mu.progress import say
from audio_mu.system.reading import plain_yaml, read_text
from audio_mu.unlearning import METHODS, Settings, choose
from audio_mu.unlearning.search import LARGEST

LARGEST_SETTINGS = 1 << 18  # bytes of the file of method_config


def check_methods(config: Config) -> tuple[str, ...]:
    """The configured methods. Raises `UserError` for unknown ones and unknown hyper-parameters, before any work."""
    names = choose(config.methods.methods, config.request.forget, config.training.shards)
    given_hyper_parameters(config)
    return names


def given_hyper_parameters(config: Config) -> dict[str, dict[str, Any]]:
    """Method → its given hyper-parameters, from the YAML file of `method_config`."""
    if config.methods.method_config is None:
        return {}
    where = f"method_config={str(config.methods.method_config)!r}"
    try:
        content = plain_yaml(read_text(config.methods.method_config, LARGEST_SETTINGS)) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{where} is not readable YAML ({one_line(error, 100)}): mend it") from None
    if not isinstance(content, dict):
        raise UserError(f"{where} holds no mapping: write method names, each with its hyper-parameters")
    for name, values in content.items():
        if name not in METHODS:
            raise UserError(f"{where} names the method {str(name)[:80]!r}: choose from {', '.join(METHODS)}")
        allowed = METHODS[name].configurable
        if not isinstance(values, dict) or set(values) - set(allowed):
            got = repr(values)[:200]
            raise UserError(f"{where}: {name} takes {', '.join(allowed) or 'no hyper-parameters'}, got {got}")
        for key, default in METHODS[name].hyper_parameters.items():
            if key not in values:
                continue
            got, limits = repr(values[key])[:200], METHODS[name].limits.get(key)
            if not _fits(values[key], default):
                raise UserError(f"{where}: {name}: {key}={got} is not of the kind of its default, {default!r}")
            if limits is not None and values[key] is not None and not limits.allows(values[key]):
                raise UserError(f"{where}: {name}: {key}={got} is not allowed: give {limits}")
        try:
            own_settings(values)
        except UserError as error:
            raise UserError(f"{where}: {name}: {error}") from None
    return content


def _fits(value: Any, default: Any) -> bool:
    """Whether a value can stand for a default: true or false, text, a number of the same kind and no other sign."""
    if default is None:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    if not isinstance(default, int | float):
        return True  # of the user's own method
    kinds = int if isinstance(default, int) else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not abs(value) <= LARGEST:  # as NaN is not
        return False
    return value >= 0 or default < 0


def say_unread(config: Config, methods: Sequence[str]) -> None:
    """Tell of settings that no method of this command reads."""
    given = [name for name in REPAIR_FIELDS if name in config.given]
    for name in given:
        if not any(name in METHODS[method].settings for method in methods):
            say(f"note: {name}={config.as_text([name])[name]} is read by none of the methods {', '.join(methods)}")
    if left := [name for name in given_hyper_parameters(config) if name not in methods]:
        say(f"note: method_config sets {', '.join(left)}, not among the methods of this command")


def own_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The repair settings among a method's values, which for this method win over the configured ones.

    Raises `UserError` where one is not allowed.
    """
    given = {name: parse(name, str(value)) for name, value in values.items() if name in REPAIR_FIELDS}
    return {name: value for name, value in given.items() if value is not None}


def method_settings(config: Config, values: Mapping[str, Any]) -> Settings:
    """What a method trains with: the base recipe and the repair settings, with the method's own where it has some."""
    settings = Settings(
        optimizer=optimizer_settings(config),
        batch_size=config.training.batch_size,
        n_epochs=config.training.n_epochs,
        n_epoch_impair=config.repair.n_epoch_impair,
        n_epoch_repair=config.repair.n_epoch_repair,
        impair_learning_rate=config.repair.impair_learning_rate,
        repair_learning_rate=config.repair.repair_learning_rate,
        precision=config.training.precision,
        class_weights=config.training.class_weights,
    )
    return dataclasses.replace(settings, **own_settings(values))


def hyper_parameters_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A method's values without the repair settings among them."""
    return {name: value for name, value in values.items() if name not in REPAIR_FIELDS}
