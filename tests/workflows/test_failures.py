"""A task that fails is named, counted and left out; what is beside it is finished, and not done again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from audio_mu.compute.pool import LocalEngine
from audio_mu.errors import UserError
from audio_mu.unlearning import METHODS
from tests.answered import Answered

METHODS_OF_MINE = r"""
import os, signal, sys, time
import numpy as np
from torch import nn
from audio_mu.unlearning import choice, method


@method(reads={"forget"}, settings=set())
def raises(task):
    raise KeyError("nothing of that name")


@method(reads={"forget"}, settings=set())
def dies(task):
    os.kill(os.getpid(), signal.SIGKILL)


@method(reads={"forget"}, settings=set())
def exits(task):
    sys.exit(0)


@method(reads={"forget"}, settings=set())
def says_half_a_character(task):
    raise BaseException("bad \udcff name")


@method(reads={"forget"}, settings=set())
def takes_all_memory(task):
    np.ones(1 << 45)


@method(reads={"forget"}, settings=set())
def gives_nothing_back(task):
    task.base()


@method(reads={"forget"}, settings=set())
def gives_another_back(task):
    return nn.Linear(3, 3)


@method(reads={"forget"}, settings=set())
def records_nonsense(task):
    task.figures["loss?"] = 1.0
    return task.base()


@method(reads={"forget"}, settings=set())
def sleeps(task):
    time.sleep(3600)


@method(reads={"forget"}, settings=set())
def half(task):
    if task.seed == 41:
        raise ValueError("seed 41 never works")
    return task.base()


@method(reads={"forget"}, settings=set(), search={"rate": choice(1, 2, 3)})
def picky(task, *, rate=0):
    if rate:
        raise ValueError(f"rate {rate}")
    return task.base()


@method(reads={"forget"}, settings=set(), search={"rate": choice(1, 2, 3)})
def hopeless(task, *, rate=0):
    raise ValueError("never")


@method(reads={"remain"}, settings=set())
def fragile(task):
    if os.path.exists(os.environ["FRAGILE"]):
        raise ValueError("not now")
    return task.retrain("remain")
"""
REASONS = {
    "raises": "KeyError: 'nothing of that name'",
    "dies": "its worker was lost 2 times (signal 9; has the memory ended?): fewer workers need less",
    "exits": "SystemExit: 0",
    "says_half_a_character": r"BaseException: bad \udcff name",
    "takes_all_memory": "the memory has ended (MemoryError: Unable to allocate 256. TiB",
    "gives_nothing_back": "gives_nothing_back gives back None: it must return the network",
    "gives_another_back": "gives_another_back gives back a network of other weights than the base's",
    "records_nonsense": "a method records 'loss?': give a name of letters",
}


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(1) as opened:
        yield opened


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, engine: LocalEngine) -> Iterator[Answered]:
    """A small store with two base models and attack models, and a file of methods that fail."""
    before = dict(METHODS)
    with pytest.MonkeyPatch.context() as patch:
        top = tmp_path_factory.mktemp("failures")
        patch.setenv("FRAGILE", str(top / "broken"))
        made = Answered.new(top / "project", engine)
        made = Answered(made.folder, {**made.parameters, "seeds": "40,41", "n_epochs": "2"}, engine)
        (made.folder / "mine.py").write_text(METHODS_OF_MINE)
        made.run("train")
        made.run("attack")
        yield made
    METHODS.clear()
    METHODS.update(before)


def own(project: Answered, *names: str) -> str:
    return ",".join(["naive", *(f"{project.folder}/mine.py:{name}" for name in names)])


def status(project: Answered, run: str) -> str:
    ((found,),) = project.query("select status from runs where run_uuid = ?", run)
    return str(found)


def by_status(project: Answered, request: str) -> dict[str, dict[tuple[str, str], list[str]]]:
    """Status → (method, seed) → the runs of a request's methods, the oldest first."""
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for run in project.runs(role="method", request=request):
        tags = project.tags(run)
        found.setdefault(status(project, run), {}).setdefault((tags["method"], tags["seed"]), []).append(run)
    return found


@pytest.fixture(scope="module")
def failed(project: Answered) -> str:
    """What a command prints in which all methods but one fail, on one seed."""
    return project.run("unlearn", seeds="40", methods=own(project, *REASONS))


