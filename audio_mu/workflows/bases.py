"""The models that a request is unlearned from: found by their aliases, fitting the recordings, and their logits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from audio_mu.base_models.adopted import training
from audio_mu.base_models.fingerprints import network_source
from audio_mu.base_models.shards import of_base, refuse_without_shards
from audio_mu.config import BASE_FIELDS, Config
from audio_mu.config.commands import command
from audio_mu.config.recipe import OLDER
from audio_mu.data.clips import Clips
from audio_mu.erasure.descent import learnt_before
from audio_mu.erasure.in_service import tell_served
from audio_mu.errors import UserError, counted, first_of, typed
from audio_mu.names import ADOPTED, ADOPTED_FROM, NAIVE, NONE, RECIPE_KNOWN
from audio_mu.progress import say_once
from audio_mu.requests.again import resumed
from audio_mu.requests.ledger import Entry, Ledger
from audio_mu.requests.never_trained import asked_for, enter_never_trained
from audio_mu.requests.other_names import ledger_here
from audio_mu.requests.request import NeverTrainedError
from audio_mu.requests.same_people import refuse_other_people
from audio_mu.store import queries, registry
from audio_mu.store.artifacts import files_of, stored_logits, unreadable
from audio_mu.store.failed import REASON, still_failed
from audio_mu.store.handle import Store
from audio_mu.store.model_files import refuse_outside
from audio_mu.store.registry import Version
from audio_mu.unlearning import choose
from audio_mu.workflows.data import Data, data_of_bases, without_missing
from audio_mu.workflows.stage import base_tags
from audio_mu.workflows.train import losses_table

OF_A_BASE = ("recipe", "clips_digest", "fingerprint", "class_names", "split")
"""The tags that `train` and `unlearn` give to versions, without which nothing can start from one."""
OF_TRAINING = (
    "n_epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "warmup", "clip_gradient",
    "class_weights", "accumulate", "shards",
)  # fmt: skip
"""Parameters that say how a base model was trained."""
CHOOSING = ("data_dir", "speaker_pattern", "labels", "bad_files")
"""Parameters that decide which recordings there are and whose."""


def origin(version: Version) -> str:
    """How a model was made: empty for a trained one, else the cell and the method that unlearned it."""
    return f"{version.tags['cell']}/{version.tags['method']}" if "method" in version.tags else ""


@dataclass(frozen=True)
class Bases:
    """The models to unlearn from: per seed one version, trained or unlearned, all of one recipe and one origin.

    `shards`: seed → the shard of every clip that a version was trained on, None of all where there are none.
    """

    config: Config
    versions: Mapping[int, Version]
    shards: Mapping[int, np.ndarray | None]

    @property
    def origin(self) -> str:
        """See `origin`."""
        return origin(next(iter(self.versions.values())))

    def fingerprints(self) -> dict[int, str]:
        """Per seed the fingerprint of the run that made the model."""
        return {seed: version.tags["fingerprint"] for seed, version in self.versions.items()}


def resume(config: Config, store: Store) -> str | None:
    """See `resumed`; what is in service in spite of the answer is told."""
    cell = resumed(config, store)
    if cell is not None:
        tell_served(store, ledger_here(store, config.data.label), config.data.label)
    return cell


def find_bases(store: Store, config: Config, for_request: bool = True, trains: bool = False) -> tuple[Bases, Data]:
    """Find the models of every seed that fit the recordings, take their recipe, and load the data with it.

    Per seed the newest of the versions behind `seed-NN` and `unlearned-seed-NN` whose recordings are those that the
    ledger leaves; with `ledger=ignore` the version behind `seed-NN`. Raises `UserError` where one is missing or fits
    other recordings (with the command that makes it), where the seeds were made differently, or where a parameter
    that was given contradicts the recipe. `for_request`: the request decides whose recordings are among the data, see
    `data_of_bases`; else the models do. `trains`: networks are trained by the recipe, which adopted models may lack.
    """
    name = config.registered_model
    ledger = ledger_here(store, config.data.label)
    tell_served(store, ledger, config.data.label)
    candidates = {seed: _candidates(store, config, name, ledger, seed) for seed in config.training.seeds}
    missing = [seed for seed, versions in candidates.items() if not versions]
    if missing:
        listed = ",".join(map(str, missing))
        there = ",".join(str(seed) for seed in config.training.seeds if seed not in missing)
        raise UserError(
            f"no base model {name} for seeds={listed} in this store"
            + (f", only for seeds={there}: give these, or run" if there else ": run")
            + f" `{command('train')}` first"
            + _failed(store, config, missing)
        )
    first = config.training.seeds[0]
    _refuse_without_recipe(config, name, candidates[first][0], for_request, trains)
    tried = _with_recipe(config, name, candidates[first][0])
    _refuse_other_people(store, tried, name, candidates[first][0])
    load, data = data_of_bases, data_of_bases(tried, store, ledger)
    if not for_request and data.missing and not any(_fits(version, data) for version in candidates[first]):
        load, data = without_missing, without_missing(tried, store, ledger)
    versions = {seed: _fitting(store, tried, found, data, seed) for seed, found in candidates.items()}
    _refuse_edited(config, name, versions)
    _refuse_differing(name, versions)
    for version in versions.values():
        _refuse_inexact(config, name, version, for_request)
        _refuse_learnt(config, store, version, ledger.barring(config.store.ledger))
    chosen = _with_recipe(config, name, next(iter(versions.values())))
    if chosen.data != tried.data:
        data = load(chosen, store, ledger)
    data = data.tested_on(set.intersection(*({*base_logits(store, version)} for version in versions.values())))
    bases = Bases(chosen, versions, _shards(store, chosen, versions, data))
    if data.left_out:
        for found in data.left_out:
            say_once(f"ledger: request {found.request}: {found.told}")
        kind = f"unlearned ones ({bases.origin.partition('/')[2]})" if bases.origin else "trained without them"
        say_once(f"ledger: the base models are {kind}")
    return bases, data


def _failed(store: Store, config: Config, seeds: Sequence[int]) -> str:
    """Why seeds have no model, where their training failed."""
    found = still_failed(store, {**base_tags(config), "stage": "train", "role": "seed"}, [], "seed")
    told = [f"seed {seed}: {found[str(seed),].tags[REASON]}" for seed in seeds if (str(seed),) in found]
    return f" (training failed: {'; '.join(told)})" if told else ""


def _candidates(store: Store, config: Config, name: str, ledger: Ledger, seed: int) -> list[Version]:
    """The versions that a seed could be unlearned from, the newest first."""
    found = [registry.by_alias(store, name, f"seed-{seed}")]
    if config.store.ledger == "respect":
        # By the ledger, not by the alias: killed while it is put into service, a version has the alias already though
        # its request is not answered, and the same command must start again from the one before it.
        answers = [entry.answers[name].after.get(str(seed)) for entry in ledger.of_model(name)]
        found += [registry.by_number(store, name, version) for version in answers if version is not None]
    versions = sorted((v for v in found if v is not None), key=lambda version: -int(version.version))
    for version in versions:
        refuse_outside(name, version.version, version.source)
        if lacking := [tag for tag in OF_A_BASE if tag not in version.tags]:
            raise UserError(
                f"version {version.version} of {name} was registered by something else, it lacks {first_of(lacking)} "
                f"among its tags: run `{command('train')}`, which puts its own behind seed-{seed}"
            )
    return versions


def _recipe(version: Version) -> dict[str, str]:
    """How a version's base model was trained."""
    return OLDER | json.loads(version.tags["recipe"])


