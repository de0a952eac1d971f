"""The fast ways of computing give the figures of the plain ones, which `study_loop` tells."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audio_mu.audit.performance import cross_entropy as losses_of
from audio_mu.audit.performance import performance
from audio_mu.config import Config
from audio_mu.config.parsers import ARCHITECTURES
from audio_mu.data.clips import Clips, load_clips
from audio_mu.data.splits import Split
from audio_mu.models import AudioClassifier, build, tiny
from audio_mu.requests.request import resolve_request
from audio_mu.seeding import generator
from audio_mu.training import Examples, OptimizerSettings, fit, ordered_batches, predict, train_from_scratch
from tests import study_loop
from tests.study_loop import ClipList

SHAPE, N, CLASSES, BATCH = (32, 63), 40, 5, 16
NO_DROPOUT = {"attention_dropout": 0.0, "stochastic_depth": 0.0}
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def network_of(architecture: str) -> AudioClassifier:
    """A small network as this project trains it; weights large enough that mistakes show."""
    torch.manual_seed(0)
    drawn = NO_DROPOUT if architecture == "CCT" else {}
    network = build(architecture, SHAPE, CLASSES, **tiny(architecture), **drawn)
    return network.to(memory_format=torch.channels_last)


def some_examples() -> Examples:
    features = torch.randn(N, 1, *SHAPE, generator=generator(1))
    return Examples(features, torch.arange(N) % CLASSES, torch.randperm(N, generator=generator(2)))


def as_list(examples: Examples) -> ClipList:
    pairs = [(examples.features[i].clone(), int(examples.labels[i])) for i in examples.indices]
    return ClipList([features for features, _ in pairs], [label for _, label in pairs])


def test_a_recipe_trains_as_the_plain_loop_of_torch() -> None:
    """Catches AdamW, a schedule, limited gradients or class weights that are not what everybody means by them."""
    examples, initial = replace(some_examples(), labels=torch.tensor([0, 0, 1, 2] * (N // 4))), network_of("VGGish")
    recipe = OptimizerSettings("adamw", 0.003, weight_decay=0.1, clip_gradient=0.5, schedule="cosine", warmup=0.25)
    trained = train_from_scratch(
        lambda seed: network_of("VGGish"),
        examples,
        recipe,
        epochs=4,
        batch_size=BATCH,
        seed=4,
        class_weights="balanced",
    )
    plain, clips, draw = study_loop.plain(initial), as_list(examples), generator(4)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.003, weight_decay=0.1, foreach=False)
    weights, step = torch.tensor([40 / 60, 40 / 30, 40 / 30, 0.0, 0.0]), 0  # 20, 10 and 10 of 40 clips, 3 classes
    plain.train()
    for _ in range(4):
        for rows in torch.randperm(len(clips), generator=draw).split(BATCH):
            features = torch.stack([clips[i][0] for i in rows.tolist()])
            labels = torch.tensor([clips[i][1] for i in rows.tolist()])
            share = (step + 1) / 3 if step < 3 else (1 + np.cos(np.pi * (step - 3) / 9)) / 2  # of 12 steps
            optimizer.param_groups[0]["lr"] = 0.003 * share
            optimizer.zero_grad()
            functional.cross_entropy(plain(features), labels, weight=weights).backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
            step += 1
    moved = torch.cat([(p - b).flatten() for p, b in zip(trained.parameters(), initial.parameters(), strict=True)])
    apart = torch.cat([(p - q).flatten() for p, q in zip(trained.parameters(), plain.parameters(), strict=True)])
    assert step == 12 and moved.abs().max() > 1e-2
    assert apart.norm() < 1e-3 * moved.norm()


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_batches_that_are_added_train_as_one_batch_of_all_their_clips(class_weights: str) -> None:
    """Catches gradients that are summed for averaged, averaged over batches for clips, limited batch by batch, class
    weights of one batch, a schedule that counts batches, and a last step that waits for batches of the next pass.
    """
    labels = torch.tensor([0, 0, 1, 2] * (N // 4))
    examples, recipe = replace(some_examples(), labels=labels), OptimizerSettings("sgd", 0.05, schedule="cosine")
    recipe = replace(recipe, weight_decay=0.1, clip_gradient=0.5, warmup=0.2)
    common = {"epochs": 4, "seed": 4, "class_weights": class_weights}

    def trained(batch_size: int, accumulate: int) -> torch.Tensor:
        settings = replace(recipe, accumulate=accumulate)
        network = train_from_scratch(
            lambda _: network_of("VGGish"), examples, settings, batch_size=batch_size, **common
        )
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    whole, initial = trained(12, 1), [parameter.detach().flatten() for parameter in network_of("VGGish").parameters()]
    moved = (whole - torch.cat(initial)).norm()
    for batch_size, accumulate in ((6, 2), (4, 3)):  # of 40 clips: steps of 12, 12, 12 and 4, the last of one batch
        assert (trained(batch_size, accumulate) - whole).norm() < 1e-3 * moved
    assert (trained(6, 1) - whole).norm() > 0.1 * moved


def test_added_gradients_are_those_of_a_plain_loop_of_torch() -> None:
    """Catches a sum that is not the mean over all clips of the step, in a last step of a whole and a smaller batch."""
    network, examples = network_of("ViT"), some_examples()
    plain, before = study_loop.plain(network), [p.detach().clone() for p in network.parameters()]
    optimizer = OptimizerSettings("sgd", 0.02).build(network.parameters())
    fit(network, examples, optimizer, epochs=2, batch_size=9, seed=4, accumulate=3)
    steps, clips = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, foreach=False), as_list(examples)
    draw = generator(4)
    plain.train()
    for _ in range(2):
        batches = torch.randperm(len(clips), generator=draw).split(9)  # 9, 9, 9, then 9 and 4 clips
        for step in (batches[:3], batches[3:]):
            steps.zero_grad()
            for rows in step:
                features = torch.stack([clips[i][0] for i in rows.tolist()])
                labels = torch.tensor([clips[i][1] for i in rows.tolist()])
                losses = functional.cross_entropy(plain(features), labels, reduction="sum")
                (losses / sum(map(len, step))).backward()
            steps.step()
    moved = torch.cat([(p - b).flatten() for p, b in zip(network.parameters(), before, strict=True)])
    apart = torch.cat([(p - q).flatten() for p, q in zip(network.parameters(), plain.parameters(), strict=True)])
    assert moved.abs().max() > 1e-3
    assert apart.norm() < 1e-3 * moved.norm()


def plain_steps(network: nn.Module, examples: Examples, learning_rate: float, epochs: int, seed: int) -> None:
    """Momentum SGD in a plain loop over a list of clips, in the order of batches that `fit` draws."""
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9, foreach=False)
    clips, draw = as_list(examples), generator(seed)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(clips), generator=draw).split(BATCH):
            features = torch.stack([clips[i][0] for i in rows.tolist()])
            labels = torch.tensor([clips[i][1] for i in rows.tolist()])
            optimizer.zero_grad()
            functional.cross_entropy(network(features), labels).backward()
            optimizer.step()


@every_architecture
def test_training_equals_the_plain_loop(architecture: str) -> None:
    """Catches a fast step (memory format, order of ReLU and pooling, fused optimiser, fused attention, batches cut from
    one tensor) that computes something else than the plain one."""
    network, examples = network_of(architecture), some_examples()
    before, plain = [p.detach().clone() for p in network.parameters()], study_loop.plain(network)
    optimizer = OptimizerSettings("sgd", 0.02).build(network.parameters())
    fit(network, examples, optimizer, epochs=3, batch_size=BATCH, seed=4)
    plain_steps(plain, examples, 0.02, epochs=3, seed=4)
    moved = torch.cat([(p - b).flatten() for p, b in zip(network.parameters(), before, strict=True)])
    apart = torch.cat([(p - q).flatten() for p, q in zip(network.parameters(), plain.parameters(), strict=True)])
    assert moved.abs().max() > 1e-2
    assert apart.norm() < 1e-3 * moved.norm()


@pytest.mark.parametrize("limit", [0.0, 0.1])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimisers_step_as_torch_has_them(name: str, limit: float) -> None:
    """Catches an optimiser that loses something of torch's own with the guards that it goes without, and gradients that
    are limited one by one, after the step, or not at all.
    """
    settings = OptimizerSettings(name, 0.01, weight_decay=0.1, clip_gradient=limit)
    networks = network_of("VGGish"), network_of("VGGish")
    kinds = {"sgd": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kind, norms = kinds[name], []
    optimizers = (
        settings.build(networks[0].parameters()),
        kind(networks[1].parameters(), lr=0.01, weight_decay=0.1, fused=True),
    )
    for batch in ordered_batches(some_examples(), BATCH):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(network(batch.features), batch.labels).backward()
            if limit and optimizer is optimizers[1]:
                norms.append(float(torch.nn.utils.clip_grad_norm_(network.parameters(), limit)))
            optimizer.step()
    assert all(norm > limit for norm in norms), "nothing was limited: the test cannot see anything"
    states = [list(network.state_dict().values()) for network in networks]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@every_architecture
def test_evaluation_equals_the_plain_pass(architecture: str) -> None:
    """Catches figures of batched logits that are not those of a pass over the clips, one by one or in other batches."""
    network, examples = network_of(architecture), some_examples()
    plain, clips = study_loop.plain(network), as_list(examples)
    logits, labels = predict(network, examples.features, examples.indices), examples.labels[examples.indices].numpy()
    one_by_one = torch.cat([plain.eval()(features[None]) for features, _ in zip(clips.features, labels)]).detach()
    np.testing.assert_allclose(logits, one_by_one.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses_of(logits, labels), study_loop.loss_list(plain, clips), rtol=1e-4, atol=1e-5)
    expected = study_loop.evaluate(plain, clips)
    found = performance(logits, labels)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_mapped_features_equal_those_in_memory(tmp_path: Path) -> None:
    """Catches a difference of a single bit between features mapped from the cache's file and a tensor in memory."""
    examples = some_examples()
    np.save(tmp_path / "features.npy", examples.features.numpy())
    mapped = replace(examples, features=torch.from_numpy(np.load(tmp_path / "features.npy", mmap_mode="c")))
    states = []
    for clips in (examples, mapped):
        network = network_of("VGGish")
        optimizer = OptimizerSettings("adam", 0.001).build(network.parameters())
        fit(network, clips, optimizer, epochs=2, batch_size=BATCH, seed=4)
        states.append(
            [*network.state_dict().values(), torch.from_numpy(predict(network, clips.features, clips.indices))]
        )
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert all(
        torch.equal(a.features, b.features) for a, b in zip(*(ordered_batches(c, 7) for c in (examples, mapped)))
    )


