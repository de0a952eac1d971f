"""The whole chain: train, attack, unlearn, compare."""

from __future__ import annotations

from audio_mu.compute.engine import Engine
from audio_mu.config import Config
from audio_mu.requests.ledger import read_ledger
from audio_mu.store.handle import Store
from audio_mu.workflows.attack import attack
from audio_mu.workflows.compare import compare
from audio_mu.workflows.data import data_to_train, resolve
from audio_mu.workflows.register import register_unlearned, resumed
from audio_mu.workflows.stage import stage_run
from audio_mu.workflows.train import train
from audio_mu.workflows.unlearn import unlearn


def run_all(config: Config, store: Store, engine: Engine) -> None:
    """Run the four stages below one run, with one pool of workers; the comparison shows this chain's cell."""
    if resumed(config, store):
        return
    if config.request.copies == "ask":  # before hours of training
        resolve(config, data_to_train(config, store, read_ledger(store, config.data.label)))
    with stage_run(store, None, "main", config) as run:
        train(config, store, engine, run)
        attack(config, store, run)
        cell = unlearn(config, store, engine, run)
        compare(config, store, run, cell)
        register_unlearned(config, store, run, cell)
