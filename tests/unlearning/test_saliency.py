"""Methods that choose weights by their gradients, each against the known faults of public code."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from audio_mu.errors import UserError
from audio_mu.seeding import derive, generator
from audio_mu.training import Examples, OptimizerSettings, mean_squared_gradient
from audio_mu.unlearning import saliency
from audio_mu.unlearning.saliency import largest
from tests.unlearning.formulas import SGD, agree, by_hand, flat, mean_loss, precise, task_of
from tests.unlearning.small_problem import STUDY_SHAPE, Problem, same, small_problem, trained, weights


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


def test_msg_refuses_more_to_forget_than_to_keep() -> None:
    """Catches a comparison of many recordings with few, which the method does not define."""
    problem = trained()
    more = problem.forgetting(list(range(problem.n_train // 2 + 1)))
    with pytest.raises(UserError, match="33 clips to forget with as many to keep, and there are 31: leave msg out"):
        more.run("msg")


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
        rate = 0.001  # of the recipe, a tenth: the published 0.001; the first step of Adam is the rate itself
        slow = 0.1 * rate if name.startswith("convolutions") else rate
        assert steps[kept].median().item() == pytest.approx(slow, rel=0.01)
        if name.startswith("convolutions"):
            assert steps[~kept].median().item() == pytest.approx(rate, rel=0.01)


def test_msg_rate_rises_and_falls_step_by_step() -> None:
    """Catches a rate that changes once an epoch, starts or ends at 0, or exceeds the published rate."""
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
