"""Jobs: what is timed is the method's own work."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_mu.compute import jobs
from audio_mu.compute.jobs import Problem, UnlearnJob, unlearn_job
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
