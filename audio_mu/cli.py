"""Every entry point by its name: read parameters, refuse wrong ones in one line, run the workflow, end cleanly.

`audio-mu train --seeds 40 --n_epochs 8`, `python -m audio_mu train …`, `python -m entrypoints.train …` and
`mlflow run . -e train -P seeds=40` are the same command.
"""

from __future__ import annotations

import atexit
import importlib
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from audio_mu.compute.worker import end_server, start_server
from audio_mu.config import LONGEST_SHOWN, PARAMETERS, Config, parse
from audio_mu.config.commands import remember
from audio_mu.config.reads import help_text
from audio_mu.errors import UserError, causes, memory_ended, named, one_line
from audio_mu.progress import complain, prepare_streams, say, show
from audio_mu.system.processes import when_orphaned
from audio_mu.system.tuning import look_seldom_for_garbage
from audio_mu.system.user import check_user
from audio_mu.system.writing import own_temporary_folder

if TYPE_CHECKING:
    from audio_mu.compute.engine import Engine

USER_ERROR, LEFT_OUT, INTERRUPTED = 2, 3, 130
AGAIN = "finished steps are kept, and the same command goes on from there"
SECONDS_TO_END = 5.0  # after which a second signal interrupts the ending too
SECONDS_UNTIL_AGAIN = 1.0  # after which an interrupt that has got lost comes again


@dataclass(frozen=True)
class EntryPoint:
    """A command: a sentence about it and the function that does its work.

    `computes`: it needs torch, and the methods and the network are checked before any work. `engine`: the function
    takes the engine of worker processes as its third argument, `attack` where reference models are asked for.
    """

    about: str
    module: str
    function: str
    computes: bool = True
    engine: bool = False


ENTRY_POINTS = {
    "main": EntryPoint("The whole chain: train, attack, unlearn, compare.", "main", "run_all", engine=True),
    "train": EntryPoint("Train the base models of every seed and register them.", "train", "train", engine=True),
    "adopt": EntryPoint("Take models that somebody else has trained as base models.", "adopt", "adopt"),
    "attack": EntryPoint(
        "Train membership attack models on the base models' losses, with references=… reference models too.",
        "attack", "attack", engine=True,
    ),
    "unlearn": EntryPoint(
        "Unlearn a request with every method and seed, and measure what is left.", "unlearn", "unlearn", engine=True
    ),
    "compare": EntryPoint("Compare the methods over the seeds.", "compare", "compare", computes=False),
    "report": EntryPoint(
        "Write the report of a request from the store, and the evidence record of one method.", "report", "report",
        computes=False,
    ),
    "tune": EntryPoint(
        "Choose the methods' hyper-parameters without the test set, for `method_config`.", "tune", "tune", engine=True
    ),
    "erase": EntryPoint(
        "Remove the recordings of an answered request from store and caches; without confirm=true, list them.",
        "erase", "erase", computes=False,
    ),
}  # fmt: skip


def main() -> int:
    """The console script `audio-mu <entry point> --name value`; return the exit code."""
    prepare_streams()
    words = sys.argv[1:]
    if words and words[0] in ENTRY_POINTS:
        return run_entry_point(words[0], words[1:])
    listed = "\n".join(f"  {name:<8} {entry.about}" for name, entry in ENTRY_POINTS.items())
    usage = f"audio-mu <entry point> --name value …\n\nEntry points:\n{listed}\n\n--help behind one: its parameters"
    if not words or words[0] in ("--help", "-h"):
        show(usage)
        return 0
    complain(f"error: {words[0][:LONGEST_SHOWN]!r} is no entry point: choose {', '.join(ENTRY_POINTS)}")
    return USER_ERROR