def _refuse_without_recipe(config: Config, name: str, version: Version, for_request: bool, trains: bool) -> None:
    """Raise `UserError` where networks would be trained as the base models were, and nobody has said how that was, or
    where shards would be retrained and there are none."""
    if for_request:
        refuse_without_shards(config, _recipe(version)["shards"])
    if version.tags.get(RECIPE_KNOWN) != "false":
        return
    again = f"adopt {name} again with n_epochs=… learning_rate=… (and optimizer, schedule …) of its training"
    if trains:
        asks = "attack with references trains" if config.attack.references else "tune trains"
        raise UserError(f"{asks} networks as the base models were trained, which is not known: {again}")
    if for_request and config.methods.register != NONE:
        raise UserError(
            f"register={config.methods.register!r} needs naive to judge by, which retrains as the base models were "
            f"trained: that is not known; {again}"
        )
    if for_request and NAIVE in choose(config.methods.methods, config.request.forget):
        raise UserError(
            f"methods={','.join(config.methods.methods)} has naive, which retrains as the base models were trained: "
            f"that is not known; {again}, or leave naive out, as in methods=fine_tune"
        )
    given = [key for key in BASE_FIELDS if key in config.given and key in OF_TRAINING]
    if given:
        raise UserError(f"{given[0]} was given, but {name} was adopted without a recipe: {again}")