def test_every_way_to_fail_is_a_run_with_its_reason(project: Answered, failed: str) -> None:
    """Catches a failure that ends the command, loses its name, or looks like a result."""
    runs = by_status(project, "item-10")
    assert set(runs) == {"FINISHED", "FAILED"}
    assert set(runs["FINISHED"]) == {("original", "40"), ("naive", "40")}
    assert set(runs["FAILED"]) == {(name, "40") for name in REASONS}
    for (name, seed), (run,) in runs["FAILED"].items():
        tags = project.tags(run)
        assert tags["failed_reason"].startswith(REASONS[name])
        assert f"  FAILED {name} seed-{seed}: {tags['failed_reason']}" in failed.splitlines()
        assert project.query("select count(*) from latest_metrics where run_uuid = ?", run) == [(0,)]
        trace = project.place(run) / "failure.txt"
        assert trace.is_file() == (name != "dies")
    assert (
        'raise KeyError("nothing of that name")'
        in (project.place(runs["FAILED"]["raises", "40"][0]) / "failure.txt").read_text()
    )
    (parent,) = project.runs(stage="unlearn", role="parent")
    assert (status(project, parent), project.tags(parent)["failed_tasks"]) == ("FINISHED", str(len(REASONS)))


def test_the_same_command_tries_only_what_failed(project: Answered, failed: str) -> None:
    """Catches finished work that is done again, and a failure that is taken for a result."""
    again = project.run("unlearn", seeds="40", methods=own(project, *REASONS))
    assert "reusing 2 finished runs of this cell" in again
    runs = by_status(project, "item-10")
    assert {len(found) for found in runs["FINISHED"].values()} == {1}
    assert {len(found) for found in runs["FAILED"].values()} == {2}


def test_half_characters_of_a_command_line_are_told(project: Answered) -> None:
    """Catches a traceback for a name in another encoding than the terminal's, which no text file or database takes."""
    with pytest.raises(UserError, match=r"forget_speakers has .*not among the 4 speakers"):
        project.run("unlearn", forget="speaker", forget_speakers="\udcff\udcfe")
    with pytest.raises(UserError, match="forget_class_names has unknown classes"):
        project.run("unlearn", forget="class", forget_class_names="\udcff")


def test_compare_leaves_out_by_name(project: Answered) -> None:
    """Catches a mean over fewer seeds than it says, and a method that vanishes without a word."""
    request = {"forget_percentage": "20", "methods": own(project, "half", "raises")}
    project.run("unlearn", **request)
    told = project.run("compare")
    assert "note: half seed 41 failed and is left out: ValueError: seed 41 never works" in told
    assert "note: raises seed 40 failed and is left out: KeyError: 'nothing of that name'" in told
    assert "note: half has no finished run for seeds [41]: its mean is over [40] only" in told


def test_what_works_the_next_time_is_not_told_any_more(project: Answered) -> None:
    """Catches a failure that is told for ever, and a mended task that is not done."""
    broken = project.folder.parent / "broken"
    broken.touch()
    request = {"forget_percentage": "30", "methods": own(project, "fragile")}
    assert "FAILED fragile seed-40: ValueError: not now" in project.run("unlearn", **request)
    broken.unlink()
    assert "FAILED" not in project.run("unlearn", **request)
    assert "fragile seed 40 failed" not in project.run("compare")


def test_a_method_that_hangs(project: Answered) -> None:
    """Catches a command that never ends, and one that throws away what is beside the method that hangs."""
    with LocalEngine(1, task_minutes=0.2) as engine:
        limited = Answered(project.folder, {**project.parameters, "seeds": "40"}, engine)
        told = limited.run("unlearn", forget_percentage="35", methods=own(project, "sleeps", "fragile"))
    assert "FAILED sleeps seed-40: took longer than task_minutes=0.2" in told
    assert set(by_status(project, "item-35")["FINISHED"]) == {(of, "40") for of in ("original", "naive", "fragile")}


