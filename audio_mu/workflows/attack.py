"""Train the membership attack models on the losses of the base models, and reference models of stronger attacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from torch import nn

from audio_mu.audit.attack_models import (
    Attack,
    AttackQuality,
    balanced_rows,
    build_attack_network,
    mean_quality,
    train_attack,
)
from audio_mu.base_models.fingerprints import machine, source_hash
from audio_mu.base_models.references import Pool, train_references
from audio_mu.base_models.shards import places
from audio_mu.compute.cores import process_threads, threads_and_workers
from audio_mu.compute.engine import Engine
from audio_mu.config import Config
from audio_mu.config.commands import command
from audio_mu.errors import UserError
from audio_mu.progress import say
from audio_mu.requests.ledger import RETIRED
from audio_mu.store import queries, registry
from audio_mu.store import references as stored
from audio_mu.store.artifacts import read_json
from audio_mu.store.handle import Store
from audio_mu.store.queries import Finished
from audio_mu.store.runs import Run
from audio_mu.system.hashing import hash_of
from audio_mu.workflows.bases import Bases, base_losses, find_bases
from audio_mu.workflows.data import Data, of_entry
from audio_mu.workflows.stage import base_tags, stage_run
from audio_mu.workflows.train import refuse_crossed

ATTACK_SOURCE = ("seeding.py", "training.py", "audit")
OF_MODELS = ("n_attack_models", "attack_feature")


def attack(config: Config, store: Store, engine: Engine | None = None, parent: Run | None = None) -> str:
    """Train attack models for the base models of all seeds, unless the store has them; return their run's id.

    With `references`, which need an engine, that run names the family of reference models too; those that the store
    lacks are trained.
    """
    bases, data = find_bases(store, config, for_request=False, trains=config.attack.references > 0)
    config = bases.config
    pool = _pool(config, store, data)
    fingerprint = hash_of(
        [
            "attack", sorted(bases.fingerprints().items()), config.attack.n_attack_models, config.attack.attack_feature,
            machine(config), source_hash(ATTACK_SOURCE),
        ]
    )  # fmt: skip
    finished = _newest(store, {"fingerprint": fingerprint, "stage": "attack"})
    if finished is not None and not config.store.force:
        with stage_run(store, parent, "attack", config, {**_base_tags(bases), "reused_run_id": finished.id}) as run:
            run.metrics(finished.metrics)
            say(f"attack: reusing the attack models of run {finished.name} ({finished.id[:8]})")
            _add_references(pool, data, engine, run, Run(store, finished.id, finished.name))
        return finished.id
    with stage_run(store, parent, "attack", config, _base_tags(bases)) as run:
        losses = {seed: base_losses(store, version, data) for seed, version in bases.versions.items()}
        copies = frozenset(data.clips.ids[i] for i in set(data.split.test) - set(data.split.nonmembers))
        rows = balanced_rows(losses, copies)
        with process_threads(threads_and_workers(config.machine)[0]):
            trained, quality = train_attack(rows, config.attack.n_attack_models, config.attack.attack_feature)
        _log(run, rows, trained, quality)
        run.tags({"fingerprint": fingerprint})
        _add_references(pool, data, engine, run, run)
    return run.id


def _pool(config: Config, store: Store, data: Data) -> Pool | None:
    """What reference models are trained on halves of, where they are asked for.

    All recordings of both sides, without anything of the people and classes of answered requests: test recordings of
    theirs stay among the data as non-members. Raises `UserError` where no halves can be drawn.
    """
    if not config.attack.references:
        return None
    rows = np.sort(np.concatenate([data.split.train, data.split.test]))
    for found in data.left_out:
        own, scope, held = of_entry(data.clips, found.entry, found.entry.is_elsewhere(config.data.label))
        rows = rows[~(own | scope | held)[rows]]
    tags = {**base_tags(config), "clips_digest": data.digest}
    pool = Pool(config, data.clips, rows, np.isin(rows, data.split.train), tags, places(store, config, data.clips))
    pool.check()
    return pool


def _add_references(pool: Pool | None, data: Data, engine: Engine | None, run: Run, models: Run) -> None:
    """Train the reference models that are asked for below a command's run; name them in that of its attack models."""
    if pool is None:
        return
    if engine is None:
        raise ValueError("reference models are trained by an engine: give one")
    refuse = partial(refuse_crossed, pool.config, run.store, data, pool.rows)
    family = train_references(pool, run.store, engine, run, refuse)
    if family is not None:
        models.tags({stored.tag_of(pool.by): family})


