"""Methods beyond the study, each against a plain re-implementation and the bug that public code of it is known for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_problem import STUDY_SHAPE, Problem, same, small_problem, trained, weights
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from audio_mu.seeding import derive, generator
from audio_mu.training import Examples, OptimizerSettings, mean_squared_gradient
from audio_mu.unlearning import Task, saliency
from audio_mu.unlearning.saliency import largest

SGD = OptimizerSettings("sgd", 0.01)


@cache
def precise() -> Problem:
    """The problem in float64 with batches as large as the sets, so that the order of clips does not matter."""
    problem = trained()

    def initialise(seed: int) -> nn.Module:
        return problem.initialise(seed).double()

    base = problem.initialise(40).double()
    base.load_state_dict({name: value.double() for name, value in problem.base.state_dict().items()})
    settings = replace(problem.settings, optimizer=SGD, batch_size=64)
    return replace(problem, base=base, initialise=initialise, features=problem.features.double(), settings=settings)


def task_of(problem: Problem, method: str) -> Task:
    return Task(method, 40, problem.base, problem.initialise, problem.sets, problem.settings, 4)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def by_hand(
    problem: Problem, losses: list[tuple[float, Callable[[nn.Module], Tensor]]], momentum: float = 0.9
) -> Tensor:
    """Weights after one step of SGD with momentum for each (rate, loss)."""
    network = task_of(problem, "fine_tune").base()
    velocity: list[Any] = [0.0] * len(list(network.parameters()))
    for rate, loss in losses:
        slopes = torch.autograd.grad(loss(network), list(network.parameters()))
        velocity = [momentum * v + slope for v, slope in zip(velocity, slopes, strict=True)]
        with torch.no_grad():
            for parameter, v in zip(network.parameters(), velocity, strict=True):
                parameter.sub_(rate * v)
    return flat(network)


def mean_loss(problem: Problem, rows: Tensor) -> Callable[[nn.Module], Tensor]:
    return lambda network: functional.cross_entropy(network(problem.features[rows]), problem.labels[rows])


def mean_divergence(
    problem: Problem, teacher: nn.Module, rows: Tensor, temperature: float = 1.0
) -> Callable[[nn.Module], Tensor]:
    features = problem.features[rows]
    target = Categorical(logits=teacher(features).detach() / temperature)
    return lambda network: kl_divergence(target, Categorical(logits=network(features) / temperature)).mean()


def agree(found: Tensor, expected: Tensor, start: Tensor) -> None:
    """Both moved by the same amounts, to a thousandth of the largest."""
    assert (expected - start).abs().max() > 0
    torch.testing.assert_close(
        found - start, expected - start, rtol=1e-3, atol=1e-4 * float((expected - start).abs().max())
    )


def last_block_names(network: nn.Module) -> set[str]:
    inside = {id(p) for module in network.last_block() for p in module.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in inside}


@pytest.mark.parametrize("architecture", ["VGGish", "CCT", "ViT"])
@pytest.mark.parametrize("method", ["cf_k", "eu_k"])
def test_last_block_methods_leave_the_rest_bit_identical(method: str, architecture: str) -> None:
    """Catches an optimiser over all parameters, whose weight decay moves the frozen ones; known from cf_k's code."""
    settings = replace(
        trained().settings, optimizer=OptimizerSettings("sgd", 0.05, weight_decay=0.1), n_epochs=0, batch_size=8
    )
    problem = small_problem(architecture, shape=STUDY_SHAPE, n_train=24, settings=settings)
    before = weights(problem.base)
    after = weights(problem.run(method, hyper_parameters={"epochs": 2}).network)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    expected = last_block_names(problem.base)
    assert moved <= expected
    assert {name for name in expected if name.endswith("weight")} <= moved


