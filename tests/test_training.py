"""The loops over batches: their order, their steps, and what they leave behind."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.config.parsers import ARCHITECTURES
from audio_mu.models import build, tiny
from audio_mu.seeding import generator, seeded
from audio_mu.training import (
    PREDICT_BATCH,
    Batch,
    Examples,
    OptimizerSettings,
    batch_sizes,
    cross_entropy,
    endless_batches,
    fit,
    loss_of,
    pick_device,
    predict,
    train_from_scratch,
)

SHAPE, N_CLASSES = (16, 16), 3
SGD = OptimizerSettings("sgd", 0.05)


def initialise(seed: int, architecture: str = "VGGish") -> nn.Module:
    shape = SHAPE if architecture == "VGGish" else (32, 63)
    widths = {"blocks": ((4,), (4,)), "hidden": 8} if architecture == "VGGish" else tiny(architecture)
    with seeded(seed):
        return build(architecture, shape, N_CLASSES, **widths).to(memory_format=torch.channels_last)


def some_examples(n: int = 10, shape: tuple[int, int] = SHAPE) -> Examples:
    """Every second clip of a larger tensor, in falling order, so that rows, indices and clips all differ."""
    features = torch.randn(2 * n, 1, *shape, generator=generator(1))
    labels = torch.randint(N_CLASSES, (2 * n,), generator=generator(2))
    return Examples(features, labels, torch.arange(2 * n - 1, 0, -2))


def state(network: nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def batches_of_a_fit(seed: int, epochs: int, batch_size: int = 4) -> list[Batch]:
    seen: list[Batch] = []

    def objective(network: nn.Module, batch: Batch) -> Tensor:
        seen.append(batch)
        return cross_entropy(network, batch)

    network = initialise(0)
    fit(
        network, some_examples(), SGD.build(network.parameters()),
        epochs=epochs, batch_size=batch_size, seed=seed, objective=objective,
    )  # fmt: skip
    return seen


def test_each_pass_covers_every_clip_once_with_a_smaller_last_batch() -> None:
    """Catches a dropped last batch, a padded one, clips drawn with replacement, and passes in one fixed order."""
    seen = batches_of_a_fit(seed=5, epochs=2)
    assert [len(batch.rows) for batch in seen] == [4, 4, 2, 4, 4, 2]
    passes = [torch.cat([batch.rows for batch in part]).tolist() for part in (seen[:3], seen[3:])]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))
    assert passes[0] != passes[1] != list(range(10))


def test_one_clip_is_no_batch_where_batches_are_normalised() -> None:
    """Catches a last batch that torch refuses, networks without normalisation that train in other batches, and one clip
    that is normalised by itself.
    """
    normalised = nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.BatchNorm1d(6), nn.Linear(6, N_CLASSES))
    assert batch_sizes(initialise(0), 9, 4) == [4, 4, 1]
    assert [batch_sizes(normalised, n, 4) for n in (9, 8, 10, 1, 5)] == [[4, 5], [4, 4], [4, 4, 2], [1], [5]]
    assert batch_sizes(normalised, 3, 1) == [1, 1, 1]
    seen: list[bool] = []

    def look(network: nn.Module, batch: Batch) -> Tensor:
        seen.append(normalised[2].training)
        return cross_entropy(network, batch)

    one = replace(some_examples(), indices=torch.tensor([3]))
    for examples, at_rest in ((some_examples(9), []), (some_examples(9), [normalised[2]]), (one, [])):
        steps = SGD.build(normalised.parameters())
        fit(normalised, examples, steps, epochs=1, batch_size=9, seed=0, objective=look, at_rest=at_rest)
    assert seen == [True, False, False] and int(normalised[2].num_batches_tracked) == 1


def test_batches_hold_the_clips_of_their_rows() -> None:
    """Catches rows taken for positions in the whole tensor."""
    examples = some_examples()
    for batch in batches_of_a_fit(seed=5, epochs=1):
        clips = examples.indices[batch.rows]
        assert torch.equal(batch.features, examples.features[clips])
        assert torch.equal(batch.labels, examples.labels[clips])


def test_order_depends_on_the_seed_alone() -> None:
    """Catches an order drawn from the global generator, and a fit that moves the caller's generator."""
    orders = []
    for caller_seed in (0, 1):
        torch.manual_seed(caller_seed)
        before = torch.get_rng_state()
        orders.append(torch.cat([batch.rows for batch in batches_of_a_fit(seed=5, epochs=2)]).tolist())
        assert torch.equal(before, torch.get_rng_state())
    assert orders[0] == orders[1]
    assert orders[0] != torch.cat([batch.rows for batch in batches_of_a_fit(seed=6, epochs=2)]).tolist()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_is_bit_for_bit_repeatable(architecture: str, name: str) -> None:
    """Catches dropout or updates that draw from anything but the seed, with channels_last weights."""
    examples = some_examples(shape=SHAPE if architecture == "VGGish" else (32, 63))
    results = [
        state(train_from_scratch(
            lambda seed: initialise(seed, architecture), examples, OptimizerSettings(name, 0.003),
            epochs=2, batch_size=4, seed=seed,
        ))
        for seed in (3, 3, 4)
    ]  # fmt: skip
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_steps_are_those_of_the_textbook(name: str, memory_format: torch.memory_format) -> None:
    """Catches a fused update that reads gradients in another memory layout than the weights'."""
    examples = some_examples()
    network = initialise(0).to(memory_format=memory_format)
    by_hand = initialise(0).to(memory_format=torch.contiguous_format)
    optimizer = OptimizerSettings(name, 0.01, momentum=0.9, weight_decay=0.1).build(network.parameters())
    fit(network, examples, optimizer, epochs=3, batch_size=10, seed=0)

    features, labels = examples.features[examples.indices], examples.labels[examples.indices]
    parameters = list(by_hand.parameters())
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    for step in range(1, 4):
        slopes = torch.autograd.grad(functional.cross_entropy(by_hand(features), labels), parameters)
        with torch.no_grad():
            for p, slope, m, v in zip(parameters, slopes, first, second, strict=True):
                decayed = slope if name == "adamw" else slope + 0.1 * p
                if name == "adamw":
                    p.mul_(1 - 0.01 * 0.1)
                if name == "sgd":
                    m.copy_(decayed if step == 1 else 0.9 * m + decayed)
                    p.sub_(0.01 * m)
                else:
                    m.copy_(0.9 * m + 0.1 * decayed)
                    v.copy_(0.999 * v + 0.001 * decayed**2)
                    p.sub_(0.01 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
    for found, expected in zip(network.parameters(), parameters, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)


def test_reported_loss_is_the_mean_over_clips() -> None:
    """Catches a mean over batches, in which clips of a smaller last batch weigh more."""
    network, examples = initialise(0), some_examples()
    losses: list[float] = []
    fit(
        network, examples, OptimizerSettings("sgd", 0.0).build(network.parameters()), epochs=2, batch_size=4, seed=0,
        after_epoch=lambda epoch, loss: losses.append(loss),
    )  # fmt: skip
    logits = network(examples.features[examples.indices])
    expected = functional.cross_entropy(logits, examples.labels[examples.indices]).item()
    assert losses == pytest.approx([expected] * 2, rel=1e-5)


def test_hooks_run_around_steps_and_passes() -> None:
    """Catches hooks out of order, and a network that is not in train mode for steps and evaluation mode after."""
    network, events = initialise(0), []

    def record(name: str, *values: float) -> None:
        events.append((name, *values[:1], network.training))

    fit(
        network, some_examples(), SGD.build(network.parameters()), epochs=2, batch_size=5, seed=0,
        before_epoch=lambda epoch: record("before", epoch),
        after_step=lambda: record("step"),
        after_epoch=lambda epoch, loss: record("after", epoch, loss),
    )  # fmt: skip
    steps = [("step", True)] * 2
    assert [e for e in events if e[0] != "before"] == [*steps, ("after", 0, False), *steps, ("after", 1, False)]
    assert [e[:2] for e in events if e[0] == "before"] == [("before", 0), ("before", 1)]
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


def test_frozen_parameters_stay() -> None:
    """Catches an optimiser that moves (by weight decay) what does not want gradients."""
    network = initialise(0).requires_grad_(False)
    network.head.requires_grad_(True)
    before = state(network)
    optimizer = OptimizerSettings("sgd", 0.1, weight_decay=0.5).build(network.parameters())
    fit(network, some_examples(), optimizer, epochs=2, batch_size=5, seed=0)
    names = list(network.state_dict())
    moved = {name for name, a, b in zip(names, before, state(network), strict=True) if not torch.equal(a, b)}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("training", [True, False])
def test_predict_equals_a_plain_forward_and_restores_the_mode(training: bool) -> None:
    """Catches dropout while predicting, a lost last part, another order, and a mode that is not restored."""
    network = initialise(0, "CCT").train(training)
    n = PREDICT_BATCH + 3
    features = torch.randn(n, 1, 32, 63, generator=generator(3))
    indices = torch.randperm(n, generator=generator(4))
    found = predict(network, features, indices.numpy())
    assert network.training is training
    assert all(module.training is training for module in network.modules())
    network.head.train(not training)
    predict(network, features, indices[:2].numpy())
    assert (network.training, network.head.training) == (training, not training)
    with torch.no_grad():
        expected = network.eval()(features)[indices]
    assert found.dtype.name == "float32" and found.shape == (n, N_CLASSES)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_checkpoint_keeps_the_first_best_epoch() -> None:
    """Catches the last of equals, the last epoch, and a best state that trains on because it was not copied."""
    examples, scores = some_examples(), iter([0.1, 0.5, 0.5, 0.2])
    arguments = {"batch_size": 4, "seed": 3}
    kept = train_from_scratch(initialise, examples, SGD, epochs=4, checkpoint=lambda network: next(scores), **arguments)
    after = [state(train_from_scratch(initialise, examples, SGD, epochs=n, **arguments)) for n in range(5)]
    assert [equal(state(kept), weights) for weights in after] == [False, False, True, False, False]


def test_training_starts_from_the_seeds_weights_and_restores_the_callers_draws() -> None:
    """Catches an initialisation that depends on the caller, and a caller whose generator was moved."""
    before = torch.get_rng_state()
    network = train_from_scratch(initialise, some_examples(), SGD, epochs=0, batch_size=4, seed=3)
    assert equal(state(network), state(initialise(3)))
    train_from_scratch(initialise, some_examples(), SGD, epochs=1, batch_size=4, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_endless_batches_go_pass_after_pass() -> None:
    """Catches passes that repeat one order, and clips left out where the batch does not divide the set."""
    batches = list(itertools.islice(endless_batches(some_examples(), 4, generator(9)), 6))
    passes = [torch.cat([b.rows for b in part]).tolist() for part in (batches[:3], batches[3:])]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))
    assert passes[0] != passes[1]


