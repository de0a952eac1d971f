"""Jobs: what is timed is the method's own work."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from audio_mu.compute import jobs
from audio_mu.compute.jobs import TrainJob, UnlearnJob, train_job, unlearn_job
from audio_mu.compute.problem import Problem
from audio_mu.errors import UserError
from audio_mu.training import OptimizerSettings
from audio_mu.unlearning import Settings


@pytest.fixture
def job(tmp_path: Path) -> UnlearnJob:
    """naive on twenty random clips."""
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((20, 1, 32, 63), dtype=np.float32))
    problem = Problem(tmp_path / "f.npy", np.arange(20) % 2, "CCT", 2, "cpu", threads=1)
    state = {name: value.numpy() for name, value in problem.initialise(1).state_dict().items()}
    sets = {"forget": np.arange(4), "remain": np.arange(4, 20)}
    settings = Settings(OptimizerSettings("adam", 0.001), 8, 1)
    return UnlearnJob(problem, 40, "naive", "item", state, sets, settings, {}, None)


def test_a_worker_is_warm_before_its_first_clock(job: UnlearnJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches naive, a worker's first job, that pays for kernels and memory and makes every method look faster."""
    steps: list[str] = []
    fit, run = jobs.fit, jobs.run_method
    monkeypatch.setattr(jobs, "fit", lambda *a, **k: (steps.append("warm"), fit(*a, **k)))
    monkeypatch.setattr(jobs, "run_method", lambda *a, **k: (steps.append(a[0]), run(*a, **k))[1])
    jobs.warm_up.cache_clear()
    unlearn_job(job)
    unlearn_job(job)
    assert steps == ["warm", "naive", "naive"]


def test_warming_up_changes_no_figure(job: UnlearnJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches draws of a method that depend on whether its worker was warmed for it, and a job that a warm-up fails."""
    jobs.warm_up.cache_clear()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    warmed = unlearn_job(job)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    monkeypatch.setattr(jobs, "warm_up", lambda *_: 1 / 0)
    cold = unlearn_job(job)
    for name in warmed.logits:
        np.testing.assert_array_equal(warmed.logits[name], cold.logits[name])


OWN = """
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class Pretrained(nn.Module):
    def __init__(self, n_classes, input_shape):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Linear(64, n_classes)

    def start(self, seed):
        self.encoder.load_state_dict(load_file(Path(__file__).parent / "encoder.safetensors"))

    def forward(self, features):
        return self.head(self.encoder(features))


class Larger(Pretrained):
    def start(self, seed):
        self.head = nn.Linear(64, 7)


class Freezing(Pretrained):
    def start(self, seed):
        self.encoder.requires_grad_(False)


class Failing(Pretrained):
    def start(self, seed):
        raise RuntimeError("no such file")
"""


def test_which_jobs_run_code_of_the_users_own(job: UnlearnJob) -> None:
    """Catches an own network or method that shares its worker, and a built-in encoder that gets one for every task."""

    def own(architecture: str, reference: str) -> bool:
        problem = replace(job.problem, architecture=architecture)
        training = TrainJob(problem, 40, job.sets["remain"], job.sets, job.settings.optimizer, 8, 0, None)
        unlearning = replace(job, problem=problem, reference=reference)
        assert training.runs_own_code == replace(unlearning, reference="").runs_own_code
        return unlearning.runs_own_code

    encoder = "audio_mu.models.pretrained:WavLM"
    assert not own("CCT", "") and not own(encoder, "")
    assert own("/tmp/own.py:Flat", "") and own("CCT", "/tmp/own.py:mine") and own(encoder, "my.module:mine")


@pytest.fixture
def pretrained(job: UnlearnJob, tmp_path: Path) -> UnlearnJob:
    """The same on a network whose encoder starts from a file; the base's weights are all 9 or larger."""
    (tmp_path / "own.py").write_text(OWN)
    save_file({"0.weight": torch.full((4, 1, 5, 5), 0.25), "0.bias": torch.zeros(4)}, tmp_path / "encoder.safetensors")
    problem = replace(job.problem, architecture=f"{tmp_path}/own.py:Pretrained")
    state = {name: 9 + value.abs().numpy() for name, value in problem.network(1).state_dict().items()}
    return replace(job, problem=problem, base_state=state, settings=replace(job.settings, n_epochs=0, n_epoch_repair=0))


def test_training_and_retraining_start_where_the_class_says(pretrained: UnlearnJob) -> None:
    """Catches naive from fresh or from trained weights, and a head that is not drawn from the seed."""
    job, problem = pretrained, pretrained.problem
    optimizer = job.settings.optimizer
    base = train_job(TrainJob(problem, 40, job.sets["remain"], job.sets, optimizer, 8, 0, None)).state
    naive = unlearn_job(job).state
    assert all(np.array_equal(base[name], naive[name]) for name in base)
    assert (naive["encoder.0.weight"] == 0.25).all() and not naive["encoder.0.bias"].any()
    assert np.array_equal(naive["head.weight"], problem.network(40).state_dict()["head.weight"].numpy())


def test_regrown_weights_and_teachers_start_where_the_class_says(pretrained: UnlearnJob) -> None:
    """Catches regrowth and random teachers from fresh weights of the encoder, or from the base's own."""
    state = unlearn_job(replace(pretrained, method="pop")).state
    encoder, trained = state["encoder.0.weight"], pretrained.base_state["encoder.0.weight"]
    assert set(encoder[encoder < 9].tolist()) == {0.25} and (encoder[encoder >= 9] == trained[encoder >= 9]).all()
    teachers: list[Tensor] = []
    initialise = pretrained.problem.initialise

    class Watched(Problem):
        def initialise(self, seed: int) -> torch.nn.Module:
            teachers.append((network := initialise(seed)).encoder[0].weight)
            return network

    watched = Watched(**vars(pretrained.problem))
    for method in ("stochastic_teacher", "bad_teacher"):
        unlearn_job(replace(pretrained, method=method, problem=watched))
    assert len(teachers) == 2 and all((weight == 0.25).all() for weight in teachers)


def test_what_trains_no_fresh_network_needs_no_start(pretrained: UnlearnJob, tmp_path: Path) -> None:
    """Catches a pretrained file that every method, and every evaluation, wants to read."""
    (tmp_path / "encoder.safetensors").unlink()
    assert (unlearn_job(replace(pretrained, method="fine_tune")).state["encoder.0.weight"] >= 9).all()
    with pytest.raises(UserError, match=r"Pretrained': start\(40\) fails"):
        unlearn_job(pretrained)


@pytest.mark.parametrize(
    ("name", "words"), [("Larger", "'head.weight'"), ("Freezing", "freeze in"), ("Failing", "mend it")]
)
def test_a_start_that_makes_another_network_is_refused(name: str, words: str, pretrained: UnlearnJob) -> None:
    """Catches a naive that has other weights, or other frozen ones, than its base."""
    architecture = pretrained.problem.architecture.replace("Pretrained", name)
    with pytest.raises(UserError, match=words) as raised:
        replace(pretrained.problem, architecture=architecture).initialise(40)
    assert "\n" not in str(raised.value)
