"""Train the base models of every seed and register them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from audio_mu.audit.by_class import by_class
from audio_mu.audit.certainty import majority_share
from audio_mu.audit.performance import cross_entropy, performance
from audio_mu.base_models.adopted import refuse_replacing
from audio_mu.base_models.fingerprints import (
    TRAINING_SOURCE,
    machine,
    network_identity,
    network_source,
    source_hash,
    training_job,
)
from audio_mu.base_models.served import get_ready, log_servable, try_training
from audio_mu.base_models.shards import TABLE, placed, shard_tags, shards_table
from audio_mu.compute.attempt import Failed, measured
from audio_mu.compute.cores import tell_idle, tell_precision
from audio_mu.compute.engine import Engine
from audio_mu.compute.jobs import Result, TrainJob, train_job
from audio_mu.config import Config
from audio_mu.data.audio import SAMPLE_RATE
from audio_mu.data.segments import lengths, seconds_used
from audio_mu.data.splits import ENOUGH, one_sided
from audio_mu.errors import UserError, counted, first_of
from audio_mu.names import ADOPTED, RECIPE_KNOWN
from audio_mu.progress import say
from audio_mu.report.base_models import Accuracies, advice, learned_enough, near_chance, sound_told, told_of
from audio_mu.report.cards import BaseFacts, ModelFacts, base_card, family_note
from audio_mu.report.facts import sides_told
from audio_mu.requests.ledger import RETIRED
from audio_mu.requests.other_names import ledger_here
from audio_mu.store import queries, registry
from audio_mu.store.artifacts import Unreadable, stored_logits
from audio_mu.store.failed import log_failed
from audio_mu.store.handle import Store
from audio_mu.store.locks import registry_locked
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Child, Run, child_run
from audio_mu.system.hashing import hash_of
from audio_mu.workflows.data import Data, data_to_train, learnt_from
from audio_mu.workflows.stage import base_params, base_tags, stage_run

SHOWN = 12  # class names that are printed
ALL = 0.999  # of the sound


def train(config: Config, store: Store, engine: Engine, parent: Run | None = None) -> dict[int, float]:
    """Train what the store does not have yet; return the test accuracy per seed, without the seeds that failed.

    Every seed's run holds its metrics, losses.csv and logits; its model is a new version of the registered model,
    behind the alias `seed-NN`.
    """
    refuse_replacing(config, store)
    data = data_to_train(config, store, ledger_here(store, config.data.label))
    for out in data.left_out:
        say(f"ledger: request {out.request} ({out.entry.hash[:8]}, {out.entry.state}): {out.told}")
    shards = placed(store, config, data.clips, data.split.train)
    made = {
        seed: Made(seed, _fingerprint(config, data, seed, shards), shard_tags(config), shard_of=shards)
        for seed in config.training.seeds
    }
    found: dict[int, Accuracies] = {}
    with stage_run(store, parent, "train", config) as run:
        run.dataset(config.data.label, data.digest, len(data.split.train), "train")
        describe(run, config, data)
        tell_precision(config)
        found |= {s: known for s, own in made.items() if (known := reuse(config, store, data, own)) is not None}
        jobs = [_job(config, data, own) for seed, own in made.items() if seed not in found]
        if jobs and network_source(config):
            try_training(config, len(data.clips.class_names))
        tell_idle(config.machine, len(jobs))
        ready = partial(get_ready, config, len(data.clips.class_names), config.training.seeds[0])
        for job, result in engine.run(train_job, jobs, f"base models ({config.training.n_epochs} epochs each)", ready):
            own, outcome = made[job.seed], measured(result, partial(metrics_of, data))
            if isinstance(outcome, Failed):
                log_failed(*_run_of(config, run, own), outcome.reason, outcome.trace)
            else:
                found[job.seed] = log_base(config, data, run, own, *outcome)
        if found:
            _summarise(config, run, data, found)
    return {seed: of.test for seed, of in found.items()}


@dataclass(frozen=True)
class Made:
    """A base model to be logged: its seed, and the hash of all that it depends on.

    Of one that was trained elsewhere also `tags` that say so, and `origin`, the same in words. `shard_of`: the shard of
    every clip, where there are shards.
    """

    seed: int
    fingerprint: str
    tags: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    shard_of: np.ndarray | None = None


def describe(run: Run, config: Config, data: Data, adopted: bool = False) -> None:
    """Log and print what recordings were found, and what is wrong with them."""
    say(_about(config, data, adopted))
    clips, longest = data.clips, config.data.clip_seconds
    used, there = seconds_used(clips.ids, clips.seconds, longest)
    run.metrics({"sound/used_s": used, "sound/there_s": there})
    if used < ALL * there:
        say(sound_told(used, there, longest, [*lengths(clips.ids, clips.seconds)], config.data.dataset == "folder"))
    if lacking := one_sided(data.split, data.clips):
        run.tags({"one_sided_classes": first_of(lacking, SHOWN)})
        say(
            f"WARNING: {counted(len(lacking), 'class')} of {len(data.clips.class_names)} on one side alone: "
            f"{first_of(lacking, SHOWN)}; give each {ENOUGH} recordings, or leave it out"
        )
    if data.clips.skipped:
        run.csv("skipped.csv", pd.DataFrame(data.clips.skipped, columns=["clip_id", "reason"]))


def reuse(config: Config, store: Store, data: Data, made: Made) -> Accuracies | None:
    """Put a finished model of the same fingerprint behind its seed's alias; None where it has to be made again."""
    finished = queries.newest(store, {"fingerprint": made.fingerprint, "stage": "train"})
    if (
        finished is None
        or config.store.force
        or RETIRED in finished.tags
        or (accuracies := _accuracies(store, finished, data)) is None
        or not _publish(config, store, data, made, finished.id, finished.metrics)
    ):
        return None
    if new := {tag: value for tag, value in made.tags.items() if tag not in finished.tags}:
        Run(store, finished.id, finished.name).tags(new)  # read from elsewhere this time
    say(f"seed {made.seed}: reusing the base model of run {finished.name} ({finished.id[:8]})")
    return accuracies


