"""Retraining of all but the first layers, from a start that lets signals through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from audio_mu.unlearning.restarting import LAYERS
from tests.unlearning.formulas import task_of
from tests.unlearning.small_problem import NORMALISED, Problem, same, trained, weights


def start(problem: Problem, **values: Any) -> nn.Module:
    """What `fast_retrain` trains from."""
    return problem.run("fast_retrain", hyper_parameters={"epochs": 0, **values}).network


def test_the_first_layers_are_the_bases_and_all_others_are_fresh() -> None:
    """Catches layers kept from the wrong end, one too many or few, and a rewind to the base's own initialisation."""
    problem = trained()
    base, own = weights(problem.base), problem.initialise(40).state_dict()
    for kept_layers, n_same in ((0, 0), (2, 4), (3, 6), (99, 8)):
        found = weights(start(problem, kept_layers=kept_layers))
        assert [torch.equal(found[name], base[name]) for name in base] == [i < n_same for i in range(len(base))]
        assert not any(torch.equal(found[name], own[name]) for name in list(base)[n_same:])


def test_without_kept_layers_nothing_of_the_base_is_left() -> None:
    """Catches statistics or clips of the base's own that find their way into a network that is said to be new."""
    problem = trained()
    other = replace(problem, base=problem.initialise(3))
    values = {"kept_layers": 0, "epochs": 1}
    found = [weights(p.run("fast_retrain", hyper_parameters=values).network) for p in (problem, other)]
    assert same(*found)


def test_every_fresh_layer_answers_with_mean_0_and_deviation_1_to_the_remain_set() -> None:
    """Catches layers measured before those below them have moved, a wrong channel, and a head as loud as the others."""
    problem = trained()
    network, answers = start(problem), []

    def look(_: nn.Module, __: Any, out: Tensor) -> None:
        answers.append(out.movedim(1, -1).flatten(0, -2).clone())

    layers = [module for module in network.modules() if isinstance(module, LAYERS)]
    for layer in layers:
        layer.register_forward_hook(look)
    with torch.no_grad():
        network(problem.features[problem.remain])
    assert len(answers) == len(layers) == 5
    for out, deviation in zip(answers[2:], (1.0, 1.0, 0.1), strict=True):
        assert out.mean(0).abs().max() < 1e-4
        measured = out.std(0, correction=0)
        assert torch.allclose(measured[measured > 0.01], torch.tensor(deviation), atol=1e-3)


def test_networks_that_normalise_start_as_they_are_drawn() -> None:
    """Catches weights of a pretrained encoder, or of normalised layers, scaled away."""
    problem = trained(NORMALISED)
    fresh = task_of(problem, "fast_retrain").fresh("restart").state_dict()
    found, base = weights(start(problem)), weights(problem.base)
    kept = [name for name in base if name.startswith(("layers.0.", "layers.1.", "layers.3.", "layers.4."))]
    assert kept == list(base)[: len(kept)]
    assert all(torch.equal(found[name], base[name] if name in kept else fresh[name]) for name in base)


def test_it_trains_for_a_quarter_of_the_bases_epochs_at_twice_its_rate() -> None:
    """Catches the repair epochs, a rate that does not follow the recipe's, and a user's rate that is not exact."""
    problem = trained().changed(n_epochs=7)
    found = problem.run("fast_retrain")
    assert same(weights(found.network), weights(problem.run("fast_retrain", hyper_parameters={"epochs": 2}).network))
    assert found.rates == {"repair_learning_rate": 0.006}
    exact = problem.changed(repair_learning_rate=0.001).run("fast_retrain")
    assert exact.rates == {"repair_learning_rate": 0.001}
