"""Base models that somebody else has trained, where `train` would put its own in their place."""

from __future__ import annotations

from collections.abc import Mapping

from audio_mu.config import Config
from audio_mu.config.commands import command
from audio_mu.errors import UserError
from audio_mu.names import ADOPTED
from audio_mu.progress import say_once
from audio_mu.store import registry
from audio_mu.store.handle import Store


def refuse_replacing(config: Config, store: Store) -> None:
    """Raise `UserError` where the base model of a seed is an adopted one; with `force` say that it is replaced."""
    name = config.registered_model
    behind = {seed: registry.by_alias(store, name, f"seed-{seed}") for seed in config.training.seeds}
    adopted = {seed: v.version for seed, v in behind.items() if v is not None and ADOPTED in v.tags}
    if not adopted:
        return
    which = ", ".join(f"version {version} for seed {seed}" for seed, version in adopted.items())
    if not config.store.force:
        raise UserError(
            f"{name} has adopted models ({which}), and training would put new ones in their place: give other seeds, "
            "another dataset_name, or force=true to replace them; attack and unlearn need no training here"
        )
    say_once(f"note: force=true: the adopted models of {name} ({which}) are replaced by ones that are trained here")


def training(tags: Mapping[str, str]) -> str:
    """The command that trains anew what stands behind a version with these tags, in place of an adopted one too."""
    return command("train", force="true") if ADOPTED in tags else command("train")