def _accuracies(store: Store, run: Finished, data: Data) -> Accuracies | None:
    """The accuracies of a finished run, on the test clips of today; None where its logits lack some, or are damaged."""
    try:
        stored, test = stored_logits(store, run.id), data.split.test
    except Unreadable as error:
        say(f"  {run.name} is trained again: {error}")
        return None
    ids = [data.clips.ids[i] for i in test]
    if not stored.keys() >= {*ids}:
        return None
    right = np.stack([stored[id_] for id_ in ids]).argmax(axis=1) == data.clips.labels.numpy()[test]
    return Accuracies(run.metrics["train/accuracy"], float(right.mean()))


def _about(config: Config, data: Data, adopted: bool) -> str:
    """What was found, for the user to see whether it is what was meant."""
    names, speakers, wanted = data.clips.class_names, set(data.clips.speakers) - {""}, config.data
    people = counted(len(speakers), "speaker") if speakers else "no speakers"
    sides = sides_told(data.split.kind, wanted.dataset, adopted)
    return (
        f"{wanted.label}: {counted(len(data.clips), 'clip')} of {wanted.clip_seconds:g} s at {SAMPLE_RATE:,} Hz, "
        f"{counted(len(names), 'class')} ({first_of(names, SHOWN)}), {people}; {sides}: "
        f"{len(data.split.train):,} train, {len(data.split.test):,} test"
    )


def _fingerprint(config: Config, data: Data, seed: int, shard_of: np.ndarray | None) -> str:
    recipe = config.data.recipe
    return hash_of(
        [
            "train", seed, config.data.pipeline, network_identity(config), config.hashed_recipe,
            [recipe.momentum, recipe.logmel_shift, recipe.logmel_scale],
            data.digest, machine(config), source_hash(TRAINING_SOURCE),
            *([] if shard_of is None else [shard_of[data.split.train].tolist()]),
        ]
    )  # fmt: skip


