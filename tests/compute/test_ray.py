"""The Ray engine on this machine: the local engine's figures, a lost worker, errors as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audio_mu.compute.jobs import Problem, TrainJob, train_job
from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from audio_mu.training import OptimizerSettings
from tests.faults.dying_jobs import DyingJob, die_once, refuse

pytest.importorskip("ray", reason="Ray is not installed (requirements-cluster.txt): its engine is not tested")

from audio_mu.compute.ray import RayEngine


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    """One local cluster of two cores for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        # The workers import the jobs as the tests do.
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
        with RayEngine(workers=2, threads=1) as opened:
            yield opened


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """Forty random clips of two classes."""
    draw = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("features") / "features.npy"
    np.save(file, draw.standard_normal((40, 1, 32, 63), dtype=np.float32))
    return Problem(file, np.arange(40) % 2, "CCT", 2, "cpu", threads=1)


def test_figures_are_those_of_the_local_engine(engine: RayEngine, problem: Problem) -> None:
    """Catches features or weights that arrive otherwise, and results given to another job."""
    jobs = [
        TrainJob(
            problem=problem,
            seed=seed,
            train=np.arange(30),
            sets={"test": np.arange(30, 40)},
            optimizer=OptimizerSettings("adam", 0.001, 0.9),
            batch_size=10,
            n_epochs=1,
            best_on=None,
        )
        for seed in (40, 41, 42)
    ]
    by_ray = {job.seed: result for job, result in engine.run(train_job, jobs, "by Ray")}
    with LocalEngine(1) as local:
        here = {job.seed: result for job, result in local.run(train_job, jobs, "here")}
    assert by_ray.keys() == here.keys() == {40, 41, 42}
    for seed, result in here.items():
        np.testing.assert_array_equal(by_ray[seed].logits["test"], result.logits["test"])
    assert not np.array_equal(here[40].logits["test"], here[41].logits["test"])


def test_a_lost_worker_costs_no_result(engine: RayEngine, problem: Problem, tmp_path: Path) -> None:
    """Catches a command that hangs or fails with one worker, and a result that comes twice."""
    jobs = [DyingJob(problem, seed, tmp_path / f"died-{seed}") for seed in (1, 2)]
    (tmp_path / "died-2").touch()
    assert sorted(result for _, result in engine.run(die_once, jobs, "dying")) == [1, 2]
    assert (tmp_path / "died-1").exists()


def test_an_error_of_the_user_stays_one(engine: RayEngine, problem: Problem, tmp_path: Path) -> None:
    """Catches a traceback of Ray's in place of the one line."""
    job = DyingJob(problem, 3, tmp_path / "none")
    with pytest.raises(UserError, match=r"^seed=3 is refused: give another$"):
        list(engine.run(refuse, [job, replace(job, seed=3)], "refused"))


def test_a_cluster_that_is_not_there_is_named(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a long trace, or a cluster started in silence, where RAY_ADDRESS is wrong."""
    import ray

    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with (
        pytest.raises(UserError, match=r"no cluster, RAY_ADDRESS='127\.0\.0\.1:1' "),
        RayEngine(workers=1, threads=1) as lost,
    ):
        list(lost.run(die_once, [DyingJob(problem, 1, Path("none"))], "lost"))
