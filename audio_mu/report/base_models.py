"""What base models have learned, and what a request on them can show, as `train` tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audio_mu.config import Config
from audio_mu.errors import counted
from audio_mu.own_code import is_reference
from audio_mu.report.rule import RULE

NEAR_CHANCE = 0.1  # part of what lies above the largest class's share
BETTER = 0.02  # accuracy on what a model was trained on, above that on other recordings
WELL_TRAINED = {"pipeline": "logmel", "optimizer": "adam", "learning_rate": "0.001", "batch_size": "32"}
"""What is worth trying where a network learns nothing."""


@dataclass(frozen=True)
class Accuracies:
    """Of a base model, on the recordings that it was trained on and on the test set."""

    train: float
    test: float


def near_chance(accuracy: float, share: float) -> bool:
    """Whether an accuracy is hardly above that of naming the largest class, which has this share."""
    return accuracy < share + NEAR_CHANCE * (1 - share)


def learned_enough(mean: Accuracies, share: float) -> bool:
    """Whether a model retrained like these would be a measure for others, by the rule."""
    return mean.train >= _needed(share)


def _needed(share: float) -> float:
    return share + RULE.works * (1 - share)


def told_of(mean: Accuracies, share: float) -> str:
    """What keeps a request on base models from showing anything, in words; empty where nothing does.

    mean: over the seeds; share: of the largest class among the training recordings.
    """
    trained = f"these models recognise {mean.train:.3f} of the recordings that they were trained on"
    if not learned_enough(mean, share):
        return (
            f"{trained}; a retrained one has to recognise {_needed(share):.3f} of them before any method is judged: "
            "no request can show anything, and register would refuse it"
        )
    if mean.train - mean.test < RULE.forget * (1 - share):
        return (
            f"{trained} and {mean.test:.3f} of unseen ones: they know the former hardly better, so that a request for "
            "some recordings can show next to nothing; one for a class or a person may show more"
        )
    return ""


def hardly_better(mean: Accuracies) -> str:
    """What speaks against the list of what adopted models were trained on, in words; empty where nothing does."""
    if mean.train - mean.test >= BETTER:
        return ""
    return (
        f"the adopted models recognise {mean.train:.3f} of trained_on and {mean.test:.3f} of the other recordings, "
        "hardly more: either they remember nothing of single recordings, or trained_on is not what they were trained on"
    )


def advice(config: Config) -> str:
    """The settings to try that are not set already; of a network of the user's own only its length of training."""
    given = config.as_text()
    settings = {} if is_reference(config.training.architecture) else WELL_TRAINED
    other = [f"{name}={value}" for name, value in settings.items() if given[name] != value]
    return " ".join([f"more epochs than n_epochs={config.training.n_epochs},", *other]).rstrip(",")


def sound_told(used: float, there: float, longest: float, lengths: Sequence[float], can_cut: bool) -> str:
    """How much of the sound is heard, in seconds, and where clips are cut after the longest what hears it all."""
    cut = sum(length > longest * 1.001 for length in lengths)
    after = f"; {cut:,} of {counted(len(lengths), 'clip')} cut after {longest:g} s" if cut else ""
    way = f": -P window={longest:g} cuts recordings whole into clips" if cut and can_cut else ""
    return f"sound: {used:,.1f} of {there:,.1f} s are used{after}{way}"