def test_bf16_is_of_the_forward_pass_alone() -> None:
    """Catches logits, losses, weights or moments in bf16, evaluation in it, and a network that keeps computing so."""
    examples, network, seen = some_examples(), initialise(0), set()
    evaluated: list[np.ndarray] = []

    def look(network: nn.Module, batch: Batch) -> Tensor:
        evaluated[:] = [predict(network, examples.features, examples.indices)]
        logits = network(batch.features)
        seen.update([logits.dtype, *(p.dtype for p in network.parameters())])
        return functional.cross_entropy(logits, batch.labels)

    still = OptimizerSettings("adam", 0.0).build(network.parameters())
    fit(network, examples, still, epochs=1, batch_size=4, seed=0, precision="bf16", objective=look)
    seen |= {value.dtype for state in still.state.values() for value in state.values()}
    assert seen == {torch.float32}
    assert np.array_equal(evaluated[0], predict(initialise(0), examples.features, examples.indices))
    trained = {kind: initialise(0) for kind in ("float32", "bf16")}
    for kind, other in trained.items():
        fit(other, examples, SGD.build(other.parameters()), epochs=1, batch_size=4, seed=0, precision=kind)
    far = [float((a - b).norm() / a.norm()) for a, b in zip(*map(state, trained.values()), strict=True)]
    assert 0 < max(far) < 0.05