def _job(config: Config, data: Data, made: Made) -> TrainJob:
    train, best_on = data.split.train, config.training.chooses_on
    return training_job(config, data.clips, made.seed, train, sets_of(data), made.shard_of, best_on)


def sets_of(data: Data) -> dict[str, np.ndarray]:
    """What a base model is evaluated on: the clips of earlier requests too, which it has not seen."""
    earlier = {name: found.clips for name, found in data.earlier.items()}
    return {"train": data.split.train, "test": data.split.test, **earlier}


def metrics_of(data: Data, result: Result) -> dict[str, float]:
    """Performance on every set. Raises `UserError` where the network diverged."""
    labels = data.clips.labels.numpy()
    return {
        f"{name}/{key}": value
        for name, indices in sets_of(data).items()
        for key, value in performance(result.logits[name], labels[indices], data.clips.recordings[indices]).items()
    }


def _run_of(config: Config, parent: Run, made: Made) -> Child:
    """What a base model's run is made of."""
    tags = {**base_tags(config), **made.tags, "seed": str(made.seed), "fingerprint": made.fingerprint}
    params = base_params(config) | {"seed": str(made.seed)}
    return parent.store, parent, "train", "seed", f"seed-{made.seed}", tags, params


def log_base(
    config: Config, data: Data, parent: Run, made: Made, result: Result, metrics: Mapping[str, float]
) -> Accuracies:
    """Log a base model with its losses and logits, and make it the version behind its seed's alias."""
    clips, labels = data.clips, data.clips.labels.numpy()
    times = {} if made.origin else {"time/total_s": result.total_seconds, "time/cpu_s": result.cpu_seconds}
    with child_run(*_run_of(config, parent, made)) as run:
        # Before the model: an erasure could not tell what the model of a killed run was trained on.
        run.csv("losses.csv", losses_table(data, result.logits))
        if made.shard_of is not None:
            run.csv(TABLE, shards_table(clips, data.split.train, made.shard_of))
        sets = {name: (result.logits[name], labels[indices]) for name, indices in sets_of(data).items()}
        classes = by_class(sets, clips.class_names)
        for name, table in classes.files.items():
            run.csv(name, table)
        run.tags(classes.worst)
        for name, indices in sets_of(data).items():
            run.npz(
                f"logits/{name}.npz",
                clip_id=np.array([clips.ids[i] for i in indices]),
                label=labels[indices],
                logits=result.logits[name],
            )
        # Before the figures: MLflow would read every figure of the run again to make it the model's.
        model = log_servable(run, config, clips.class_names, made.seed, result)
        run.metrics({**metrics, **times}, model)
        run.curves(result.curves)
        run.text("model_card.md", _card(config, data, made, metrics))
    _publish(config, run.store, data, made, run.id, metrics)
    return Accuracies(metrics["train/accuracy"], metrics["test/accuracy"])


def _publish(config: Config, store: Store, data: Data, made: Made, run_id: str, metrics: Mapping[str, float]) -> bool:
    """Make sure that a finished run's model is a version, and the one behind the seed's alias.

    Done for runs that are reused too: the command that finished them may have been killed before. False where the run
    has no model.
    """
    with registry_locked(store):
        refuse_crossed(config, store, data, data.split.train)
        return _published(config, store, data, made, run_id, metrics)


def refuse_crossed(config: Config, store: Store, data: Data, rows: np.ndarray) -> None:
    """Raise `UserError` where recordings that were trained on belong to a request that is answered by now."""
    entries = ledger_here(store, config.data.label).left_out(config.store.ledger)
    for entry, held in learnt_from(config, data.clips, entries, rows):
        raise UserError(
            f"request {entry.request} ({entry.hash[:8]}) was answered in between, and these models hold {held} of its "
            "recordings: run the same command again, and erase the request to remove them"
        )


