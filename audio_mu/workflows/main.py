"""The whole chain: train, attack, unlearn, compare."""

from __future__ import annotations

from dataclasses import replace

from audio_mu.base_models.adopted import refuse_replacing
from audio_mu.base_models.shards import refuse_without_shards
from audio_mu.compute.engine import Engine
from audio_mu.config import Config
from audio_mu.errors import UserError
from audio_mu.requests.other_names import ledger_here
from audio_mu.requests.request import NeverTrainedError
from audio_mu.store.failed import COUNT
from audio_mu.store.handle import Store
from audio_mu.workflows.attack import attack
from audio_mu.workflows.bases import answer_never_trained, resume
from audio_mu.workflows.compare import compare
from audio_mu.workflows.data import data_to_train, resolve
from audio_mu.workflows.gather import describe_chain
from audio_mu.workflows.register import finish
from audio_mu.workflows.stage import stage_run
from audio_mu.workflows.train import train
from audio_mu.workflows.unlearn import unlearn


def run_all(config: Config, store: Store, engine: Engine) -> None:
    """Run the four stages below one run, with one pool of workers; the comparison shows this chain's cell.

    Seeds whose training failed are left out of the stages after it. Raises `UserError` where all of them failed.
    """
    if resume(config, store) is not None:
        return
    refuse_replacing(config, store)
    refuse_without_shards(config, config.base_recipe["shards"])
    if config.request.copies == "ask":  # before hours of training
        data = data_to_train(config, store, ledger_here(store, config.data.label))
        try:
            resolve(config, data)
        except NeverTrainedError as found:
            return answer_never_trained(config, store, data.clips, found)
    with stage_run(store, None, "main", config) as run:
        trained = tuple(sorted(train(config, store, engine, run), key=config.training.seeds.index))
        if not trained:
            raise UserError("no base model could be trained: the reasons are above")
        having = replace(config, training=replace(config.training, seeds=trained))
        attack(having, store, engine, run)
        cell = unlearn(having, store, engine, run)
        if not cell:  # no model has learnt anything of the request
            return
        describe_chain(store, run, config, cell, compare(config, store, run, cell))
        if store.failed:
            run.tags({COUNT: str(len(store.failed))})
    finish(config, store, run, cell)
