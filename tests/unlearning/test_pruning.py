"""Pruning and regrowth, against curves and cuts by explicit zeroing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from audio_mu.training import OptimizerSettings
from audio_mu.unlearning.pruning import CUTS, keep_mask, magnitudes
from audio_mu.unlearning.task import flat_parameters
from tests.unlearning.formulas import flat, task_of
from tests.unlearning.small_problem import trained

RATES = [i / 100 for i in range(101)]


def brute_force_cosine(vector: np.ndarray) -> np.ndarray:
    curve = []
    for rate in RATES:
        pruned = vector.astype(np.float64)
        for position in sorted(range(len(vector)), key=lambda i: abs(vector[i]))[: round(rate * len(vector))]:
            pruned[position] = 0.0
        norms = np.linalg.norm(vector.astype(np.float64)) * np.linalg.norm(pruned)
        curve.append(vector.astype(np.float64) @ pruned / norms if norms else 0.0)
    return np.array(curve)


VECTORS = {
    "normal": np.random.default_rng(0).normal(size=137),
    "heavy": np.random.default_rng(1).standard_t(2, size=250),
    "ties and zeros": np.repeat([0.0, -0.5, 0.5, 2.0], 16),
    "one entry": np.array([3.0]),
    "all zero": np.zeros(20),
    "wide scales": np.random.default_rng(2).normal(size=200) * np.logspace(-12, 3, 200),
}


@pytest.mark.parametrize("name", VECTORS)
def test_cosine_curve_equals_explicit_zeroing(name: str) -> None:
    """Catches a cumulative sum that is off by one, a wrong count per rate, and a tail that does not end at 0."""
    vector = VECTORS[name].astype(np.float32)
    found = magnitudes(vector)
    np.testing.assert_allclose(found.cosine, brute_force_cosine(vector), atol=1e-7)
    assert found.cosine[100] == 0.0
    order = sorted(range(len(vector)), key=lambda i: abs(vector[i]))
    for rate in (0.0, 0.01, 0.5, 0.77, 1.0):
        assert set(np.flatnonzero(found.smallest(rate))) == set(order[: round(rate * len(vector))])


@pytest.mark.parametrize("name", ["normal", "heavy", "wide scales"])
def test_cuts_equal_a_search_over_all_points(name: str) -> None:
    """Catches nearest for farthest, a wrong reference point, and the orthogonal cut taken for POP."""
    curve = brute_force_cosine(VECTORS[name].astype(np.float32))
    points = [complex(rate, c) for rate, c in zip(RATES, curve, strict=True)]
    expected = {
        "cosine": min(range(101), key=lambda i: abs(points[i] - (1 + 1j))),
        "orthogonal": max(range(101), key=lambda i: abs(points[i])),
        "post_optimal": max(range(101), key=lambda i: abs(points[i] + 1)),
    }
    curve = magnitudes(VECTORS[name].astype(np.float32)).cosine
    assert {cut: round(100 * CUTS[cut](curve)) for cut in CUTS} == expected


def test_cuts_differ_where_they_should() -> None:
    """Catches two cuts that are one function: on c(r) = sqrt(1 - r²) all points are equally far from (0, 0)."""
    rates = np.arange(101) / 100
    quarter_circle = np.sqrt(1 - rates**2)
    assert CUTS["cosine"](quarter_circle) == 0.71
    assert CUTS["post_optimal"](quarter_circle) == 1.0


def test_mask_covers_the_smallest_of_the_whole_network_ties_by_position() -> None:
    """Catches pruning layer by layer, and a mask split over parameters of more than one shape in a wrong order."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    values = torch.tensor([5.0, 0.1, 0.2, 6.0, 0.1, 7.0, 0.3, 8.0, 0.1])
    nn.utils.vector_to_parameters(values, network.parameters())
    mask = keep_mask(network, magnitudes(flat_parameters(network)), 2 / 9)
    assert [m.shape for m in mask] == [p.shape for p in network.parameters()]
    removed = (~torch.cat([m.flatten() for m in mask])).nonzero().flatten()
    assert removed.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("method", "cut"), [("cosine", "cosine"), ("pop", "post_optimal"), ("orthogonal", "orthogonal")]
)
def test_regrown_entries_come_from_a_fresh_network(method: str, cut: str) -> None:
    """Catches rewinding to the base's own initialisation, entries left at zero, and regrowth of what was kept."""
    problem = trained().changed(n_epoch_repair=0)
    outcome = problem.run(method)
    before, after = flat(problem.base), flat(outcome.network)
    rate = CUTS[cut](brute_force_cosine(before.numpy()))
    assert outcome.figures["prune_rate"] == rate
    pruned = np.argsort(before.abs().numpy(), kind="stable")[: round(rate * len(before))]
    fresh = flat(task_of(problem, method).fresh("regrow"))
    assert torch.equal(after[pruned], fresh[pruned])
    assert not torch.equal(fresh, flat(problem.initialise(40)))
    assert (after == 0).sum() <= (fresh == 0).sum()


def test_thesis_variants_leave_zeros_that_may_move() -> None:
    """Catches regrowth or a mask in the first version's variants, and a second cut that is not the first + 0.10."""
    problem = trained()
    rates = {}
    for method in ("cosine_thesis", "pop_thesis"):
        outcome = problem.changed(n_epoch_repair=0).run(method)
        rates[method] = outcome.figures["prune_rate"]
        zeros = flat(outcome.network) == 0
        assert zeros.sum() == round(rates[method] * len(zeros))
        assert (flat(problem.run(method).network)[zeros] != 0).float().mean() > 0.3
    assert rates["pop_thesis"] == pytest.approx(rates["cosine_thesis"] + 0.10)


@pytest.mark.parametrize(
    "optimizer", [OptimizerSettings("sgd", 0.01), OptimizerSettings("adam", 0.003, weight_decay=0.01)]
)
@pytest.mark.parametrize("prune_rate", [0.95, 0.5])
def test_omp_mask_stays_while_momentum_moves(optimizer: OptimizerSettings, prune_rate: float) -> None:
    """Catches masked gradients alone (momentum then moves the weights), and a wrong number of zeros."""
    problem = trained().changed(optimizer=optimizer)
    before = flat(problem.base)
    after = flat(problem.run("omp", hyper_parameters={"prune_rate": prune_rate}).network)
    k = round(prune_rate * len(before))
    pruned = np.argsort(before.abs().numpy(), kind="stable")[:k]
    assert (after[pruned] == 0).all()
    assert (after == 0).sum() == k
    kept = np.setdiff1d(np.arange(len(before)), pruned)
    assert (after != before)[kept].float().mean() > 0.3, "the repair moved nothing"


def test_prune_rate_of_a_full_reinitialisation_is_warned_about() -> None:
    """Catches a silent prune rate at which nothing of the base is left."""
    problem = trained().changed(n_epoch_repair=0)
    base = problem.initialise(40)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.zero_()
        next(base.parameters()).view(-1)[0] = 1.0
    outcome = replace(problem, base=base).run("cosine")
    assert outcome.figures["prune_rate"] == 0.99 or outcome.figures["prune_rate"] == 1.0
    assert "re-initialisation" in outcome.warnings[0]