def _refuse_inexact(config: Config, name: str, version: Version, for_request: bool) -> None:
    """Raise `UserError` where shards are to be retrained beside networks that are not what training gives."""
    if for_request:
        about = f"version {version.version} of {name}"
        refuse_without_shards(config, _recipe(version)["shards"], about, version.tags)


def _shards(store: Store, config: Config, versions: Mapping[int, Version], data: Data) -> dict[int, np.ndarray | None]:
    """See `Bases`; by the lists of the runs that made the versions."""
    trained = data.split.train
    return {seed: of_base(store, config, own.run_id, data.clips, trained) for seed, own in versions.items()}


def _with_recipe(config: Config, name: str, version: Version) -> Config:
    """The configuration with a version's recipe. Raises `UserError` where what was given contradicts it."""
    recipe = _recipe(version)
    given = config.as_text(BASE_FIELDS)
    for key in BASE_FIELDS:
        if key in config.given and given[key] != recipe[key]:
            raise UserError(
                f"{key}={given[key]} contradicts the base models of {name}, trained with {key}={recipe[key]}: "
                f"leave {key} out, or train again with it"
            )
    return config.with_values(recipe)


def _fits(version: Version, data: Data) -> bool:
    return version.tags["clips_digest"] == data.digest


def _fitting(store: Store, config: Config, candidates: Sequence[Version], data: Data, seed: int) -> Version:
    """The newest version whose recordings are the data's. Raises `UserError` with the way out where none is."""
    for version in candidates:
        if _fits(version, data):
            return version
    newest = candidates[0]
    known = newest.tags["clips_digest"]
    if data.missing:
        raise UserError(
            f"{newest.name} seed {seed} was trained on other recordings than the answered requests leave, of which "
            f"this store does not know {first_of([lost.request[:8] for lost in data.missing])}: answer these again, or "
            f"run `{training(newest.tags)}`, which leaves their recordings out"
        )
    if data.left_out and known == data.untouched:
        names = ", ".join(entry.request for entry in data.left_out)
        raise UserError(
            f"{newest.name} seed {seed} was trained on recordings of answered requests ({names}): run "
            f"`{training(newest.tags)}`, which leaves them out"
            + ("" if any(entry.entry.gone for entry in data.left_out) else ", or for an experiment give ledger=ignore")
        )
    if away := [found for found in data.left_out if found.own and found.entry.is_elsewhere(config.data.label)]:
        named = "; ".join(
            f"{found.request} ({found.entry.hash[:8]}) of {found.entry.tags['dataset_name']}" for found in away
        )
        raise UserError(
            f"{newest.name} seed {seed} was trained on other recordings than the answered requests leave, some of them "
            f"in another data set ({named}): run `{training(newest.tags)}`, which leaves theirs out; what "
            f"{newest.name} has in service knows them until an unlearned version of the new models replaces it, or "
            "`erase` removes it"
        )
    raise UserError(
        f"the recordings have changed since {newest.name} seed {seed} was trained (digest {known[:8]} then, "
        f"{data.digest[:8]} now): {_of_then(store, config, newest)}train again; files that were deleted on request "
        "must be back until the request is answered (unlearn with register) and erased"
    )


def _refuse_other_people(store: Store, config: Config, name: str, version: Version) -> None:
    """Raise `UserError` where there are other people than at training, by the names of the files and the table alone.

    Their features would be computed anew, only to find that the recordings are others.
    """
    what = f"which {name} was trained: give that one, or train again"
    refuse_other_people(config.data, _then(store, version), what)


def _then(store: Store, version: Version) -> Mapping[str, str]:
    """The parameters of the run that made a version; none where it is gone."""
    run = queries.run_of(store, version.run_id)
    return run.params if run is not None else {}


