"""The engine that runs a command's jobs: what all engines offer, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

from audio_mu.compute.attempt import Failed, nothing
from audio_mu.compute.cores import threads_and_workers
from audio_mu.compute.pool import LocalEngine
from audio_mu.config import MachineParameters

J = TypeVar("J")
R = TypeVar("R")


class Engine(Protocol):
    """A context in which jobs run in other processes. The figures are the same for every engine."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(
        self, work: Callable[[J], R], jobs: Sequence[J], what: str, meanwhile: Callable[[], None] = nothing
    ) -> Iterator[tuple[J, R | Failed]]:
        """Yield (job, result or failure) as they become ready; jobs start in the order given.

        A job that raises fails alone. One whose worker is lost is tried once more. `meanwhile` is called once, in this
        process, when the jobs have been handed over: what the results will need can be read and made by then.
        """
        ...


def open_engine(config: MachineParameters) -> Engine:
    """The configured engine, to be used as a context."""
    threads, workers = threads_and_workers(config)
    if config.engine == "ray":
        from audio_mu.compute.ray import RayEngine  # an optional package

        return RayEngine(workers, threads, config.task_minutes)
    return LocalEngine(workers, config.task_minutes)