def test_an_objective_that_fails_leaves_the_network_as_it_was() -> None:
    """Catches a network that goes on in bf16 after its training was broken off, and a forward pass of its own lost."""
    network, examples = initialise(0), some_examples()
    answers = functools.partial(type(network).forward, network)
    for own in ({}, {"forward": answers}):
        vars(network).update(own)
        with pytest.raises(ZeroDivisionError):
            fit(
                network, examples, SGD.build(network.parameters()),
                epochs=1, batch_size=4, seed=0, precision="bf16", objective=lambda *_: 1 / 0,
            )  # fmt: skip
        assert vars(network).get("forward") is own.get("forward")


def test_optimizer_settings_reach_the_optimizer() -> None:
    """Catches momentum, weight decay or a limit that is not passed on."""
    parameters = list(initialise(0).parameters())
    (sgd,) = OptimizerSettings("sgd", 0.1, 0.8, 0.01).build(parameters).param_groups
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"], sgd["nesterov"]) == (0.1, 0.8, 0.01, False)
    for name, decoupled in (("adam", False), ("adamw", True)):
        (adam,) = OptimizerSettings(name, 0.1, 0.8, 0.01).build(parameters).param_groups
        assert (adam["lr"], adam["betas"], adam["weight_decay"]) == (0.1, (0.9, 0.999), 0.01)
        assert adam["decoupled_weight_decay"] is decoupled


def test_class_weights_are_of_the_clips_that_are_trained_on() -> None:
    """Catches weights counted over all labels of the data set, and a class that does not occur."""
    examples = Examples(torch.randn(8, 1, *SHAPE), torch.tensor([2, 2, 2, 2, 0, 0, 0, 0]), torch.tensor([0, 4, 5, 6]))
    network, (batch,) = initialise(0), list(endless_batches_once(examples))
    expected = functional.cross_entropy(network(batch.features), batch.labels, weight=torch.tensor([2 / 3, 0, 2.0]))
    torch.testing.assert_close(loss_of("balanced", examples)(network, batch), expected)
    assert loss_of("none", examples) is cross_entropy


def endless_batches_once(examples: Examples) -> list[Batch]:
    return list(itertools.islice(endless_batches(examples, len(examples), generator(0)), 1))


def test_device_by_name() -> None:
    """Catches a name that is not followed."""
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
