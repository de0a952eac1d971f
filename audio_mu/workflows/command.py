"""What every entry point does around its workflow: read parameters, refuse wrong ones in one line, end cleanly."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING

from audio_mu.config import LONGEST_SHOWN, Config, defaults, help_text
from audio_mu.errors import UserError
from audio_mu.processes import look_seldom_for_garbage

if TYPE_CHECKING:
    from audio_mu.store.runs import Store
    from audio_mu.workflows.engine import Engine

Work = Callable[[Config, "Store", "Engine | None"], object]
USER_ERROR, INTERRUPTED = 2, 130
SECONDS_TO_END = 5.0  # after which a second signal interrupts the ending too


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """Name → value from `--name value` or `--name=value`, with underscores or hyphens.

    Raises `UserError` for what is no parameter, lacks its value or comes twice.
    """
    values: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word[:LONGEST_SHOWN]!r} is not a parameter: give --name value (see --help)")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in defaults():
            Config.from_text({name: value if equals else (rest[0] if rest else "")})  # refuses, with a suggestion
        if not equals:
            if not rest:
                raise UserError(f"--{name} lacks its value: give --{name} value")
            value = rest.pop(0)
        if name in values:
            both = f"{values[name][:LONGEST_SHOWN]!r} and {value[:LONGEST_SHOWN]!r}"
            raise UserError(f"--{name} is given twice, as {both}: give it once")
        values[name] = value
    return values


def command(about: str, work: Work, arguments: Sequence[str] | None = None, *, computes: bool = True) -> int:
    """Run a workflow as a command; return its exit code. An interrupted one ends the process with 130.

    One that computes no model (`computes` false) gets no engine, and need not wait for torch: what models and methods
    would have to be like is not checked.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in given or "-h" in given:
        print(f"{about}\n\nParameters (name, default, meaning):\n{help_text()}")
        return 0
    _end_on_signals()
    look_seldom_for_garbage()
    try:
        config = Config.from_text(parse(given))
        _run(config, work, computes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted: finished steps are kept; the same command goes on from there", file=sys.stderr)
        sys.stdout.flush()
        os._exit(INTERRUPTED)  # at once: libraries take many seconds to leave while they compile or export
    return 0


def _run(config: Config, work: Work, computes: bool) -> None:
    # Imported here: a wrong parameter and --help are answered without waiting for torch and MLflow.
    from audio_mu.files import own_temporary_folder
    from audio_mu.store.faults import explain
    from audio_mu.store.links import where_to_look
    from audio_mu.store.runs import Store

    if computes:
        from audio_mu.workflows.checks import check
    else:
        from audio_mu.data.datasets import check_folder as check

    check(config)
    try:
        store = Store.connect()
        try:
            with own_temporary_folder(), _engine(config) if computes else nullcontext() as engine:
                work(config, store, engine)
        except BaseException as error:
            store.end_own_runs(error)
            raise
        print(where_to_look(store), flush=True)
    except UserError:
        raise
    except Exception as error:
        told = explain(error)
        if told is None:
            raise
        raise UserError(told) from error


def _engine(config: Config) -> Engine:
    from audio_mu.workflows.engine import open_engine

    return open_engine(config)


def _end_on_signals() -> None:
    """Have SIGTERM and Ctrl-C interrupt the work, once: `mlflow run` passes on what the terminal has sent already."""
    interrupted_at = -math.inf

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted_at
        if time.monotonic() - interrupted_at > SECONDS_TO_END:
            interrupted_at = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is for background commands of a script
        signal.signal(signal.SIGINT, interrupt)
    if "MLFLOW_RUN_ID" in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Interrupt the work when `mlflow run` is gone: nothing else would, and the same command may run again."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
