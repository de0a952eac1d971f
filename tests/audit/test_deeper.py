"""Deeper audits on networks whose answers are known."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from audio_mu.audit.deeper import MOST_EPOCHS, deep_figures, probe_accuracy, relearn
from audio_mu.training import Examples, OptimizerSettings, fit

RECIPE = OptimizerSettings("adam", 0.01)
QUICK = OptimizerSettings("adam", 0.3)  # a tenth of it is small enough


class Linear(nn.Module):
    """A network whose penultimate features are its inputs, some of them hidden."""

    def __init__(self, hidden: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.shown = 0.0 if hidden else 1.0

    def penultimate(self, features: torch.Tensor) -> torch.Tensor:
        return self.shown * features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.penultimate(features))


@pytest.fixture
def sets() -> tuple[Examples, Examples]:
    """Three classes in three directions; the forget set holds all of class 2 and half of class 1."""
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    features = draw.normal(size=(180, 4), scale=0.3)
    features[np.arange(180), labels] += 2
    tensors = torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)
    forget = torch.arange(90, 180)
    return Examples(*tensors, forget), Examples(*tensors, torch.arange(90))


def trained(network: nn.Module, examples: Examples, epochs: int = 30) -> nn.Module:
    torch.manual_seed(0)
    fit(network, examples, RECIPE.build(network.parameters()), epochs=epochs, batch_size=16, seed=0)
    return network


def test_relearning_takes_no_epoch_where_nothing_was_forgotten(sets: tuple[Examples, Examples]) -> None:
    """Catches a count that starts at 1, a target that is naive's, and a network that the audit changes."""
    forget, remain = sets
    every = Examples(forget.features, forget.labels, torch.arange(180))
    original, naive = trained(Linear(), every), trained(Linear(), remain)
    before = copy.deepcopy(naive.state_dict())
    known = relearn(original, forget, 1.0, QUICK, batch_size=16, seed=1)
    anew = relearn(naive, forget, 1.0, QUICK, batch_size=16, seed=1)
    assert (known.epochs, known.reached) == (0, True)
    assert anew.epochs > 1
    assert anew.reached
    assert len(anew.accuracies) == anew.epochs + 1
    assert anew.accuracies[-1] >= 1.0 > anew.accuracies[-2]
    assert all(torch.equal(before[name], value) for name, value in naive.state_dict().items())
    assert relearn(naive, forget, 1.0, QUICK, batch_size=16, seed=1) == anew


def test_relearning_that_never_gets_there_is_not_called_reached(sets: tuple[Examples, Examples]) -> None:
    """Catches the last epoch taken for the time that was needed."""
    found = relearn(Linear(hidden=True), sets[0], 1.0, RECIPE, batch_size=16, seed=1)
    assert (found.epochs, found.reached) == (MOST_EPOCHS, False)


def test_probe_reads_features_and_not_answers(sets: tuple[Examples, Examples]) -> None:
    """Catches a probe scored on the clips that it was fitted to, or one that reads the logits."""
    forget, remain = sets
    network = Linear()
    with torch.no_grad():
        network.head.weight.zero_()  # it answers nothing, its features tell everything
    assert probe_accuracy(network, forget, remain, seed=1) > 0.95
    chance = probe_accuracy(Linear(hidden=True), forget, remain, seed=1)
    assert chance < 0.7  # the largest class of what the probe is fitted to, whatever the clip
    # Wide noise can be learnt by heart: only clips that the probe was not fitted to tell.
    noise = Examples(torch.randn(180, 300, generator=torch.Generator().manual_seed(1)), forget.labels, forget.indices)
    assert probe_accuracy(network, noise, Examples(noise.features, noise.labels, remain.indices), seed=1) < 0.7


def test_probe_needs_clips(sets: tuple[Examples, Examples]) -> None:
    """Catches a probe of one clip."""
    forget, remain = sets
    one = Examples(forget.features, forget.labels, forget.indices[:1])
    with pytest.raises(ValueError, match="at least 2 forget clips"):
        probe_accuracy(Linear(), one, remain, seed=1)


def test_figures_of_both(sets: tuple[Examples, Examples]) -> None:
    """Catches a target that is not the original's accuracy on the forget set."""
    forget, remain = sets
    original = trained(Linear(), remain)  # it knows no class 2, so that its twin is back at once
    figures = deep_figures(original, original, forget, remain, RECIPE, batch_size=16, seed=1)
    assert set(figures) == {"deep/relearn_epochs", "deep/relearn_reached", "deep/probe_accuracy"}
    assert (figures["deep/relearn_epochs"], figures["deep/relearn_reached"]) == (0, 1)