def test_eu_k_starts_its_layers_from_a_fresh_network_and_trains_as_long_as_the_base() -> None:
    """Catches layers rewound to the base's own initialisation (or kept), and the number of repair epochs used."""
    problem = trained()
    start = problem.run("eu_k", hyper_parameters={"epochs": 0}).network
    fresh, own = task_of(problem, "eu_k").fresh("last block").state_dict(), problem.initialise(40).state_dict()
    for name, value in start.state_dict().items():
        inside = name in last_block_names(start)
        assert torch.equal(value, fresh[name] if inside else problem.base.state_dict()[name])
        assert not (inside and torch.equal(value, own[name]))
    as_base = problem.changed(n_epochs=3).run("eu_k").network
    assert same(weights(as_base), weights(problem.run("eu_k", hyper_parameters={"epochs": 3}).network))


def test_neggrad_plus_repeats_the_forget_set_for_every_batch_of_the_remain_set() -> None:
    """Catches zip(remain, forget), which ends with the shorter set; swapped weights; and a lost sign."""
    problem = precise().changed(batch_size=16, optimizer=OptimizerSettings("sgd", 1e-6, momentum=0.0))
    remain, forget = mean_loss(problem, problem.remain), mean_loss(problem, problem.forget)
    expected = by_hand(problem, [(1e-6, lambda n: 0.9 * remain(n) - 0.1 * forget(n))] * 3 * 2, momentum=0.0)
    found = problem.run("neggrad_plus", hyper_parameters={"remain_weight": 0.9, "epochs": 2}).network
    agree(flat(found), expected, flat(problem.base))


def test_largest_counts_over_all_scores() -> None:
    """Catches a share taken tensor by tensor, and ties that let too many in."""
    masks = largest([torch.tensor([[1.0, 5.0], [5.0, 2.0]]), torch.tensor([9.0, 5.0])], 0.5)
    assert masks[0].tolist() == [[False, True], [True, False]]
    assert masks[1].tolist() == [True, False]


def msg_slopes(problem: Problem) -> dict[str, Tensor]:
    """∇ of Σ CE over as many remain as forget clips minus Σ CE over the forget clips."""
    sample = torch.randperm(len(problem.remain), generator=task_of(problem, "msg").draw("sample"))
    rows = problem.remain[sample[: len(problem.forget)]]
    loss = len(rows) * (mean_loss(problem, rows)(problem.base) - mean_loss(problem, problem.forget)(problem.base))
    names = [name for name, _ in problem.base.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(problem.base.parameters())), strict=True))


def test_msg_draws_the_least_disputed_weights_of_each_convolution_anew() -> None:
    """Catches the largest gradients taken for the smallest, a share of the whole network, and changed linear layers."""
    problem = precise().changed(n_epoch_repair=0)
    slopes, before = msg_slopes(problem), weights(problem.base)
    after = weights(problem.run("msg").network)
    for name, value in before.items():
        if not (name.startswith("convolutions") and name.endswith("weight")):
            assert torch.equal(value, after[name])
            continue
        k = round(0.3 * value.numel())
        smallest = slopes[name].abs().flatten().argsort()[:k]
        changed = (value != after[name]).flatten()
        assert changed.sum() == k and changed[smallest].all()
        fan_out = value.shape[0] * value[0, 0].numel()
        spread = after[name].flatten()[smallest].std().item() / (2 / fan_out) ** 0.5
        assert 0.6 < spread < 1.4


def test_msg_slows_kept_weights_under_adam() -> None:
    """Catches scaled gradients, which Adam's normalisation undoes: kept weights would move as far as the others."""
    adam = OptimizerSettings("adam", 0.01)
    problem = precise().changed(optimizer=adam, n_epoch_repair=1)
    hyper_parameters = {"weight_decay": 0.0}
    start = weights(problem.changed(n_epoch_repair=0).run("msg", hyper_parameters=hyper_parameters).network)
    moved = weights(problem.run("msg", hyper_parameters=hyper_parameters).network)
    base = weights(problem.base)
    for name in ("convolutions.0.weight", "convolutions.3.weight", "head.weight"):
        steps = (moved[name] - start[name]).abs()
        kept = base[name] == start[name]
        rate = 0.001  # of the recipe, a tenth: the page's 0.001; the first step of Adam is the rate itself
        slow = 0.1 * rate if name.startswith("convolutions") else rate
        assert steps[kept].median().item() == pytest.approx(slow, rel=0.01)
        if name.startswith("convolutions"):
            assert steps[~kept].median().item() == pytest.approx(rate, rel=0.01)