def test_trials_that_fail_are_left_out_of_the_choice(project: Answered) -> None:
    """Catches a search that ends with its first failed trial, chooses one, or counts a failure as a try."""
    told = project.run("tune", seeds="40", methods=own(project, "picky"), n_trials="3")
    assert told.count("FAILED picky trial-") == 2
    assert "| picky | " in told and "as it comes" in told
    runs = project.runs(stage="tune", role="trial", method="picky")
    assert sorted(status(project, run) for run in runs) == ["FAILED", "FAILED", "FINISHED"]
    assert {project.tags(run).get("failed_reason", "")[:16] for run in runs} == {"", "ValueError: rate"}
    again = project.run("tune", seeds="40", methods=own(project, "picky"), n_trials="3")
    assert "reusing 1 finished trials" in again
    assert again.count("FAILED picky trial-") == 2
    with pytest.raises(UserError, match="every trial failed"):
        project.run("tune", seeds="40", methods=own(project, "hopeless"), n_trials="2")


def test_times_are_compared_on_one_machine_alone(project: Answered) -> None:
    """Catches a speed-up against a naive of other threads, and one that never comes though its naive is there."""
    request = {"seeds": "40", "forget_percentage": "15"}
    project.run("unlearn", **request, methods="fine_tune", threads="1")
    told = project.run("unlearn", **request, methods="naive", threads="2")
    assert "note: seed 40: not compared with naive: fine_tune, made with other threads" in told
    (run,) = project.runs(role="method", request="item-15", method="fine_tune")
    compared = "select count(*) from latest_metrics where run_uuid = ? and key in ('time/speedup', 'distance/js')"
    assert project.query(compared, run) == [(0,)]
    assert "not compared" not in project.run("unlearn", **request, methods="naive", threads="1")
    assert project.query(compared, run) == [(2,)]


@pytest.mark.parametrize("register", ["half", "best"])
def test_a_failed_seed_is_never_registered(project: Answered, register: str) -> None:
    """Catches a version of a seed that failed, or a method registered for the seeds that happened to work."""
    with pytest.raises(UserError, match=f"register='{register}' is refused: ") as raised:
        project.run("unlearn", forget_percentage="20", methods=own(project, "half"), register=register)
    assert "\n" not in str(raised.value)
    if register == "half":
        assert "half has no finished run for seeds [41] (ValueError: seed 41 never works)" in str(raised.value)
    assert not project.entries()


WILD = """
import os
import torch
from torch import nn


class Wild(nn.Sequential):
    def __init__(self, n_classes, shape):
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1], n_classes))
        if torch.initial_seed() == 41 and os.path.exists(os.environ["FRAGILE"]):
            nn.init.constant_(self[1].weight, float("nan"))
"""


@pytest.fixture
def wild(project: Answered) -> dict[str, str]:
    """Parameters of a network that diverges on seed 41 while a file is there."""
    file = project.folder / "wild.py"
    file.write_text(WILD)
    return {"architecture": f"{file}:Wild", "seeds": "40,41,42"}


def test_one_seed_of_a_training_diverges(project: Answered, wild: dict[str, str]) -> None:
    """Catches trainings beside a diverged one that are thrown away, and a command that trains them again."""
    broken = project.folder.parent / "broken"
    broken.touch()
    for n in (1, 2):
        told = project.run("train", **wild)
        assert "FAILED seed-41: logits of " in told
        assert "mean of 2 seeds" in told
        runs = [run for run in project.runs(role="seed") if project.tags(run)["architecture"] == "Wild"]
        assert sorted(status(project, run) for run in runs) == ["FAILED"] * n + ["FINISHED"] * 2
    told = r"no base model .* for seeds=41 .* only for seeds=40,42: .* \(training failed: seed 41: logits of "
    with pytest.raises(UserError, match=told):
        project.run("attack", **wild)
    broken.unlink()
    told = project.run("train", **wild)
    assert "FAILED" not in told
    assert "mean of 3 seeds" in told


def test_a_seed_without_naive_is_never_registered(project: Answered, wild: dict[str, str]) -> None:
    """Catches a model that goes into service unmeasured because the retraining of its seed failed."""
    broken = project.folder.parent / "broken"
    project.run("train", **wild)
    project.run("attack", **wild)
    broken.touch()
    try:
        with pytest.raises(UserError, match=r"naive has no finished run for seeds \[41\] \(logits of ") as raised:
            project.run("unlearn", **wild, methods="naive,fine_tune", register="fine_tune")
    finally:
        broken.unlink()
    assert "register=naive" not in str(raised.value)
    assert not project.entries()
