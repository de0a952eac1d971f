"""The served form of a network: waveforms in, logits out, as it is logged and as it is tried before any work."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from audio_mu.base_models.fingerprints import network_identity, network_source, optimizer_settings, weights_tags
from audio_mu.compute.jobs import Result
from audio_mu.compute.problem import at_start, make_network
from audio_mu.config import Config, load_recipe
from audio_mu.data.audio import SAMPLE_RATE
from audio_mu.data.features import Frontend, feature_shape
from audio_mu.errors import UserError
from audio_mu.models.sharded import members
from audio_mu.models.waveform import servable
from audio_mu.own_code import own_code
from audio_mu.seeding import generator, seeded, settings_kept
from audio_mu.store import registry
from audio_mu.store.runs import Run
from audio_mu.store.weights import read_weights
from audio_mu.training import Examples, fit

LARGEST_BATCH = 8  # of the steps on noise
TRIED = 3  # clips: another number than the example's, which must not be in the graph
TOLERANCE = 1e-3  # of logits, relative to their size: the exported operations are not in the same order


def log_servable(run: Run, config: Config, class_names: Sequence[str], seed: int, result: Result) -> str:
    """Log a network with its frontend: waveforms in, logits out. Returns the model's URI."""
    run.tags(weights_tags(result.state))  # before the model: it may be saved by hand before this process ends
    return registry.log_model(
        run,
        _filled(config, len(class_names), seed, result.state),
        "model",
        len(class_names),
        {
            "sample_rate": SAMPLE_RATE,
            "samples": config.data.clip_samples,
            "class_names": list(class_names),
            "architecture": config.training.network,
            "pipeline": config.data.pipeline,
            "seed": seed,
        },
    )


def get_ready(config: Config, n_classes: int, seed: int) -> None:
    """Trace and write the network once, while workers compute and this process has nothing else to do.

    The first model is logged in half a second then instead of four or five. Nothing is said of what fails: it fails
    again, and is told, where a model is logged.
    """
    with suppress(Exception):
        registry.try_writing(_untrained(config, n_classes, seed), n_classes)


def try_serving(config: Config, n_classes: int, seed: int, state: Mapping[str, np.ndarray]) -> None:
    """Export a network, write its weights, read them again, and let it answer some noise, before the store is touched.

    Raises `UserError` where something of that fails, or where the exported network answers differently.
    """
    where = f"architecture={config.training.architecture!r}"
    needs = "torch operations for any number of clips (x.shape[0], not len(x)), without branches on values"
    words = f"{where} cannot be exported for serving"
    with settings_kept(), own_code(lambda about: f"{words} ({about}): its forward must be {needs}"):
        traced = _filled(config, n_classes, seed, state)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter about itself
            program = traced.program
            torch.export.save(program, Path(folder) / "model.pt2")
            kept = read_weights(Path(folder) / "model.pt2")
        lost = [name for name, value in traced.module.state_dict().items() if not torch.equal(kept[name], value)]
        noise = 0.1 * torch.randn(TRIED, config.data.clip_samples, generator=generator(0))
        with torch.inference_mode():
            own, exported = traced.module(noise), program.module()(noise)
    if lost or not torch.allclose(own, exported, rtol=TOLERANCE, atol=TOLERANCE * float(own.abs().max())):
        what = f"weight {lost[0]!r} is another one" if lost else f"it answers {TRIED} clips differently"
        raise UserError(
            f"{where} is not the same once it is exported for serving: {what}; its forward must be torch operations on "
            "its weights and its input alone"
        )


def try_training(config: Config, n_classes: int) -> None:
    """Take two steps with a network of the user's own on noise, from its start, then `try_serving`, before all work.

    Raises `UserError` where something of that fails.
    """
    where, size = f"architecture={config.training.architecture!r}", min(config.training.batch_size, LARGEST_BATCH)
    seed = config.training.seeds[0]
    gives = f"it must give logits [batch, {n_classes}] with a gradient, in training mode too"
    with settings_kept(), own_code(lambda about: f"{where} cannot be trained ({about}): {gives}"):
        with seeded(seed):
            shape = feature_shape(config.data.pipeline, config.data.clip_samples)
            network = make_network(config.training.architecture, shape, n_classes, config.training.shards)
            for own in members(network):
                at_start(own, config.training.architecture, seed)
            rows = torch.arange(2 * size)
            noise = Examples(torch.randn(len(rows), 1, *shape), rows % n_classes, rows)
            steps = optimizer_settings(config).build(network.parameters())
            fit(network, noise, steps, epochs=1, batch_size=size, seed=0, precision=config.training.precision)
        state = registry.as_numpy(network.state_dict())
    try_serving(config, n_classes, seed, state)


def _filled(config: Config, n_classes: int, seed: int, state: Mapping[str, np.ndarray]) -> registry.Traced:
    """What is served of a network's weights."""
    traced = _untrained(config, n_classes, seed)
    traced.module.get_submodule("network").load_state_dict(registry.as_tensors(state))
    return traced


def _untrained(config: Config, n_classes: int, seed: int) -> registry.Traced:
    # Networks of the user's own may draw more than their weights from the seed.
    drawn_from = seed if network_source(config) else 0
    return _traced(
        config.training.architecture, network_identity(config), config.data.pipeline, config.data.dataset,
        config.data.clip_samples, n_classes, config.training.shards, drawn_from,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _traced(
    architecture: str, identity: str, pipeline: str, dataset: str, samples: int, n_classes: int, shards: int,
    seed: int,
) -> registry.Traced:  # fmt: skip
    """What is served of an architecture, to be filled with weights; `identity` tells edits of one file apart."""
    with seeded(seed):
        network = make_network(architecture, feature_shape(pipeline, samples), n_classes, shards)
    return registry.Traced(servable(Frontend(pipeline, load_recipe(dataset)), network), samples)
