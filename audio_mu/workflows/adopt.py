"""Make models that somebody else has trained the base models of a data set, without training anything."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from audio_mu.audit.class_order import fits, seeming_order
from audio_mu.base_models.fingerprints import (
    TRAINING_SOURCE,
    machine,
    network_identity,
    problem,
    source_hash,
    state_hash,
    weights_hash,
)
from audio_mu.base_models.foreign import OF_STORE, fitted, places_by_seed, read_foreign, shown_place
from audio_mu.base_models.served import try_serving
from audio_mu.base_models.shards import placed, shard_tags
from audio_mu.compute.attempt import Failed, measured
from audio_mu.compute.cores import process_threads, threads_and_workers
from audio_mu.compute.jobs import Result, evaluate
from audio_mu.compute.problem import at_start, make_network
from audio_mu.config import Config
from audio_mu.data.catalog import Catalog, as_id, composed
from audio_mu.data.clips import Clips, find_recordings, load_clips
from audio_mu.data.features import feature_shape
from audio_mu.data.segments import recording_of
from audio_mu.data.splits import sides_of, split_clips
from audio_mu.erasure.descent import first_learnt, made_of
from audio_mu.errors import UserError, counted, first_of
from audio_mu.models.sharded import members
from audio_mu.names import ADOPTED, ADOPTED_FROM, ADOPTED_RUN, RECIPE_KNOWN
from audio_mu.progress import say, say_once
from audio_mu.report.base_models import Accuracies, hardly_better
from audio_mu.requests.ledger import RETIRED, Ledger
from audio_mu.requests.other_names import ledger_here
from audio_mu.requests.request_file import read_lines, shortened
from audio_mu.requests.sides import keep_sides, read_sides
from audio_mu.seeding import seeded
from audio_mu.store import registry, removal
from audio_mu.store.handle import Store
from audio_mu.store.removal import AnyRun
from audio_mu.store.runs import Run
from audio_mu.system.hashing import hash_of
from audio_mu.workflows.data import Data, learnt_from, load_data
from audio_mu.workflows.stage import stage_run
from audio_mu.workflows.train import Made, describe, log_base, metrics_of, reuse, sets_of

SHOWN = 12  # class names of an error
OF_RECIPE = frozenset({"n_epochs", "learning_rate"})
"""Parameters without which nobody knows how a model was trained."""
State = Mapping[str, np.ndarray]


def adopt(config: Config, store: Store, parent: Run | None = None) -> dict[int, float]:
    """Log and register given weights as base models; return their accuracy on the test side, per seed.

    What the weights were trained on is the training side of the data set from then on, all else the test side. Raises
    `UserError`, before the store is written, where weights, lists, classes or sides do not fit.
    """
    places = places_by_seed(config)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seeds=tuple(places)))
    states = {seed: read_foreign(place) for seed, place in places.items()}
    ledger = ledger_here(store, config.data.label)
    root, catalog = find_recordings(config.data, ledger.barred)
    trained = _listed(config, catalog, (root, root.resolve()), ledger)
    n_classes = len(catalog.class_names)
    with seeded(0):
        network = make_network(config.training.architecture, _shape(config), n_classes, config.training.shards)
        for member in members(network) if config.given >= OF_RECIPE else ():  # naive will start there
            at_start(member, config.training.architecture, next(iter(places)))
    where = f"architecture={config.training.architecture!r}"
    given = {seed: fitted(places[seed], state, network, where) for seed, state in states.items()}
    for seed, own in given.items():
        try_serving(config, n_classes, seed, own)
    runs = {run.id: run for run in removal.every_run(store)}
    known = {seed: _known(runs, place, given[seed]) for seed, place in places.items()}
    for seed, place in places.items():
        _refuse_descent(config, ledger, runs, place, known[seed])
    tags = {seed: _tags(config, place, given[seed], known[seed]) for seed, place in places.items()}
    data, sides = _data(config, store, ledger, trained)
    models = {seed: _measured(config, data, seed, own) for seed, own in given.items()}
    for result, _ in models.values():
        _refuse_order(data, result.logits["train"])
    kept = keep_sides(store, config.data, sides)
    _refuse_sides(config, data.clips, sides, kept)
    shards = placed(store, config, data.clips, data.split.train)
    made = {seed: dataclasses.replace(_made(config, data, seed, own), shard_of=shards) for seed, own in tags.items()}
    with stage_run(store, parent, "adopt", config) as run:
        run.dataset(config.data.label, data.digest, len(data.split.train), "train")
        describe(run, config, data, adopted=True)
        found = {}
        for seed, model in made.items():
            found[seed] = reuse(config, store, data, model) or log_base(config, data, run, model, *models[seed])
            say(
                f"  seed {seed}: accuracy {found[seed].train:.3f} on the {len(data.split.train):,} recordings that it "
                f"was trained on, {found[seed].test:.3f} on the {len(data.split.test):,} others"
            )
        _tell(config, run, found, made)
    return {seed: of.test for seed, of in found.items()}


def _shape(config: Config) -> tuple[int, ...]:
    return feature_shape(config.data.pipeline, config.data.clip_samples)


def _listed(config: Config, catalog: Catalog, roots: tuple, ledger: Ledger) -> frozenset[str]:
    """Ids of the recordings that `trained_on` names. Raises `UserError` for unknown ones, for none, and for all."""
    path = config.adopt.trained_on
    if path is None:
        raise UserError("adopt needs trained_on: give -P trained_on=training.csv, with a column id or path")
    what, known = f"trained_on={str(path)!r}", defaultdict[str, set[str]](set)
    for r in catalog.recordings:
        for name in (r.id, recording_of(r.id)):  # a path means all clips of the recording
            known[composed(name)].add(r.id)
    lines = read_lines(path, "trained_on")
    if lines and lines[0].of_person:
        raise UserError(f"{what} lists people, not recordings: give it a column id or path")
    named = {line.number: composed(as_id(line.entry, roots)) for line in lines}
    unknown = [line for line in lines if named[line.number] not in known]
    for entry in ledger.entries:
        if gone := {*map(composed, entry.ids)} & {named[line.number] for line in unknown}:
            raise UserError(_crossed(entry.request, entry.hash, len(gone), gone=entry.gone))
    if unknown:
        first = f"line {unknown[0].number} {shortened(unknown[0].entry)!r}"
        raise UserError(
            f"{what}: {counted(len(unknown), 'recording')} of {len(lines):,} unknown ({first}): give ids, paths below "
            f"{str(roots[0])!r}, such as {catalog.recordings[0].id!r}"
        )
    trained = frozenset[str]().union(*(known[id_] for id_ in named.values()))
    if not trained or len(trained) == len(catalog.recordings):
        raise UserError(
            f"{what} names {len(trained):,} of {len(catalog.recordings):,} recordings: the others are the test side, "
            "and both are needed; put recordings that the model has never seen into data_dir"
        )
    return trained


def _crossed(request: str, hash_: str, held: int, of: str = "this model was", gone: bool = False) -> str:
    return (
        f"request {request} ({hash_[:8]}) was answered, and {of} trained on {held} of its recordings: adopt one that "
        "was not" + ("" if gone else ", or for an experiment give ledger=ignore")
    )


def _known(runs: Mapping[str, AnyRun], place: str, state: State) -> list[AnyRun]:
    """The runs of this store whose models these weights are of: the one that a URI names, and all with such weights."""
    made_by = registry.made_by(place) if place.startswith(OF_STORE) else ""
    named = [runs[made_by]] if made_by in runs else []
    return named + [run for run in made_of(runs, weights_hash(state), state_hash(state)) if run.id != made_by]


def _refuse_descent(
    config: Config, ledger: Ledger, runs: Mapping[str, AnyRun], place: str, known: Sequence[AnyRun]
) -> None:
    """Raise `UserError` where weights are of a model of this store that has learnt from an answered request.

    By the lists of the store: what `trained_on` says does not matter then. `known`: see `_known`.
    """
    for run in known:
        what = f"weights={shown_place(place)!r}, of run {run.name} ({run.id[:8]}) of this store,"
        if RETIRED in run.tags:
            why = f"whose models were removed for the erased request {run.tags[RETIRED][:8]}"
            raise UserError(f"{what} are those {why}: adopt others")
        if found := first_learnt(runs, run.id, ledger.barring(config.store.ledger)):
            entry, held = found
            raise UserError(_crossed(entry.request, entry.hash, held, f"{what} were", entry.gone))


def _data(config: Config, store: Store, ledger: Ledger, trained: frozenset[str]) -> tuple[Data, dict[str, str]]:
    """The recordings with what the model was trained on as their training side, and the side of each.

    Raises `UserError` where the data set has other sides, or where it holds recordings of answered requests.
    """
    clips = load_clips(config.data, ledger.barred)
    sides = sides_of(config.data.split, clips, trained)
    _refuse_sides(config, clips, sides, read_sides(store, config.data))
    whole = split_clips(config.data.split, config.data.split_seed, clips, sides, draw=False)
    for entry, held in learnt_from(config, clips, ledger.barring(config.store.ledger), whole.train):
        raise UserError(_crossed(entry.request, entry.hash, held, gone=entry.gone))
    if unread := len(trained - {*clips.ids}):
        say(f"note: {counted(unread, 'recording')} of trained_on cannot be read here, and nothing can be said of them")
    if copies := len(whole.train) - len(trained & {*clips.ids}):
        say_once(f"note: {counted(copies, 'recording')} not in trained_on, with a sound that is: on the training side")
    return load_data(config, ledger, sides, draw=False), sides


def _refuse_sides(config: Config, clips: Clips, sides: Mapping[str, str], known: Mapping[str, str]) -> None:
    if other := [key for key, side in sides.items() if known.get(key, side) != side]:
        named = next((f", such as {id_!r}" for id_, key in zip(clips.ids, clips.files) if key == other[0]), "")
        raise UserError(
            f"{config.data.label} has sides already, from its first training or adoption, and trained_on differs for "
            f"{len(other):,} recordings{named}: give another dataset_name, or the trained_on of then"
        )


def _measured(config: Config, data: Data, seed: int, state: State) -> tuple[Result, Mapping[str, float]]:
    with process_threads(threads_and_workers(config.machine)[0]):
        result = evaluate(problem(config, data.clips), seed, state, sets_of(data))
    outcome = measured(result, partial(metrics_of, data))
    if isinstance(outcome, Failed):
        raise UserError(f"the adopted model of seed {seed} cannot be measured: {outcome.reason}")
    return outcome


def _refuse_order(data: Data, logits: np.ndarray) -> None:
    order, best, assumed = seeming_order(logits, data.clips.labels.numpy()[data.split.train])
    if not fits(best, assumed):
        names = data.clips.class_names
        back = ",".join(str(order.index(i)) for i in range(len(order)))
        raise UserError(
            f"the outputs are not in the order of the classes ({first_of(names, SHOWN)}): they seem to be "
            f"{first_of([names[i] for i in order], SHOWN)}, with which {best:.3f} of trained_on are recognised instead "
            f"of {assumed:.3f}: have the class's forward give logits[:, [{shortened(back)}]]"
        )


def _tags(config: Config, place: str, state: State, known: Sequence[AnyRun]) -> dict[str, str]:
    """What a base model's run and version say of its weights. `known`: see `_known`."""
    recipe_known, own = config.given >= OF_RECIPE, state_hash(state)
    made_by = [run.id for run in known if run.tags.get("stage") != "train" or run.tags.get(ADOPTED) != own]
    about = {ADOPTED: own, ADOPTED_FROM: shown_place(place), RECIPE_KNOWN: str(recipe_known).lower()}
    return about | shard_tags(config) | ({ADOPTED_RUN: made_by[0]} if made_by else {})