def test_msg_rate_rises_and_falls_step_by_step() -> None:
    """Catches a rate that changes once an epoch, starts or ends at 0, or exceeds the page's."""
    used: list[float] = []
    problem = trained().changed(optimizer=SGD, n_epoch_repair=2)

    def record(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        used.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["weight_decay"] == 0.0005

    hook = register_optimizer_step_pre_hook(record)
    try:
        problem.run("msg")
    finally:
        hook.remove()
    assert len(used) == 2 * 12
    half = used[:12]
    assert used[12:] == pytest.approx(half[::-1])
    assert all(later > earlier for earlier, later in itertools.pairwise(half))
    assert 0 < used[0] < 0.0002 and 0.0009 < max(used) <= 0.001


def test_msg_declares_its_extension_to_attention() -> None:
    """Catches a silent fine-tuning where there is no convolution, and a head that is replaced."""
    settings = replace(trained().settings, n_epochs=0, n_epoch_repair=0)
    problem = small_problem("ViT", shape=STUDY_SHAPE, n_train=24, settings=settings)
    literal = problem.run("msg", hyper_parameters={"linear_layers": False})
    assert same(weights(literal.network), weights(problem.base))
    assert "fine-tuning" in literal.warnings[0]
    extended = problem.run("msg")
    changed = {n for n, v in weights(extended.network).items() if not torch.equal(v, problem.base.state_dict()[n])}
    assert not extended.warnings
    assert "head.weight" not in changed and "layers.0.attention.output.weight" in changed


@pytest.mark.parametrize(
    "optimizer", [OptimizerSettings("sgd", 0.01, weight_decay=0.1), OptimizerSettings("adam", 0.003, weight_decay=0.1)]
)
def test_salun_leaves_weights_outside_its_mask_bit_identical(optimizer: OptimizerSettings) -> None:
    """Catches masked gradients alone: momentum and weight decay move the masked weights; and a mask per layer."""
    problem = trained().changed(optimizer=optimizer)
    loss = mean_loss(problem, problem.forget)(problem.base)
    slopes = torch.cat([g.abs().flatten() for g in torch.autograd.grad(loss, list(problem.base.parameters()))])
    before, after = flat(problem.base), flat(problem.run("salun").network)
    half = round(0.5 * len(before))
    unchanged = before == after
    assert unchanged.sum() >= len(before) - half
    # Positive slopes alone: zeros (dead units) are tied, and float sums may swap neighbours at the border.
    clearly_out = slopes < 0.9 * slopes.sort(descending=True).values[half - 1]
    clearly_in = slopes > 1.1 * slopes.sort(descending=True).values[half - 1]
    assert unchanged[clearly_out].all()
    assert (~unchanged[clearly_in]).float().mean() > 0.99


def test_salun_draws_labels_anew_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches labels drawn once, which are learned by heart, and labels that are never the true ones."""
    drawn: list[Tensor] = []

    def recording(logits: Tensor, labels: Tensor) -> Tensor:
        drawn.append(labels)
        return functional.cross_entropy(logits, labels)

    monkeypatch.setattr(saliency, "functional", SimpleNamespace(cross_entropy=recording))
    trained().changed(batch_size=16).run("salun", hyper_parameters={"epochs": 40})
    labels = torch.stack(drawn)
    assert labels.shape == (40, 16)
    assert len({tuple(row.tolist()) for row in labels}) == 40
    counts = labels.flatten().bincount(minlength=4)
    assert (counts - 160).abs().max() < 5 * 11  # 5 standard deviations


def test_salun_follows_forget_then_remain_set_with_one_optimiser() -> None:
    """Catches fresh optimiser state for each pass, and a pass over the remain set with wrong labels."""
    problem = precise()
    draw = task_of(problem, "salun").draw("labels")
    order = {}

    def mislabelled(epoch: int) -> Callable[[nn.Module], Tensor]:
        def loss(network: nn.Module) -> Tensor:
            labels = torch.randint(4, (len(problem.forget),), generator=draw)
            rows = problem.forget[order[epoch]]
            return functional.cross_entropy(network(problem.features[rows]), labels)

        return loss

    remain = mean_loss(problem, problem.remain)
    for epoch in range(2):
        order[epoch] = torch.randperm(len(problem.forget), generator=generator(derive(40, "salun", f"forget {epoch}")))
    losses = [(0.01, mislabelled(0)), (0.01, remain), (0.01, mislabelled(1)), (0.01, remain)]
    found = problem.run("salun", hyper_parameters={"mask_share": 1.0, "epochs": 2}).network
    agree(flat(found), by_hand(problem, losses), flat(problem.base))


def test_scrub_equals_a_plain_implementation() -> None:
    """Catches an optimiser bound to the teacher, a teacher that shares the student's tensors (its KL is always 0),
    KL of raw logits, a missing T², `msteps` and rate drops that come an epoch early or late."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 0.2))
    teacher = task_of(problem, "scrub").original
    away = mean_divergence(problem, teacher, problem.forget, 4.0)
    towards = mean_divergence(problem, teacher, problem.remain, 4.0)
    remain = mean_loss(problem, problem.remain)
    losses: list[tuple[float, Callable[[nn.Module], Tensor]]] = []
    for epoch in range(6):
        rate = 0.01 * (0.1 if epoch >= 3 else 1) * (0.1 if epoch >= 5 else 1)
        if epoch < 2:
            losses.append((rate, lambda n: -16 * away(n)))
        losses.append((rate, lambda n: 2.0 * remain(n) + 0.5 * 16 * towards(n)))
    hyper_parameters = {"msteps": 2, "gamma": 2.0, "epochs": 6}
    found = problem.run("scrub", hyper_parameters=hyper_parameters).network
    agree(flat(found), by_hand(problem, losses), flat(problem.base))


def test_scrub_forgets_by_its_max_steps() -> None:
    """Catches a maximisation without effect: the same run without it keeps the forget set."""
    problem = trained()
    losses = {
        msteps: problem.loss(
            problem.run("scrub", hyper_parameters={"learning_rate": 0.01, "msteps": msteps}).network, problem.forget
        )
        for msteps in (0, 3)
    }
    assert losses[3] > 5 * losses[0]


@pytest.mark.parametrize("architecture", [None, "CCT", "ViT"])
def test_fisher_squares_the_gradient_of_each_clip(architecture: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches squared batch gradients (known from public code), a sum for a mean, and dropout left on."""
    shape = STUDY_SHAPE if architecture else (16, 16)
    settings = replace(trained().settings, n_epochs=1)
    problem = small_problem(architecture, shape=shape, n_train=24, settings=settings)
    network = problem.base.train()
    n_weights = sum(p.numel() for p in network.parameters())
    monkeypatch.setattr("audio_mu.training.PER_CLIP_NUMBERS", 4 * n_weights)  # chunks of four, the last one of two
    rows = torch.arange(10)
    found = mean_squared_gradient(network, Examples(problem.features, problem.labels, rows))
    expected = [torch.zeros_like(p) for p in network.parameters()]
    for row in rows:
        slopes = torch.autograd.grad(mean_loss(problem, row[None])(network.eval()), list(network.parameters()))
        for total, slope in zip(expected, slopes, strict=True):
            total.add_(slope**2 / 10)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-9)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("alpha", "dampening"), [(None, 1.0), (1.5, 0.5), (1.5, 3.0)])
def test_ssd_dampens_what_matters_more_to_the_forget_set(alpha: float | None, dampening: float) -> None:
    """Catches a comparison with the remain set's Fisher, growth instead of dampening, and a missing bound of 1."""
    problem = precise()
    every = torch.cat([problem.forget, problem.remain])
    of = {
        name: torch.cat(
            [i.flatten() for i in mean_squared_gradient(problem.base, replace(problem.sets["forget"], indices=rows))]
        )
        for name, rows in {"all": every, "forget": problem.forget}.items()
    }
    threshold = 0.3 * 64 / 16 if alpha is None else alpha
    expected = [
        w * min(dampening * d / f, 1.0) if f > threshold * d else w
        for w, d, f in zip(*(t.tolist() for t in (flat(problem.base), of["all"], of["forget"])), strict=True)
    ]
    outcome = problem.run("ssd", hyper_parameters={"alpha": alpha, "dampening": dampening})
    torch.testing.assert_close(
        flat(outcome.network), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-12
    )
    changed = sum(e != w for e, w in zip(expected, flat(problem.base).tolist(), strict=True)) / len(expected)
    assert 0 < outcome.figures["share_changed"] == pytest.approx(changed, abs=1e-3)
    assert outcome.figures["alpha"] == pytest.approx(threshold)


def test_ssd_says_so_where_it_changes_nothing() -> None:
    """Catches the published α = 10, which is silently the identity once the forget set is a tenth of training."""
    problem = trained()
    outcome = problem.run("ssd", hyper_parameters={"alpha": 10.0})
    assert same(weights(outcome.network), weights(problem.base))
    assert outcome.figures["share_changed"] == 0
    assert "nothing changed" in outcome.warnings[0]


def test_bad_teacher_mixes_sets_and_teachers_under_its_own_adam() -> None:
    """Catches each set trained on its own, teachers swapped, a teacher that is the base's own initialisation, a literal
    SGD recipe, and a rate scaled by it."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 0.5))
    task = task_of(problem, "bad_teacher")
    shown = problem.remain[torch.randperm(48, generator=task.draw("shown"))[:15]]
    random_teacher, network = task.fresh("teacher"), task.base()
    assert not same(weights(random_teacher), weights(problem.initialise(40)))
    forget = mean_divergence(problem, random_teacher, problem.forget)
    remain = mean_divergence(problem, problem.base, shown)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        ((16 * forget(network) + 15 * remain(network)) / 31).backward()
        optimizer.step()
    found = problem.run("bad_teacher", hyper_parameters={"epochs": 2}).network
    difference = (flat(found) - flat(network)).abs()
    # Where a gradient is almost 0, Adam turns rounding into steps: nearly all weights agree, not all.
    assert difference.median() < 1e-7 and (difference < 1e-6).double().mean() > 0.98
    assert (flat(found) - flat(problem.base)).abs().max() == pytest.approx(2e-4, rel=0.02)


def test_l1_penalty_fades_from_its_full_value_over_the_epochs() -> None:
    """Catches a constant penalty, one that fades within an epoch or starts at 0, and biases left out."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 1e-6, momentum=0.0))
    remain = mean_loss(problem, problem.remain)

    def loss(strength: float) -> Callable[[nn.Module], Tensor]:
        return lambda network: remain(network) + strength * sum(p.abs().sum() for p in network.parameters())

    expected = by_hand(problem, [(1e-6, loss(0.5 * (1 - t / 4))) for t in range(4)], momentum=0.0)
    found = problem.run("l1_sparse", hyper_parameters={"penalty": 0.5, "epochs": 4}).network
    agree(flat(found), expected, flat(problem.base))


def test_l1_sparse_shrinks_weights() -> None:
    """Catches a penalty that is computed but not in the loss."""
    problem = trained().changed(optimizer=SGD)
    norms = [
        flat(problem.run("l1_sparse", hyper_parameters={"penalty": penalty}).network).abs().sum()
        for penalty in (0.0, 0.0005, 0.005)
    ]
    assert norms[0] > norms[1] > norms[2]


def test_delete_pulls_towards_the_originals_other_classes() -> None:
    """Catches a target that moves with the student, NaN from 0 · -∞, and a true class masked after the softmax."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 0.1))
    rows, labels = problem.forget, problem.labels[problem.forget]
    with torch.no_grad():
        others = problem.base(problem.features[rows]).softmax(1) * (1 - functional.one_hot(labels, 4))
    target = others / others.sum(1, keepdim=True)

    def loss(network: nn.Module) -> Tensor:
        log_probabilities = network(problem.features[rows]).log_softmax(1)
        return (torch.xlogy(target, target) - target * log_probabilities).sum(1).mean()

    found = problem.run("delete", hyper_parameters={"epochs": 3}).network
    agree(flat(found), by_hand(problem, [(0.01, loss)] * 3), flat(problem.base))
