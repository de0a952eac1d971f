"""Train the base models of every seed and register them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from audio_mu.audit.performance import cross_entropy, performance
from audio_mu.config import Config, load_recipe
from audio_mu.data.features import SAMPLE_RATE, Frontend
from audio_mu.files import hash_of
from audio_mu.models.waveform import servable
from audio_mu.progress import say
from audio_mu.report.cards import BaseFacts, ModelFacts, base_card, family_note
from audio_mu.store import queries, registry
from audio_mu.store.runs import Run, Store
from audio_mu.workflows.engine import Engine
from audio_mu.workflows.jobs import Result, TrainJob, train_job
from audio_mu.workflows.ledger import read_ledger
from audio_mu.workflows.prepare import (
    TRAINING_SOURCE,
    Data,
    base_tags,
    load_data,
    machine,
    matching,
    network_identity,
    network_source,
    optimizer_settings,
    problem,
    recipe_of,
    source_hash,
    stage_run,
)

NEAR_CHANCE = 2.0  # accuracy below twice that of guessing


def train(config: Config, store: Store, engine: Engine, parent: Run | None = None) -> dict[int, float]:
    """Train what the store does not have yet; return the test accuracy per seed.

    Every seed's run holds its metrics, losses.csv and logits; its model is a new version of the registered model,
    behind the alias `seed-NN`.
    """
    config = config.resolved()
    data = load_data(config, read_ledger(store, config.name))
    for entry in data.left_out:
        n = int(matching(data.clips, entry.ids, entry.hashes).sum())
        here = f"{n} of its recordings are left out" if n else "its recordings are gone"
        say(f"ledger: request {entry.request} ({entry.hash[:8]}, {entry.state}): {here}")
    fingerprints = {seed: _fingerprint(config, data, seed) for seed in config.seeds}
    accuracies: dict[int, float] = {}
    with stage_run(store, parent, "train", config) as run:
        run.dataset(config.name, data.digest, len(data.split.train), "train")
        if data.clips.skipped:
            run.csv("skipped.csv", pd.DataFrame(data.clips.skipped, columns=["clip_id", "reason"]))
        pending = []
        for seed, fingerprint in fingerprints.items():
            finished = queries.newest(store, {"fingerprint": fingerprint, "stage": "train"})
            version = registry.of_run(store, config.registered_model, finished.id) if finished else None
            if finished is None or version is None or config.force:
                pending.append(seed)
                continue
            registry.set_alias(store, version, f"seed-{seed}")
            accuracies[seed] = finished.metrics["test/accuracy"]
            say(f"seed {seed}: reusing the base model of run {finished.name} ({finished.id[:8]})")
        jobs = [_job(config, data, seed) for seed in pending]
        for job, result in engine.run(train_job, jobs, f"base models ({config.n_epochs} epochs each)"):
            accuracies[job.seed] = _log(config, store, run, data, job.seed, fingerprints[job.seed], result)
        _summarise(config, run, data, accuracies)
    return accuracies


def _fingerprint(config: Config, data: Data, seed: int) -> str:
    recipe = load_recipe(config.dataset)
    return hash_of(
        [
            "train", seed, config.pipeline, network_identity(config), recipe_of(config),
            [recipe.momentum, recipe.logmel_shift, recipe.logmel_scale],
            data.digest, machine(config), source_hash(TRAINING_SOURCE),
        ]
    )  # fmt: skip


def _job(config: Config, data: Data, seed: int) -> TrainJob:
    assert config.batch_size is not None and config.n_epochs is not None  # resolved
    return TrainJob(
        problem=problem(config, data.clips),
        seed=seed,
        train=data.split.train,
        sets=_sets(data),
        optimizer=optimizer_settings(config),
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        best_on="test" if config.checkpoint == "best_test" else None,
    )


def _sets(data: Data) -> dict[str, np.ndarray]:
    """What a base model is evaluated on: the clips of earlier requests too, which it has not seen."""
    earlier = {name: found.clips for name, found in data.earlier.items()}
    return {"train": data.split.train, "test": data.split.test, **earlier}


def _log(config: Config, store: Store, parent: Run, data: Data, seed: int, fingerprint: str, result: Result) -> float:
    clips = data.clips
    labels = clips.labels.numpy()
    tags = {**base_tags(config), "seed": str(seed), "fingerprint": fingerprint}
    sets = _sets(data)
    metrics = {
        f"{name}/{key}": value
        for name, indices in sets.items()
        for key, value in performance(result.logits[name], labels[indices]).items()
    }
    with store.child_run(parent, "train", "seed", f"seed-{seed}", tags, _params(config, seed)) as run:
        run.metrics({**metrics, "time/total_s": result.total_seconds, "time/cpu_s": result.cpu_seconds})
        run.curves(result.curves)
        run.csv("losses.csv", losses_table(data, result.logits))
        for name, indices in sets.items():
            run.npz(
                f"logits/{name}.npz",
                clip_id=np.array([clips.ids[i] for i in indices]),
                label=labels[indices],
                logits=result.logits[name],
            )
        uri = log_servable(run, config, data, seed, result)
        sizes = len(data.split.train), len(data.split.test)
        facts = _facts(config, data, seed)
        card = base_card(facts, BaseFacts(*sizes, metrics["train/accuracy"], metrics["test/accuracy"]))
        run.text("model_card.md", card)
        version = registry.register(
            store,
            config.registered_model,
            uri,
            run.id,
            {
                **base_tags(config),
                "seed": str(seed),
                "recipe": json.dumps(recipe_of(config), sort_keys=True),
                "clips_digest": data.digest,
                "split": data.split.kind,
                "base_run_id": run.id,
                "fingerprint": fingerprint,
                "class_names": json.dumps(clips.class_names)[:5000],
                **({"network_source": source} if (source := network_source(config)) else {}),
            },
            card,
        )
        run.tags({"base_version": version.version})
    # Only now: an alias never points to a version whose run was not finished.
    registry.set_alias(store, version, f"seed-{seed}")
    store.client.update_registered_model(version.name, family_note(facts))
    return metrics["test/accuracy"]


def _facts(config: Config, data: Data, seed: int) -> ModelFacts:
    assert config.pipeline is not None  # resolved
    return ModelFacts(
        config.registered_model, config.name, config.pipeline, config.network, seed, data.clips.class_names,
        config.clip_samples, SAMPLE_RATE, data.split.kind, recipe_of(config),
    )  # fmt: skip


def losses_table(data: Data, logits: dict[str, np.ndarray]) -> pd.DataFrame:
    """clip_id, label, speaker, loss, member of the training and test clips, in that order."""
    clips, labels = data.clips, data.clips.labels.numpy()
    frames = []
    for name, indices, member in (("train", data.split.train, 1), ("test", data.split.test, 0)):
        frames.append(
            pd.DataFrame(
                {
                    "clip_id": [clips.ids[i] for i in indices],
                    "label": [clips.class_names[labels[i]] for i in indices],
                    "speaker": [clips.speakers[i] for i in indices],
                    "loss": cross_entropy(logits[name], labels[indices]),
                    "member": member,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def log_servable(run: Run, config: Config, data: Data, seed: int, result: Result) -> str:
    """Log a network with its frontend: waveforms in, logits out. Returns the model's URI."""
    assert config.pipeline is not None  # resolved
    network = problem(config, data.clips).initialise(seed)
    network.load_state_dict(registry.as_tensors(result.state))
    frontend = Frontend(config.pipeline, load_recipe(config.dataset))
    return registry.log_model(
        run,
        servable(frontend, network),
        "model",
        config.clip_samples,
        len(data.clips.class_names),
        {
            "sample_rate": SAMPLE_RATE,
            "samples": config.clip_samples,
            "class_names": list(data.clips.class_names),
            "architecture": config.network,
            "pipeline": config.pipeline,
            "seed": seed,
        },
    )


def _params(config: Config, seed: int) -> dict[str, str]:
    return {**config.as_text(), "seed": str(seed)}


def _summarise(config: Config, run: Run, data: Data, accuracies: dict[int, float]) -> None:
    chance = NEAR_CHANCE / len(data.clips.class_names)
    mean = float(np.mean(list(accuracies.values())))
    run.metrics({"test/accuracy": mean})
    for seed, accuracy in sorted(accuracies.items()):
        say(f"  seed {seed}: test accuracy {accuracy:.3f}")
    say(f"base models of {config.name} ({config.pipeline}, {config.network}): test accuracy {mean:.3f}, "
        f"mean of {len(accuracies)} seeds")  # fmt: skip
    poor = [seed for seed, accuracy in accuracies.items() if accuracy < chance]
    if poor:
        run.tags({"near_chance": ",".join(map(str, poor))})
        say(
            f"WARNING: the base models of seeds {poor} are near chance: what is unlearned from them means nothing. "
            "Try more epochs (n_epochs), pipeline=logmel, optimizer=adam learning_rate=0.001 batch_size=64"
        )
    if len(data.split.nonmembers) < len(data.split.test):
        say(f"note: {data.split.n_test_copies} test clips are copies of training clips and no non-members")
