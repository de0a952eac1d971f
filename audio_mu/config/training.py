"""The parameters of training: the network, and how base models and the retrained model are trained."""

from __future__ import annotations

from dataclasses import dataclass

from audio_mu.config import parsers
from audio_mu.config.parsers import AUTO, choice, integer, number, or_auto, parameter
from audio_mu.own_code import name_of


@dataclass(frozen=True)
class TrainingParameters:
    """The network, and how base models and the retrained model are trained."""

    architecture: str = parameter(
        "VGGish",
        parsers.architecture,
        "VGGish|CCT|ViT, a key of the study (VGGishMel, …), wav2vec2|hubert|wavlm|ast, or file.py:Class",
    )
    shards: int = parameter(
        "1",
        integer(1, 64),
        "networks of a base model, each trained on other people's recordings, so that `exact_shards` retrains a few "
        "of them",
        of_base=True,
    )
    seeds: tuple[int, ...] = parameter("40,41,42,43,44", parsers.seeds, "seeds of the base models")
    n_epochs: int = parameter(AUTO, or_auto(integer(1)), "epochs of base training and naive", of_base=True)
    batch_size: int = parameter(AUTO, or_auto(integer(1)), "clips per batch, and per training step", of_base=True)
    accumulate: int = parameter(
        "1", integer(1, 1024), "batches whose gradients are added before each step", of_base=True
    )
    optimizer: str = parameter(AUTO, or_auto(choice("sgd", "adam", "adamw")), "sgd|adam|adamw", of_base=True)
    learning_rate: float = parameter(AUTO, or_auto(number(0)), "rate of base training and naive", of_base=True)
    weight_decay: float = parameter("0", number(0, low_included=True), "weight decay of the optimiser", of_base=True)
    schedule: str = parameter(
        "constant",
        choice(*parsers.SCHEDULES),
        "constant|linear|cosine: the rate of base training and naive, step by step (down to 0)",
        of_base=True,
    )
    warmup: float = parameter(
        "0",
        number(0, 0.5, low_included=True, high_included=True),
        "share of these steps in which the rate rises to its full height",
        of_base=True,
    )
    clip_gradient: float = parameter(
        "0", number(0, low_included=True), "largest norm of a step's gradient (0: none)", of_base=True
    )
    class_weights: str = parameter(
        "none",
        choice(*parsers.CLASS_WEIGHTS),
        "none|balanced: each class counts as much in the loss, however many clips it has",
        of_base=True,
    )
    checkpoint: str = parameter("last", choice("last", "best_test"), "last|best_test (the study's)", of_base=True)
    precision: str = parameter(
        AUTO, or_auto(choice(*parsers.PRECISIONS)), "float32|bf16: arithmetic of training (auto: float32)", of_base=True
    )

    @property
    def network(self) -> str:
        """The network's name in tags and in the registry: the architecture, or the class of the user's own."""
        return name_of(self.architecture)

    @property
    def chooses_on(self) -> str | None:
        """The set whose accuracy chooses the epoch that is kept, if any does."""
        return "test" if self.checkpoint == "best_test" else None
