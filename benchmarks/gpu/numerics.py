"""Do the figures hold on the GPU? Training beside float64, equal runs, CPU and GPU side by side, what bf16 leaves."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.audit.performance import cross_entropy as losses_of
from audio_mu.audit.performance import log_loss_feature, performance
from audio_mu.seeding import generator
from audio_mu.training import Examples, Objective, OptimizerSettings, fit, predict, train_from_scratch
from benchmarks.gpu import data
from benchmarks.gpu.arithmetic import DEFAULT, SHIPPED, arithmetic, logits_in
from benchmarks.gpu.measuring import ARCHITECTURES, BATCH, CLASSES, RATE, SHAPE, apart, flat, initialiser
from benchmarks.gpu.table import SKIPPED, Clock, Settings, Table
from tests import study_loop

STEPS_BATCH, STEPS_EPOCHS, STEPS_RATE = 64, 3, 0.02
CLOSE = 1e-3
"""Weights of two ways of training are the same if they are this much of the way gone apart, as the tests have it."""


def numerics(settings: Settings, table: Table, clock: Clock) -> None:
    """All of it, network by network, while time is left."""
    for question, least in ((beside_float64, 4), (two_runs, 4), (both_devices, 8)):
        for architecture in ARCHITECTURES:
            if clock.left < least * min(1.0, settings.minutes / 6):
                table.add("numerics", question.__name__, SKIPPED, network=architecture, note="no time is left")
                continue
            with table.attempt("numerics", question.__name__, network=architecture):
                question(architecture, settings, table)


def beside_float64(architecture: str, settings: Settings, table: Table) -> None:
    """A few steps by `fit` in each arithmetic and by a plain loop, beside the plain loop in float64 on the CPU."""
    n = 256 if settings.on_gpu and not settings.quick else 64
    start = initialiser(architecture, small=settings.quick, drops=False)(0)
    draw = generator(1)
    features, labels = torch.randn(n, 1, *SHAPE, generator=draw), torch.arange(n) % CLASSES
    before = list(start.parameters())
    plain = study_loop.plain(start)
    reference = _plain_steps(copy.deepcopy(plain).double(), features.double(), labels)
    ways = {"plain loop on the CPU, float32": _plain_steps(copy.deepcopy(plain), features, labels)}
    device = settings.device
    with arithmetic("float32"):
        ways["plain loop, float32"] = _plain_steps(
            copy.deepcopy(plain).to(device), features.to(device), labels.to(device)
        )
    examples = Examples(features.to(device), labels.to(device), torch.arange(n, device=device))
    for kind in ("float32", DEFAULT, "TF32", "bf16", SHIPPED) if settings.on_gpu else ("float32", SHIPPED):
        with arithmetic(kind) as objective:
            ways[f"fit, {kind}"] = _fitted(copy.deepcopy(start).to(device), examples, objective)
    steps = STEPS_EPOCHS * -(-n // STEPS_BATCH)
    for way, network in ways.items():
        distance = apart(network, reference, before)
        what = f"from float64 after {steps} steps, relative"
        table.add("numerics", what, distance, network=architecture, method=way)
        if way.endswith(", float32"):
            table.check("numerics", f"{what}, below {CLOSE}", distance < CLOSE, network=architecture, method=way)


def _fitted(network: nn.Module, examples: Examples, objective: Objective) -> nn.Module:
    optimizer = OptimizerSettings("sgd", STEPS_RATE).build(network.parameters())
    fit(
        network, examples, optimizer, epochs=STEPS_EPOCHS, batch_size=STEPS_BATCH, seed=4, objective=objective
    )  # fmt: skip
    return network


def _plain_steps(network: nn.Module, features: Tensor, labels: Tensor) -> nn.Module:
    """Momentum SGD written out, in the order of batches that `fit` draws."""
    optimizer = torch.optim.SGD(network.parameters(), lr=STEPS_RATE, momentum=0.9, foreach=False)
    draw = generator(4)
    network.train()
    for _ in range(STEPS_EPOCHS):
        for rows in torch.randperm(len(features), generator=draw).split(STEPS_BATCH):
            batch = torch.stack([features[i] for i in rows.tolist()])
            optimizer.zero_grad()
            functional.cross_entropy(network(batch), labels[rows.to(labels.device)]).backward()
            optimizer.step()
    return network


def two_runs(architecture: str, settings: Settings, table: Table) -> None:
    """Two equal trainings: bit for bit with torch's deterministic algorithms, and how far apart without them."""
    n = 2_048 if settings.on_gpu and not settings.quick else 64
    features, labels = (tensor.to(settings.device) for tensor in data.clips(settings, n))
    initialise = initialiser(architecture, small=settings.quick)
    examples = Examples(features, labels, torch.arange(n, device=settings.device))

    def train() -> nn.Module:
        return train_from_scratch(
            initialise, examples, OptimizerSettings("sgd", RATE), epochs=2, batch_size=BATCH, seed=40
        )

    start = list(initialise(40).parameters())
    for promised in (False, True):
        seconds: list[float] = []
        runs: list[nn.Module] = []
        with equal_runs(train if promised else None) as nondeterministic:
            for _ in range(2):
                begin = time.perf_counter()
                runs.append(train())
                flat(runs[-1].parameters())  # waits
                seconds.append(time.perf_counter() - begin)
        one, two = (network.state_dict() for network in runs)
        equal = all(torch.equal(one[name], two[name]) for name in one)
        add = partial(
            table.add, "numerics", network=architecture, method="deterministic" if promised else "torch's default"
        )
        far = apart(*runs, start)
        add("two equal runs apart, relative", far)
        add(f"2 epochs of {n:,} clips", min(seconds), "s")
        if promised:
            note = nondeterministic if equal else f"{far:.2g} of the way apart {nondeterministic}"
            table.check("numerics", "two equal runs are equal", equal, network=architecture, note=note)


