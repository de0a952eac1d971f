"""The Ray engine on this machine: the local engine's figures, a lost worker, errors as they are."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audio_mu.compute.attempt import Failed
from audio_mu.compute.jobs import TrainJob, train_job
from audio_mu.compute.pool import LocalEngine
from audio_mu.compute.problem import Problem
from audio_mu.errors import UserError
from audio_mu.training import OptimizerSettings
from tests.faults.dying_jobs import DyingJob, die, die_once, nap, own_process, refuse_odd

pytest.importorskip("ray", reason="Ray is not installed (requirements-cluster.txt): its engine is not tested")

from audio_mu.compute.ray import RayEngine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayEngine]:
    """One local cluster of two cores for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        # As long as the temporary folder of a command, and longer.
        long = tmp_path_factory.mktemp("a-temporary-folder-with-a-name-too-long-for-the-sockets-of-ray")
        patch.setattr(tempfile, "tempdir", str(long))
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


def test_a_task_that_hangs_is_ended(engine: RayEngine, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a command that waits for ever for one task of a cluster, or ends it with the others."""
    monkeypatch.setattr(engine, "task_minutes", 0.05)
    jobs = [DyingJob(problem, seconds, Path()) for seconds in (600, 0)]
    found = {job.seed: result for job, result in engine.run(nap, jobs, "naps")}
    assert found == {600: Failed("took longer than task_minutes=0.05"), 0: 0}


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


def test_code_of_the_users_own_has_a_worker_for_itself(engine: RayEngine, problem: Problem) -> None:
    """Catches a method whose changes of global state the next task of the same worker finds."""
    jobs = [DyingJob(problem, seed, Path(), runs_own_code=True) for seed in range(4)]
    assert len({pid for _, pid in engine.run(own_process, jobs, "own")}) == 4


def test_a_lost_worker_costs_no_result(engine: RayEngine, problem: Problem, tmp_path: Path) -> None:
    """Catches a command that hangs or fails with one worker, and a result that comes twice."""
    jobs = [DyingJob(problem, seed, tmp_path / f"died-{seed}") for seed in (1, 2)]
    (tmp_path / "died-2").touch()
    assert sorted(result for _, result in engine.run(die_once, jobs, "dying")) == [1, 2]
    assert (tmp_path / "died-1").exists()


def test_one_job_fails_and_the_others_do_not(engine: RayEngine, problem: Problem, tmp_path: Path) -> None:
    """Catches a command that ends with its first failed job, and a traceback of Ray's in place of the one line."""
    jobs = [DyingJob(problem, seed, tmp_path / "none") for seed in (1, 2, 3)]
    found = {job.seed: result for job, result in engine.run(refuse_odd, jobs, "refused")}
    assert found.pop(2) == 2
    for seed, failed in found.items():
        assert isinstance(failed, Failed)
        assert failed.reason == f"seed={seed} is refused: give another"


def test_a_worker_that_is_lost_twice_is_a_failure(engine: RayEngine, problem: Problem, tmp_path: Path) -> None:
    """Catches a command that ends, or tries for ever, with a job that kills its worker every time."""
    ((_, failed),) = engine.run(die, [DyingJob(problem, 1, tmp_path / "deaths")], "dying")
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("its worker was lost 2 times")
    assert len((tmp_path / "deaths").read_text()) == 2


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a long trace, a cluster started in silence, or work done first, where RAY_ADDRESS is wrong."""
    import ray

    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"no cluster, RAY_ADDRESS='127\.0\.0\.1:1' "), RayEngine(1, 1):
        pass


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a command that hangs without a line: Ray waits for ever for who listens and does not answer."""
    import ray

    ray.shutdown()
    monkeypatch.setattr("audio_mu.compute.ray.CLUSTER_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with (
            pytest.raises(UserError, match=rf"no cluster, RAY_ADDRESS='{address}' \(no answer within 3 s"),
            RayEngine(1, 1),
        ):
            pass
    assert f"joining the cluster at {address}, waiting up to 3 s" in capsys.readouterr().out
