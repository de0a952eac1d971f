"""What is told of base models: measured against the largest class, and by what a request on them can show."""

from __future__ import annotations

import pytest

from audio_mu.config import Config, load_recipe
from audio_mu.report.base_models import Accuracies, advice, learned_enough, near_chance, told_of


@pytest.mark.parametrize(
    ("accuracy", "share", "near"),
    [
        (0.97, 0.5, False),
        (0.54, 0.5, True),
        (0.54, 0.1, False),
        (0.18, 0.1, True),
        (0.9, 0.9, True),
        (0.95, 0.9, False),
    ],
)
def test_chance_is_the_largest_class(accuracy: float, share: float, near: bool) -> None:
    """Catches two classes of which 97 % are recognised called chance, and nine tenths of one class called learned."""
    assert near_chance(accuracy, share) is near


def test_only_settings_that_could_help_are_advised() -> None:
    """Catches features proposed to a network of waveforms, and a folder's own defaults proposed against themselves."""
    assert advice(Config.from_text({"architecture": "wav2vec2", "n_epochs": "2"})) == "more epochs than n_epochs=2"
    assert advice(Config.from_text({"dataset": "audioMNIST", "n_epochs": "2"})).endswith(
        "n_epochs=2, pipeline=logmel optimizer=adam learning_rate=0.001 batch_size=32"
    )
    of_folder = load_recipe("folder")
    own = {name: str(getattr(of_folder, name)) for name in ("pipeline", "optimizer", "learning_rate", "batch_size")}
    assert advice(Config.from_text({**own, "n_epochs": "2"})) == "more epochs than n_epochs=2"


def test_what_a_request_can_show_is_told() -> None:
    """Catches hours of unlearning on models of which no method can be judged, or that memorise nothing."""
    poor = Accuracies(train=0.54, test=0.52)
    assert not learned_enough(poor, 0.1)
    assert "recognise 0.540 of the recordings that they were trained on; a retrained one has to recognise 0.550" in (
        told_of(poor, 0.1)
    )
    general = Accuracies(train=0.60, test=0.58)
    assert learned_enough(general, 0.1)
    assert "a request for some recordings can show next to nothing" in told_of(general, 0.1)
    assert told_of(Accuracies(train=0.99, test=0.8), 0.1) == ""
    assert not learned_enough(Accuracies(train=0.7, test=0.7), 0.5)  # of two classes