def _base_tags(bases: Bases) -> dict[str, str]:
    return {f"base_of_seed_{seed}": fingerprint for seed, fingerprint in bases.fingerprints().items()}


def _log(run: Run, rows: pd.DataFrame, trained: Attack, quality: list[AttackQuality]) -> None:
    run.csv("mia_all_balanced.csv", rows)
    run.csv("attack_models.csv", pd.DataFrame([{"model": i, **vars(q)} for i, q in enumerate(quality)]))
    run.text(
        "attack.json",
        json.dumps({"feature": trained.feature, "n_models": len(trained.networks), "scaling": trained.scaling}),
    )
    traced = registry.Traced(build_attack_network(), 1)
    about = {"feature": trained.feature, "answers": "member,non-member"}
    for i, network in enumerate(trained.networks):
        traced.module.load_state_dict(network.state_dict())
        registry.log_model(run, traced, f"attack-{i}", 2, about)
    means = mean_quality(quality)
    run.metrics({f"attack/{name}": value for name, value in means.items()})
    n_clips = rows["clip_id"].nunique()
    say(
        f"attack models ({len(quality)}, {n_clips} clips, half of them members): balanced accuracy "
        + ", ".join(f"{q.balanced_accuracy:.3f} [{q.low:.3f}, {q.high:.3f}]" for q in quality)
        + f"; AUC {means['auc']:.3f}"
    )
    for i, q in enumerate(quality):
        if q.collapsed:
            say(f"WARNING: attack model {i} has collapsed: every clip gets the same answer, the score means nothing")
        elif q.at_chance:
            say(
                f"WARNING: attack model {i} is at chance (the 95 % interval of its balanced accuracy contains 0.5): "
                "the MIA score says little about membership here"
            )


def find_attack(store: Store, bases: Bases) -> Finished:
    """The attack that the newest command on these base models has trained or taken.

    Where its feature or its number of models is given, the newest one of these. Raises `UserError` with the command
    that makes one.
    """
    config = bases.config
    asked = {name: getattr(config.attack, name) for name in OF_MODELS if name in config.given}
    for run in queries.find(store, {**base_tags(config), "stage": "attack", **_base_tags(bases)}):
        reused = run.tags.get("reused_run_id")
        found = queries.run_of(store, reused) if reused else run
        if found is not None and _has_models(found) and (not asked or asked.items() <= _about(store, found).items()):
            return found
    given = "".join(f" with {name}={value}" for name, value in asked.items())
    raise UserError(
        f"no attack models{given} for {config.registered_model} seeds {','.join(map(str, bases.versions))} in this "
        f"store: run `{command('attack', None, **config.as_text(asked))}` first"
    )


def _about(store: Store, run: Finished) -> dict[str, object]:
    """The parameters that a run's attack models were trained with."""
    about = read_json(store, run.id, "attack.json")
    return {"attack_feature": about["feature"], "n_attack_models": about["n_models"]}


def _has_models(run: Finished) -> bool:
    return "fingerprint" in run.tags and RETIRED not in run.tags


def _newest(store: Store, tags: Mapping[str, str]) -> Finished | None:
    """The newest run with these tags that trained attack models and still has them."""
    runs = queries.find(store, tags)
    return next((run for run in runs if _has_models(run)), None)


def load_attack(store: Store, run: Finished) -> Attack:
    """The attack models of a run, loaded without unpickling."""
    about = read_json(store, run.id, "attack.json")
    found = store.client.get_run(run.id).outputs
    outputs = found.model_outputs if found else []
    uris = {store.client.get_logged_model(o.model_id).name: f"models:/{o.model_id}" for o in outputs}
    networks: list[nn.Module] = []
    for i in range(about["n_models"]):
        network = build_attack_network()
        network.load_state_dict(registry.load_state(uris[f"attack-{i}"]))
        networks.append(network.eval())
    scaling = {int(seed): (mean, deviation) for seed, (mean, deviation) in about["scaling"].items()}
    return Attack(tuple(networks), about["feature"], scaling)