def _made(config: Config, data: Data, seed: int, tags: Mapping[str, str]) -> Made:
    fingerprint = hash_of(
        [
            "adopt", seed, tags[ADOPTED], config.data.pipeline, network_identity(config), config.hashed_recipe,
            tags[RECIPE_KNOWN] == "true", data.digest, data.tested, machine(config), source_hash(TRAINING_SOURCE),
        ]
    )  # fmt: skip
    origin = (
        "Adopted: it was trained elsewhere, on the recordings of its training set as its owner lists them; its "
        f"weights (hash `{tags[ADOPTED][:16]}`) were read from `{tags[ADOPTED_FROM]}`."
    )
    return Made(seed, fingerprint, tags, origin)


def _tell(config: Config, run: Run, found: Mapping[int, Accuracies], made: Mapping[int, Made]) -> None:
    mean = Accuracies(*np.mean([(of.train, of.test) for of in found.values()], axis=0).tolist())
    run.metrics({"train/accuracy": mean.train, "test/accuracy": mean.test})
    own = " ".join(f"{name}={value}" for name, value in config.as_text(("architecture", "pipeline", "seeds")).items())
    say(f"adopted as base models of {config.registered_model}: give {own} to the commands that follow")
    if words := hardly_better(mean):
        say(f"WARNING: {words}")
    if any(model.tags[RECIPE_KNOWN] == "false" for model in made.values()):
        say(
            "note: how it was trained is not known, so that there is no naive (the retrained model) and no verdict: "
            "adopt again with n_epochs=… learning_rate=… (and optimizer, batch_size, schedule …) of its training"
        )
