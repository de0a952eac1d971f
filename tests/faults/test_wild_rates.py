"""Every method at a million times its rates, and a training that diverges: the command finishes all that can be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from audio_mu.names import ORIGINAL
from audio_mu.unlearning import METHODS
from tests.answered import tones
from tests.conftest import Command
from tests.finished_store import Results

FACTOR = 1_000_000
NETWORK = """
import torch
from torch import nn
from audio_mu.models import AudioClassifier


class Tiny(AudioClassifier):
    def __init__(self, n_classes, shape):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 8, stride=8)
        # Products of weights, without what would bound them: too high a rate ends in infinity.
        self.mix = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(4)))
        self.head = nn.Linear(4 * (shape[0] // 8) * (shape[1] // 8), n_classes)

    def penultimate(self, features):
        return self.mix(self.conv(features)).flatten(1)

    def last_block(self):
        return [self.mix, self.head]


class Wild(Tiny):
    def __init__(self, n_classes, shape):
        super().__init__(n_classes, shape)
        if torch.initial_seed() == 41:
            nn.init.constant_(self.head.weight, float("nan"))
"""
SMALL = {
    "dataset": "folder", "dataset_name": "tones", "clip_seconds": "0.5", "speaker_pattern": r"(p\d+)_", "seeds": "40",
    "n_epochs": "1", "batch_size": "8", "n_epoch_repair": "1", "n_attack_models": "1", "optimizer": "sgd",
    "learning_rate": "0.01", "workers": "2",
}  # fmt: skip


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    """Parameters of a chain on few tones with a small network."""
    (tmp_path / "own.py").write_text(NETWORK)
    return {**SMALL, "data_dir": str(tones(tmp_path / "tones")), "architecture": f"{tmp_path}/own.py:Tiny"}


def wild_rates(file: Path) -> Path:
    """`method_config` with every learning rate of every method a million times what it is."""
    rates: dict[str, dict[str, float]] = {}
    for name, method in METHODS.items():
        own = {key: value * FACTOR for key, value in method.hyper_parameters.items() if key == "learning_rate"}
        shared = {key: float(SMALL["learning_rate"]) * FACTOR for key in method.settings if key.endswith("_rate")}
        if own or shared:
            rates[name] = own | shared
    file.write_text(yaml.safe_dump(rates))
    return file


def by_status(store: Results) -> dict[str, dict[str, list]]:
    """Status → method → its runs."""
    found: dict[str, dict[str, list]] = {}
    for run in store.runs("tags.role = 'method'"):
        found.setdefault(run.info.status, {}).setdefault(run.data.tags["method"], []).append(run)
    return found


def test_methods_that_diverge_cost_the_others_nothing(given: dict[str, str], tmp_path: Path, entry: Command) -> None:
    """Catches a diverged method that ends the command, is not named, is averaged, or has others computed again."""
    wild = {**given, "methods": "all", "method_config": str(wild_rates(tmp_path / "wild.yaml"))}
    done = entry("main", tmp_path, **wild)
    print(done.stderr)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    store = Results(tmp_path)
    first = by_status(store)
    assert set(first) == {"FINISHED", "FAILED"}
    finished, failed = set(first["FINISHED"]), set(first["FAILED"])
    assert finished | failed == {ORIGINAL, *METHODS} - {"exact_shards"}  # there are no shards
    assert not finished & failed
    assert {ORIGINAL, "naive", "ssd"} <= finished
    assert len(failed) >= 5
    head, *named = done.stderr.strip().splitlines()[-1 - len(failed) :]
    assert head == f"{len(failed)} tasks failed; the others are finished, and the same command tries only these again:"
    assert {line.split()[0] for line in named} == failed
    assert all(" seed-40: logits of " in line for line in named)
    for name in failed:
        assert f"note: {name} seed 40 failed and is left out: logits of " in done.stdout

    done = entry("main", tmp_path, **wild)
    assert done.returncode == 3, done.stderr
    again = by_status(store)
    assert {name: len(runs) for name, runs in again["FINISHED"].items()} == dict.fromkeys(finished, 1)
    assert {name: len(runs) for name, runs in again["FAILED"].items()} == dict.fromkeys(failed, 2)


def test_a_training_that_diverges_costs_the_others_nothing(
    given: dict[str, str], tmp_path: Path, entry: Command
) -> None:
    """Catches a chain that ends with the first seed that diverges, and a registration without that seed."""
    wild = {**given, "architecture": f"{tmp_path}/own.py:Wild", "seeds": "40,41", "methods": "naive"}
    done = entry("main", tmp_path, **wild, register="naive")
    assert done.returncode == 2, done.stdout + done.stderr
    *_, head, named, error = done.stderr.strip().splitlines()
    assert head.startswith("1 task failed; the others are finished, and the same command tries only this one again:")
    assert named.startswith("  seed-41: logits of ")
    assert error.startswith("error: register='naive' is refused: naive has no finished run for seeds [41]")
    assert "naive has no finished run for seeds [41]: its mean is over [40] only" in done.stdout
    store = Results(tmp_path)
    assert {name: len(runs) for name, runs in by_status(store)["FINISHED"].items()} == {ORIGINAL: 1, "naive": 1}
    assert store.runs("tags.stage = 'compare' and attributes.status = 'FINISHED'")
    assert not store.runs("tags.stage = 'ledger'")