def test_features_in_batches_equal_those_one_by_one(small_digits: Path, tmp_path: Path) -> None:
    """Catches features that depend on the other clips of their batch, and clips and features that part company."""
    given = {"dataset": "audioMNIST", "data_dir": str(small_digits), "pipeline": "mel"}
    clips = load_clips(Config.from_text(given).data)
    chosen = range(0, len(clips), 9)
    plain = study_loop.load(study_loop.preprocess([small_digits / clips.ids[i] for i in chosen], tmp_path / "files"))
    assert len(plain) == 20
    for i, (features, label) in zip(chosen, plain, strict=True):
        torch.testing.assert_close(clips.features[i], features, rtol=1e-4, atol=1e-4)
        assert int(clips.labels[i]) == label


@pytest.mark.parametrize("duplicates", ["together", "ignore"])
def test_split_equals_the_plain_search(duplicates: str) -> None:
    """Catches clips that are in both sets or in neither, copies on both sides, and another draw than the plain one."""
    n, n_train = 200, 150
    ids = tuple(f"{i % 5}/{i:03d}.wav" for i in range(n))
    hashes = tuple(str(i % 140) for i in range(n))  # clips 140 to 149 are copies of the first ten
    nothing, labels = ("",) * n, torch.arange(n) % 5
    clips = Clips(
        torch.zeros(1), Path(), labels, ids, nothing, hashes, hashes, nothing, tuple("01234"), (), (), Path(), ""
    )
    split = Split("random", np.arange(n_train), np.arange(n_train, n), np.arange(n_train, n))
    config = Config.from_text({"forget_percentage": "30", "duplicates": duplicates})
    request = resolve_request(config.request, clips, split)
    forget, remain = study_loop.split(ids[:n_train], 30)
    copies = [id_ for id_ in remain if hashes[ids.index(id_)] in {hashes[ids.index(drawn)] for drawn in forget}]
    assert copies
    if duplicates == "together":
        forget, remain = forget + copies, [id_ for id_ in remain if id_ not in copies]
    assert [ids[i] for i in request.forget] == sorted(forget, key=ids.index)
    assert [ids[i] for i in request.remain] == remain