def _published(config: Config, store: Store, data: Data, made: Made, run_id: str, metrics: Mapping[str, float]) -> bool:
    name, alias = config.registered_model, f"seed-{made.seed}"
    version = registry.of_run(store, name, run_id)
    if version is None:
        uri = registry.logged_model(store, run_id)
        if uri is None:
            return False
        tags = {
            **base_tags(config),
            **made.tags,
            "seed": str(made.seed),
            "test_accuracy": f"{metrics['test/accuracy']:.3f}",
            "recipe": json.dumps(config.base_recipe, sort_keys=True),
            "clips_digest": data.digest,
            "split": data.split.kind,
            "base_run_id": run_id,
            "fingerprint": made.fingerprint,
            "class_names": json.dumps(data.clips.class_names),
            **({"network_source": source} if (source := network_source(config)) else {}),
        }
        version = registry.register(store, name, uri, run_id, tags, _card(config, data, made, metrics))
    behind = registry.by_alias(store, name, alias)
    if behind is None or behind.version != version.version:
        registry.check_weights(version.source)
        Run(store, run_id, alias).tags({"base_version": version.version})
        store.client.update_registered_model(name, family_note(_facts(config, data, made)))
        registry.set_alias(store, version, alias)  # last: it says that all of this is done
    return True


def _card(config: Config, data: Data, made: Made, metrics: Mapping[str, float]) -> str:
    figures = len(data.split.train), len(data.split.test), metrics["train/accuracy"], metrics["test/accuracy"]
    return base_card(_facts(config, data, made), BaseFacts(*figures, made.origin))


def _facts(config: Config, data: Data, made: Made) -> ModelFacts:
    return ModelFacts(
        config.registered_model, config.data.label, config.data.pipeline, config.training.network, made.seed,
        data.clips.class_names, config.data.clip_samples, SAMPLE_RATE,
        sides_told(data.split.kind, config.data.dataset, ADOPTED in made.tags),
        config.base_recipe if made.tags.get(RECIPE_KNOWN) != "false" else {},
    )  # fmt: skip


def losses_table(data: Data, logits: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`Clips.table`, loss and member of the training and test clips, in that order."""
    labels = data.clips.labels.numpy()
    frames = [
        data.clips.table(rows).assign(loss=cross_entropy(logits[name], labels[rows]), member=member)
        for name, rows, member in (("train", data.split.train, 1), ("test", data.split.test, 0))
    ]
    return pd.concat(frames, ignore_index=True)


def _summarise(config: Config, run: Run, data: Data, found: Mapping[int, Accuracies]) -> None:
    mean = Accuracies(*np.mean([(of.train, of.test) for of in found.values()], axis=0).tolist())
    run.metrics({"test/accuracy": mean.test})
    for seed, accuracies in sorted(found.items()):
        say(f"  seed {seed}: test accuracy {accuracies.test:.3f}")
    family = f"{config.data.label} ({config.data.pipeline}, {config.training.network})"
    over = f", mean of {len(found)} seeds" if len(found) > 1 else ""
    say(f"base models of {family}: test accuracy {mean.test:.3f}{over}")
    labels = data.clips.labels.numpy()
    share, of_train = (majority_share(labels[rows]) for rows in (data.split.test, data.split.train))
    poor = [seed for seed, of in found.items() if near_chance(of.test, share)]
    if poor:
        run.tags({"near_chance": ",".join(map(str, poor))})
        say(
            f"WARNING: the base models of seeds {', '.join(map(str, poor))} are near chance, {share:.3f} for the "
            f"largest class: what is unlearned from them means nothing. Try {advice(config)}"
        )
    elif not learned_enough(mean, of_train):
        say(f"WARNING: {told_of(mean, of_train)}. Try {advice(config)}")
    elif words := told_of(mean, of_train):
        say(f"note: {words}")
    if len(data.split.nonmembers) < len(data.split.test):
        copies = counted(data.split.n_test_copies, "test clip")
        say(f"note: {copies} that copy training clips are no non-members")
