"""The study's methods against formulas written differently, in float64 where small rates make a step linear."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from small_problem import Problem, same, trained, weights
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from audio_mu.training import Batch, OptimizerSettings, train_from_scratch
from audio_mu.unlearning import Task, relabelling, run_method
from audio_mu.unlearning.distillation import divergence, imitate
from audio_mu.unlearning.gradient import bounded_rate
from audio_mu.unlearning.pruning import CUTS, keep_mask, magnitudes
from audio_mu.unlearning.relabelling import other_labels
from audio_mu.unlearning.task import flat_parameters

RATES = [i / 100 for i in range(101)]


@cache
def linear() -> Problem:
    """The problem in float64 under a tiny rate, where an epoch moves the weights by the sum of its gradients."""
    problem = trained()

    def initialise(seed: int) -> nn.Module:
        return problem.initialise(seed).double()

    base = problem.initialise(40).double()
    base.load_state_dict({name: value.double() for name, value in problem.base.state_dict().items()})
    settings = replace(problem.settings, optimizer=OptimizerSettings("sgd", 1e-6, momentum=0.0), n_epoch_repair=0)
    return replace(problem, base=base, initialise=initialise, features=problem.features.double(), settings=settings)


def task_of(problem: Problem, method: str, seed: int = 40) -> Task:
    return Task(method, seed, problem.base, problem.initialise, problem.sets, problem.settings, 4)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def gradient(problem: Problem, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(problem.base.parameters()))])


def moved(problem: Problem, method: str) -> Tensor:
    return flat(problem.run(method).network) - flat(problem.base)


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


def test_gradient_ascent_goes_up_at_the_bounded_rate() -> None:
    """Catches descent, and a rate without its bound: |F| = 16, batch 8 gives two steps at half the recipe's rate."""
    problem = linear().changed(batch_size=8)
    rows = problem.forget
    slope = gradient(problem, functional.cross_entropy(problem.base(problem.features[rows]), problem.labels[rows]))
    expected = 2 * 1e-6 * 0.5 * slope
    torch.testing.assert_close(moved(problem, "gradient_ascent"), expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("n_forget", "batch", "expected"), [(1, 256, 0.01), (256, 256, 0.01), (2400, 256, 0.01 * 256 / 2400)]
)
def test_bounded_rate(n_forget: int, batch: int, expected: float) -> None:
    """Catches the study's own 0.01 · 256 / |F|, which grows as the request shrinks."""
    problem = trained().changed(batch_size=batch)
    task = task_of(replace(problem, forget=torch.zeros(n_forget, dtype=torch.long)), "gradient_ascent")
    assert bounded_rate(task) == pytest.approx(expected)