@contextmanager
def equal_runs(trial: Callable[[], object] | None) -> Iterator[str]:
    """Torch's deterministic algorithms inside the block; without a trial nothing.

    Yields which operations have none: where the trial is refused, torch only warns of them.
    """
    cudnn = torch.backends.cudnn.deterministic
    found = ""
    try:
        if trial is not None:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.deterministic = True
            try:
                trial()
            except RuntimeError as error:
                if "deterministic" not in str(error):
                    raise
                found = " ".join(str(error).split())[:160]
                torch.use_deterministic_algorithms(True, warn_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield found
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = cudnn


def both_devices(architecture: str, settings: Settings, table: Table) -> None:
    """The same training from the same weights: on the CPU, on the GPU as shipped, and there in float32.

    Then, of the network trained as shipped, what `predict` keeps of the losses that membership attacks look at.
    """
    n_train, epochs = {"VGGish": (2_400, 8), "CCT": (1_200, 4), "ViT": (600, 2)}[architecture]
    if settings.quick or not settings.on_gpu:
        n_train, epochs = 64, 1
    features, labels = data.clips(settings, n_train + n_train // 4)
    for device, kind in (("cpu", "float32"), (settings.device, "float32"), (settings.device, SHIPPED)):
        examples = Examples(features.to(device), labels.to(device), torch.arange(n_train, device=device))
        network = initialiser(architecture, small=settings.quick)(40).to(device)
        # Small batches: as many steps as the plateau at VGGish's start needs.
        optimizer = OptimizerSettings("sgd", RATE).build(network.parameters())
        begin = time.perf_counter()
        with arithmetic(kind) as objective:
            fit(network, examples, optimizer, epochs=epochs, batch_size=32, seed=40, objective=objective)
        logits = predict(network, examples.features, np.arange(len(features)))
        where = "CPU" if device == "cpu" else "GPU"
        add = partial(table.add, "numerics", network=architecture, method=f"{where}, {kind}")
        add(f"{epochs} epochs of {n_train:,} clips, and logits", time.perf_counter() - begin, "s")
        for name, rows in (("training", slice(None, n_train)), ("test", slice(n_train, None))):
            for key, value in performance(logits[rows], labels[rows].numpy()).items():
                if key != "ece":
                    add(f"{name} {key}", value)
    # The loop's last network is the one that was trained as shipped.
    _resolution(architecture, network, examples.features, labels.numpy(), table)


def _resolution(architecture: str, network: nn.Module, features: Tensor, labels: np.ndarray, table: Table) -> None:
    """The logits of `predict` beside those in float64: answers, losses, and the losses that can be told apart."""
    exact_network = copy.deepcopy(network).cpu().double()
    with torch.inference_mode():
        exact = torch.cat([exact_network(part) for part in features.cpu().double().split(64)]).numpy()
    ways = {
        "`predict`": predict(network, features, np.arange(len(labels))),
        "float32": logits_in("float32", network, features).numpy(),
    }
    scale = np.abs(exact).max()
    for way, logits in ways.items():
        losses, true_losses = losses_of(logits, labels), losses_of(exact, labels)
        changed = float((logits.argmax(axis=1) != exact.argmax(axis=1)).mean())
        error = np.abs(log_loss_feature(losses) - log_loss_feature(true_losses))
        figures = {
            "largest error of a logit, of the largest logit": float(np.abs(logits - exact).max() / scale),
            "share of answers that differ from float64's": changed,
            "mean error of log loss": float(error.mean()),
            "different losses, share of clips": len(np.unique(losses)) / len(losses),
        }
        for what, value in figures.items():
            table.add("numerics", what, value, network=architecture, method=f"logits of {way}")