def _of_then(store: Store, config: Config, version: Version) -> str:
    """The parameters that choose recordings and were others when a version was made, as a way out."""
    then, now = _then(store, version), config.as_text(CHOOSING)
    other = [
        f"{typed(key, then[key])} (now {now[key] or 'none'})"
        for key in CHOOSING
        if key in then and then[key] != now[key]
    ]
    return f"give {', '.join(other)} as then, or " if other else ""


def _refuse_edited(config: Config, name: str, versions: Mapping[int, Version]) -> None:
    edited = [seed for seed, v in versions.items() if v.tags.get("network_source", "") != network_source(config)]
    if edited:
        raise UserError(
            f"architecture={config.training.architecture!r} has been edited since "
            f"seeds={','.join(map(str, edited))} of {name} were trained: run "
            f"`{training(versions[edited[0]].tags)}` again"
        )


def _refuse_learnt(config: Config, store: Store, version: Version, entries: Sequence[Entry]) -> None:
    """Raise `UserError` where a model has learnt an answered request by what it was adopted from: no list says so."""
    for entry, held in learnt_before(store, version.run_id, version.tags, entries):
        of = f" of {entry.tags['dataset_name']}" if entry.is_elsewhere(config.data.label) and entry.run_id else ""
        raise UserError(
            f"{_adopted_from(version)}, which were trained on {counted(held, 'recording')} of the answered request "
            f"{entry.request} ({entry.hash[:8]}){of}: run `{training(version.tags)}`, or adopt weights that were not"
            + ("" if entry.gone else ", or for an experiment give ledger=ignore")
        )


def _adopted_from(version: Version) -> str:
    seed = f" seed {version.tags['seed']}" if "seed" in version.tags else ""
    return f"{version.name} version {version.version}{seed} descends from the weights {version.tags[ADOPTED_FROM]!r}"


def answer_never_trained(config: Config, store: Store, clips: Clips, found: NeverTrainedError) -> None:
    """See `enter_never_trained`. Raises `UserError` where a model behind an alias has learnt the recordings before."""
    asked, name = asked_for(clips, found), config.registered_model
    behind = {number for own, aliases in registry.aliases(store, name) if own == name for number in aliases.values()}
    for version in filter(None, (registry.by_number(store, name, number) for number in sorted(behind))):
        for _, held in learnt_before(store, version.run_id, version.tags, [asked]):
            raise UserError(
                f"{_adopted_from(version)}, which were trained on {counted(held, 'recording')} of {asked.request}, "
                f"though trained_on had none of them: run `{training(version.tags)}`, or adopt weights that were not, "
                "delete the other aliases of this version, then ask again"
            )
    enter_never_trained(config, store, asked, found, base_tags(config))


def _refuse_differing(name: str, versions: Mapping[int, Version]) -> None:
    made = {seed: origin(v) or ("adopted" if ADOPTED in v.tags else "trained") for seed, v in versions.items()}
    recipes = {seed: _recipe(v) | {"origin": made[seed]} for seed, v in versions.items()}
    first_seed, recipe = next(iter(recipes.items()))
    for seed, other in recipes.items():
        differing = [key for key in (*BASE_FIELDS, "origin") if other[key] != recipe[key]]
        if differing:
            key = differing[0]
            raise UserError(
                f"the base models of {name} were trained differently: {key}={recipe[key]} for seed {first_seed} but "
                f"{other[key]} for seed {seed}: train them again with one setting"
            )


def base_logits(store: Store, version: Version) -> dict[str, np.ndarray]:
    """Clip id → logits [classes] of everything that the run behind a version evaluated, trained or unlearned."""
    if not (stored := stored_logits(store, version.run_id)):
        raise unreadable(store, version.run_id, "logits", f"none are at {files_of(store, version.run_id).uri}")
    return stored


def base_losses(store: Store, version: Version, data: Data) -> pd.DataFrame:
    """clip_id, label, speaker, loss, member, audio_hash of the training and test clips under a version."""
    logits = base_logits(store, version)
    sets = {"train": data.split.train, "test": data.split.test}
    return losses_table(data, {n: np.stack([logits[data.clips.ids[i]] for i in rows]) for n, rows in sets.items()})