def test_label_smoothing_pulls_towards_the_uniform_distribution() -> None:
    """Catches smoothing that keeps weight on the true class: the target is 1 / classes everywhere."""
    problem = linear().changed(batch_size=16)
    logits = problem.base(problem.features[problem.forget])
    uniform = -(torch.full_like(logits, 0.25) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(
        moved(problem, "label_smoothing"), -1e-6 * gradient(problem, uniform), rtol=1e-3, atol=1e-12
    )


def test_amnesiac_draws_wrong_labels_once_and_learns_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches labels drawn anew each epoch, true labels among them, and a rate other than a tenth of the recipe's."""
    problem = linear().changed(batch_size=16, n_epoch_impair=3)
    drawn: list[Tensor] = []

    def recording(*arguments: object) -> Tensor:
        drawn.append(other_labels(*arguments))
        return drawn[-1]

    monkeypatch.setattr(relabelling, "other_labels", recording)
    step = moved(problem, "amnesiac")
    assert len(drawn) == 1
    assert (drawn[0] != problem.labels[problem.forget]).all()
    loss = functional.cross_entropy(problem.base(problem.features[problem.forget]), drawn[0])
    torch.testing.assert_close(step, -3 * 1e-7 * gradient(problem, loss), rtol=1e-3, atol=1e-12)


def test_other_labels_are_uniform_over_the_others() -> None:
    """Catches a draw that can give the true label, or never gives the last or the first class."""
    labels = torch.arange(5).repeat_interleave(4000)
    drawn = other_labels(labels, 5, torch.Generator().manual_seed(0))
    counts = torch.zeros(5, 5, dtype=torch.long)
    counts.index_put_((labels, drawn), torch.tensor(1), accumulate=True)
    assert (counts.diagonal() == 0).all()
    assert counts[~torch.eye(5, dtype=torch.bool)].sub(1000).abs().max() < 5 * 28  # 5 standard deviations


def test_divergence_is_that_of_teacher_from_student() -> None:
    """Catches the arguments of KL swapped, a mean over classes, raw logits, and a temperature on one side only."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, 5, generator=draw)
    for temperature in (1.0, 4.0):
        expected = kl_divergence(Categorical(logits=teacher / temperature), Categorical(logits=student / temperature))
        torch.testing.assert_close(divergence(student, teacher, temperature), expected.mean())
    assert divergence(student, student).abs() < 1e-6


def test_imitation_pairs_each_clip_with_its_own_answer() -> None:
    """Catches answers looked up by clip number instead of position in the set."""
    problem = trained()
    task = task_of(problem, "stochastic_teacher")
    teacher = task.fresh("teacher")
    rows = torch.tensor([5, 0, 11])
    index = problem.forget[rows]
    batch = Batch(problem.features[index], problem.labels[index], rows)
    expected = divergence(problem.base(batch.features), teacher(batch.features))
    torch.testing.assert_close(imitate(task, teacher, "forget")(problem.base, batch), expected)


def test_stochastic_teacher_follows_a_random_network_then_the_original() -> None:
    """Catches a teacher that is the base's own initialisation, and one original that moves along in the repair."""
    problem = linear().changed(batch_size=16)
    teacher = task_of(problem, "stochastic_teacher").fresh("teacher")
    assert not same(weights(teacher), weights(problem.initialise(40)))
    features = problem.features[problem.forget]
    loss = kl_divergence(Categorical(logits=teacher(features).detach()), Categorical(logits=problem.base(features)))
    torch.testing.assert_close(
        moved(problem, "stochastic_teacher"), -1e-6 * gradient(problem, loss.mean()), rtol=1e-3, atol=1e-11
    )
    # Where nothing was impaired the original has nothing to correct: its own answers are the target.
    still = trained().changed(n_epoch_impair=0, optimizer=OptimizerSettings("sgd", 0.01))
    assert moved(still, "stochastic_teacher").abs().max() < 1e-5
    impaired = trained().changed(n_epoch_impair=4, n_epoch_repair=0)
    repaired = impaired.changed(n_epoch_repair=5)
    rows = problem.remain
    assert problem_loss(repaired, rows) < 0.5 * problem_loss(impaired, rows)


def problem_loss(problem: Problem, rows: Tensor) -> float:
    return problem.loss(problem.run("stochastic_teacher").network, rows)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_page_rates_scale_with_the_recipe(name: str) -> None:
    """Catches literal SGD rates under another recipe, state carried over, and a given rate that is scaled too."""
    problem = trained().changed(optimizer=OptimizerSettings(name, 0.003, momentum=0.7, weight_decay=0.02))
    task = task_of(problem, "gradient_ascent")
    optimizer = task.optimizer(task.base(), 0.001)
    assert isinstance(optimizer, {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name])
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(0.0003)
    assert group["weight_decay"] == 0.02
    assert not optimizer.state
    assert task.optimizer(task.base(), 0.001, override=0.5).param_groups[0]["lr"] == 0.5


def test_study_recipe_gives_the_page_rates() -> None:
    """Catches a scale that is not 1 for the study's own recipe."""
    task = task_of(trained().changed(optimizer=OptimizerSettings("sgd", 0.01)), "gradient_ascent")
    assert task.optimizer(task.base(), 0.001).param_groups[0]["lr"] == pytest.approx(0.001)


def test_given_rates_reach_their_phases() -> None:
    """Catches impair and repair rates that are swapped or ignored."""
    problem = linear().changed(batch_size=16, impair_learning_rate=3e-6)
    rows = problem.forget
    slope = gradient(problem, functional.cross_entropy(problem.base(problem.features[rows]), problem.labels[rows]))
    torch.testing.assert_close(moved(problem, "gradient_ascent"), 3e-6 * slope, rtol=1e-3, atol=1e-12)
    problem = linear().changed(batch_size=len(problem.remain), n_epoch_repair=1, repair_learning_rate=5e-6)
    rows = problem.remain
    slope = gradient(problem, functional.cross_entropy(problem.base(problem.features[rows]), problem.labels[rows]))
    torch.testing.assert_close(moved(problem, "fine_tune"), -5e-6 * slope, rtol=1e-3, atol=1e-12)


def test_no_repair_epochs_leave_the_impaired_network() -> None:
    """Catches a repair that runs at least once, and one that fails where there is nothing to do."""
    problem = trained().changed(n_epoch_repair=0)
    assert same(weights(problem.run("fine_tune").network), weights(problem.base))
    for method in ("gradient_ascent", "stochastic_teacher", "omp", "label_smoothing"):
        assert not same(weights(problem.run(method).network), weights(problem.base))


def test_naive_is_base_training_without_the_forget_set() -> None:
    """Catches another initialisation, another recipe, the repair epochs taken for the base's, and clips left in."""
    problem = trained().changed(n_epochs=3)
    expected = train_from_scratch(
        problem.initialise, problem.sets["remain"], problem.settings.optimizer, epochs=3, batch_size=4, seed=40
    )
    assert same(weights(problem.run("naive").network), weights(expected))
    assert same(weights(problem.changed(n_epochs=0).run("naive").network), weights(problem.initialise(40)))


def test_checkpoint_scoring_is_outside_the_clock() -> None:
    """Catches evaluation time counted as unlearning time, on the wall or on the CPU."""
    problem = trained().changed(n_epochs=2)

    def slow_score(network: nn.Module) -> float:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return 0.0

    start = time.perf_counter()
    outcome = run_method(
        "naive", 40, problem.base, problem.initialise, problem.sets, problem.settings, 4,
        request="item", checkpoint=slow_score,
    )  # fmt: skip
    assert time.perf_counter() - start > 0.6
    assert 0 < outcome.total_seconds < 0.4
    assert 0 < outcome.cpu_seconds < 0.4
    assert outcome.impair_seconds < 0.1


def test_phases_are_booked_where_they_belong() -> None:
    """Catches repair time booked as impairing, or the other way round."""
    outcome = trained().changed(n_epoch_impair=0, n_epoch_repair=6).run("gradient_ascent")
    assert outcome.repair_seconds > 5 * outcome.impair_seconds
    outcome = trained().changed(n_epoch_impair=6, n_epoch_repair=0).run("gradient_ascent")
    assert outcome.impair_seconds > 5 * outcome.repair_seconds