def run_entry_point(name: str, arguments: Sequence[str] | None = None) -> int:
    """Run an entry point with `--name value` words; return its exit code.

    2: refused or broken off; 3: finished but for tasks that failed or runs that cannot be read; 130: interrupted.
    """
    prepare_streams()
    entry = ENTRY_POINTS[name]
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in given or "-h" in given:
        show(f"{entry.about}\n\n{help_text(name)}")
        return 0
    _end_on_signals()
    sys.excepthook = _complain_of
    look_seldom_for_garbage()
    try:
        values = read_words(given)
        return _run(name, Config.from_text(values), values)
    except UserError as error:
        complain(f"error: {error}")
        _leave_reason(name, error)
        return USER_ERROR
    except KeyboardInterrupt:
        complain(f"interrupted: {AGAIN}")
        with suppress(OSError):
            sys.stdout.flush()
        end_server()
        os._exit(INTERRUPTED)  # at once: libraries take many seconds to leave while they compile or export
    except Exception as error:
        if not memory_ended(error):
            raise
        complain(f"error: the memory has ended ({one_line(error)}): give this command more; {AGAIN}")
        return USER_ERROR
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _complain_of(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as it may be shown: libraries put addresses with passwords into their errors."""
    complain("".join(traceback.format_exception(kind, error, trace)).rstrip())


def read_words(arguments: Sequence[str]) -> dict[str, str]:
    """Name → value from `--name value` or `--name=value`, with underscores or hyphens.

    Raises `UserError` for a word that is no parameter, lacks its value or comes twice.
    """
    values: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word[:LONGEST_SHOWN]!r} is not a parameter: give --name value (see --help)")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in PARAMETERS:
            parse(name, value if equals else (rest[0] if rest else ""))  # refuses, with a suggestion
        if not equals:
            if not rest or _is_parameter(rest[0]):  # `--request $HASH --confirm true` of an empty variable
                behind = f", {rest[0][:LONGEST_SHOWN]} follows" if rest else ""
                raise UserError(f"--{name} lacks its value{behind}: give --{name} value")
            value = rest.pop(0)
        if name in values:
            both = f"{values[name][:LONGEST_SHOWN]!r} and {value[:LONGEST_SHOWN]!r}"
            raise UserError(f"--{name} is given twice, as {both}: give it once")
        values[name] = value
    return values


def _is_parameter(word: str) -> bool:
    return word.startswith("--") and word[2:].partition("=")[0].replace("-", "_") in PARAMETERS


def _run(name: str, config: Config, given: Mapping[str, str]) -> int:
    entry = ENTRY_POINTS[name]
    on_workers = entry.engine and (name != "attack" or config.attack.references > 0)
    check_user()
    if on_workers and config.machine.engine != "ray":
        start_server()  # so that it imports beside this process
        atexit.register(end_server)
    # Imported here: a wrong parameter and --help are answered without waiting for torch and MLflow.
    from audio_mu.store.connect import open_store
    from audio_mu.store.failed import last_lines
    from audio_mu.store.faults import explain, is_interrupt
    from audio_mu.store.links import where_to_look
    from audio_mu.store.runs import end_own_runs
    from audio_mu.store.started import started

    _check(entry, config, on_workers)
    work = getattr(importlib.import_module(f"audio_mu.workflows.{entry.module}"), entry.function)
    try:
        store = open_store()
        remember(started(store, name, given))
        try:
            with ExitStack() as opened:
                opened.enter_context(own_temporary_folder())
                work(config, store, *([opened.enter_context(_engine(config))] if on_workers else []))
        except BaseException as error:
            end_own_runs(store, error)
            _print_last(last_lines(store), store.answer)
            raise
        say(where_to_look(store))
        _print_last(last_lines(store), store.answer)
        return LEFT_OUT if store.failed or store.damaged else 0
    except UserError:
        raise
    except SystemExit as error:
        raise UserError(f"code of your own, or of a library, ends the program ({named(error)}): mend it") from error
    except Exception as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        told = explain(error)
        if told is None:
            raise
        raise UserError(told) from error


def _leave_reason(name: str, error: UserError) -> None:
    if "MLFLOW_RUN_ID" in os.environ:
        from audio_mu.store.runs import tell_refusal

        tell_refusal(name, error)


def _print_last(errors: Sequence[str], answer: Sequence[str]) -> None:
    for line in errors:
        complain(line)
    for line in answer:
        say(line)


def _check(entry: EntryPoint, config: Config, on_workers: bool) -> None:
    if entry.computes:
        from audio_mu.workflows.checks import check

        check(config, on_workers)
    else:
        from audio_mu.data.datasets import check_folder

        check_folder(config.data)


def _engine(config: Config) -> Engine:
    from audio_mu.compute.engine import open_engine

    return open_engine(config.machine)


def _end_on_signals() -> None:
    """Have SIGTERM and Ctrl-C interrupt the work, once: `mlflow run` passes on what the terminal has sent already.

    Python throws away what is raised while an object is destroyed, and libraries catch what they should not: an
    interrupt that nothing is ending by comes again every second.
    """
    interrupted_at = -math.inf

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted_at
        if time.monotonic() - interrupted_at > SECONDS_TO_END:
            interrupted_at = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_AGAIN, SECONDS_UNTIL_AGAIN)
            raise KeyboardInterrupt

    def again(_signal: int, _frame: FrameType | None) -> None:
        if not any(isinstance(cause, KeyboardInterrupt) for cause in causes(sys.exc_info()[1])):
            raise KeyboardInterrupt

    def lost(thrown: Any) -> None:
        if not issubclass(thrown.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(thrown)

    sys.unraisablehook = lost
    signal.signal(signal.SIGALRM, again)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is for background commands of a script
        signal.signal(signal.SIGINT, interrupt)
    if "MLFLOW_RUN_ID" in os.environ:  # nothing else would end the work, and the same command may run again
        when_orphaned(os.getppid(), lambda: os.kill(os.getpid(), signal.SIGTERM))
