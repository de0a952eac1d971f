"""Kill the whole chain again and again, run the same command each time, and compare its end with an undisturbed one.

    python -m tests.faults.kill --kills 50                 until results/kills.csv holds 50 kills; resumable
    python -m tests.faults.kill --kills 5 --csv /tmp/k.csv --folder /tmp/kills

Each trial has a fresh tracking store and cache. The chain forgets a person and puts the answer into service. Several
kills follow one another, each of the whole process group (SIGKILL, sometimes SIGTERM or SIGINT), at a random moment or
as soon as the store shows that a step was begun, finished or registered; after each the same command is started again.
In other trials a single worker is killed, which the command has to survive. Then all figures but times must equal those
of the undisturbed run, no step may have been finished twice, no run be RUNNING, no temporary file and no process be
left. After it the request is erased, under kills of its own: nothing of the person may be left. Every third trial goes
through `mlflow run`; there the store is created first, as MLflow itself cannot open a store again whose creation was
killed. Every fourth has Ray's workers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from audio_mu.system.hashing import file_sha256, hash_of
from tests.answered import FLAT, tones
from tests.commands import ROOT
from tests.faults.looking import still_named
from tests.faults.small_chain import (
    ANSWER,
    ENTRY,
    PROJECT,
    Place,
    outcome,
    repeated,
    running,
    strays,
)

CSV = ROOT / "results" / "kills.csv"
SIGNALS = ["SIGKILL"] * 6 + ["SIGTERM", "SIGINT"]
KILLS_OF_A_TRIAL = (3, 7)
KILLS_OF_AN_ERASURE = 2
SHARE_OF_ONE_WORKER = 0.4  # of the trials
SECONDS_OF_AN_ERASURE = 8.0
STEPS_AHEAD = 8  # the largest number of changes in the store that a kill waits for
SECONDS_TO_END = 60.0  # generous: how long it took is in the table
STATE = (
    "select (select count(*) from runs), (select count(*) from runs where status != 'RUNNING'), "
    "(select count(*) from logged_models), (select count(*) from model_versions), "
    "(select count(*) from registered_model_aliases)"
)


@dataclass(frozen=True)
class Kill:
    """One kill: `moment` in seconds after the start, `step` the last line that the command had printed.

    `kind`: random or step, when the command was killed; worker, where one of its workers was.
    """

    trial: int
    kill: int
    via: str
    engine: str
    stage: str
    kind: str
    signal: str
    moment: float
    step: str
    runs_ended: int
    seconds_to_end: float
    problem: str


def main(arguments: list[str]) -> int:
    """Make trials until the CSV file holds enough kills; return 0 if all were survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "audio-mu-kill-test")
    given = parser.parse_args(arguments)
    # Children of a script's background command ignore Ctrl-C, as they should: this one must not be taken for such.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    recordings = tones(given.folder / "recordings")
    (given.folder / "own.py").write_text(FLAT)
    settings = ANSWER | {"architecture": f"{given.folder}/own.py:Flat"}
    expected, seconds = reference(Place(given.folder / "reference", recordings, settings))
    done = read(given.csv)
    trial = int(done["trial"].max()) + 1 if len(done) else 0
    while len(done) < given.kills:
        own = settings | {"engine": "ray"} if trial % 4 == 3 else settings
        place = Place(given.folder / f"trial-{trial}", recordings, own)
        kills = make_trial(place, trial, expected, seconds)
        done = pd.concat([done, pd.DataFrame([asdict(kill) for kill in kills])], ignore_index=True)
        done.to_csv(given.csv, index=False)
        trial += 1  # one that ended before its first kill does not come again
    print(summary(done, seconds))
    return int((done["problem"] != "").any())


def read(csv: Path) -> pd.DataFrame:
    """The kills so far."""
    return pd.read_csv(csv, keep_default_na=False) if csv.exists() else pd.DataFrame(columns=list(Kill.__annotations__))


def reference(place: Place) -> tuple[dict[str, Any], float]:
    """Outcome and seconds of the undisturbed chain, kept in the folder."""
    source = [file_sha256(path) for path in sorted((ROOT / "audio_mu").rglob("*.py"))]
    kept = place.folder.parent / f"reference-{hash_of([ANSWER, source])[:8]}.json"
    if not kept.exists():
        shutil.rmtree(place.folder, ignore_errors=True)
        place.make()
        start = time.monotonic()
        place.finish(ENTRY)
        kept.write_text(json.dumps({"outcome": outcome(place), "seconds": time.monotonic() - start}))
    content = json.loads(kept.read_text())
    return content["outcome"], content["seconds"]


def make_trial(place: Place, trial: int, expected: dict[str, Any], seconds: float) -> list[Kill]:
    """Several kills in one store, then the same command to its end and the comparison; removes what went well."""
    draw = random.Random(trial)
    via = PROJECT if trial % 3 == 2 else ENTRY
    shutil.rmtree(place.folder, ignore_errors=True)
    place.make()
    if via == PROJECT:
        place.create_store()
    kills: list[Kill] = []
    try:
        one_worker = draw.random() < SHARE_OF_ONE_WORKER
        for stage, n, longest in (
            ("main", 1 if one_worker else draw.randint(*KILLS_OF_A_TRIAL), seconds),
            ("erase", KILLS_OF_AN_ERASURE, SECONDS_OF_AN_ERASURE),
        ):
            for number in range(n):
                kinds = ["worker"] if one_worker and stage == "main" else ["random", "step"]
                kind, name = draw.choice(kinds), draw.choice(SIGNALS)
                ahead = STEPS_AHEAD if stage == "main" else 2
                after = draw.randint(1, ahead) if kind == "step" else draw.uniform(0, longest)
                kill = kill_once(place, trial, number, via, kind, name, after, stage)
                if kill is None:  # it had ended before
                    break
                kills.append(kill)
                told = f"{kill.via}, {kill.engine}, {kill.stage}, {kill.kind}, {kill.signal} at {kill.moment:.1f} s"
                print(f"{told}: {kill.step} {kill.problem}", flush=True)
            place.finish(via, stage)
            if stage == "main":
                problem = "; ".join(problems(place, expected))
        problem = "; ".join(filter(None, [problem, *left_of_the_person(place)]))
    except RuntimeError as error:
        problem = str(error)
    print(f"trial {trial}: {len(kills)} kills, {problem or 'the same figures'}", flush=True)
    if problem:
        kills = [Kill(**asdict(kill) | {"problem": kill.problem or problem}) for kill in kills]
    elif not any(kill.problem for kill in kills):
        shutil.rmtree(place.folder)
    return kills


def kill_once(
    place: Place, trial: int, number: int, via: str, kind: str, name: str, after: float, stage: str = "main"
) -> Kill | None:
    """Start the command and kill it with the signal of this name; None where it ended before.

    `after`: seconds from the start, or with the kind `step` changes of the store. With the kind `worker` the signal is
    SIGKILL, goes to one worker as soon as there is one, and the command goes on to its end.
    """
    log = place.folder / f"output-{stage}-{number}.txt"
    start = time.monotonic()
    orphans = running(place) if place.query(STATE) else set()  # of kills before, ended once the command is connected
    process = place.start(via, log, stage)
    if kind == "step":
        state = place.query(STATE)
        while process.poll() is None and after:
            time.sleep(0.02)
            if (now := place.query(STATE)) != state:
                state, after = now, after - 1
    else:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
    while kind == "worker" and process.poll() is None and not (victims := workers_of(place)):
        time.sleep(0.02)
    if process.poll() is not None:
        return None
    struck = time.monotonic()
    problem = ""
    if kind == "worker":
        name = "SIGKILL"
        with contextlib.suppress(ProcessLookupError):
            os.kill(victims[number % len(victims)], signal.SIGKILL)
        problem = "" if process.wait() == 0 else f"exit code {process.returncode} after the death of a worker"
    else:
        os.killpg(process.pid, getattr(signal, name))
    if not ended(process):
        problem = f"processes are left {SECONDS_TO_END:.0f} s after {name}"
    took = time.monotonic() - struck
    # Under `mlflow run` a signal may come before our own code does, to which a run is nobody's then.
    if name != "SIGKILL" and via == ENTRY and place.query(STATE) and running(place) - orphans:
        problem = f"a run is RUNNING after {name}"
    ended_runs = place.query("select count(*) from runs where status != 'RUNNING'")
    lines = log.read_text(errors="replace").strip().splitlines()
    step = lines[-1].replace(sys.executable, "python")[:70] if lines else ""
    n_ended = ended_runs[0][0] if ended_runs else 0
    engine = place.settings.get("engine", "local")
    moment = round(struck - start, 2)
    return Kill(trial, number, via, engine, stage, kind, name, moment, step, n_ended, round(took, 2), problem)


def workers_of(place: Place) -> list[int]:
    """The processes that have a job of the chain in this folder, by its cache in their environment."""
    mark, found = f"AUDIO_MU_CACHE={place.folder / 'cache'}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes()
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            forked = b"forkserver" in words and b"forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()
            if (forked or words.startswith(b"ray::")) and mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return sorted(found)


def left_of_the_person(place: Place) -> Iterator[str]:
    """What store and cache still say of the erased person: names of recordings, but for the ledger's list."""
    ids = [f"{path.parent.name}/{path.name}".encode() for path in place.digits.rglob("p1_*.wav")]
    assert ids, "the person has no recordings"
    lists = [*(place.folder / "mlruns").rglob("recordings.csv")]
    yield from still_named(place.folder, place.database, ids, lists)


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for all processes of the group; kill them if they take too long."""
    deadline = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline:
        process.poll()
        if not any(of_group(process.pid)):
            process.wait()
            return True
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return False


def of_group(group: int) -> Iterator[int]:
    """The live processes of a group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(pgrp) == group and state not in "ZX":
            yield int(stat.parent.name)


def problems(place: Place, expected: dict[str, Any]) -> Iterator[str]:
    """What is not as after an undisturbed run."""
    found = outcome(place)
    if found != expected:
        of, to = found["runs"], expected["runs"]
        differing = [kind for kind in of.keys() | to if of.get(kind) != to.get(kind)]
        yield f"other figures: {sorted(differing) or 'aliases or entries'}"
    if twice := repeated(place):
        yield f"finished twice: {twice}"
    if n := len(running(place)):
        yield f"{n} runs are RUNNING"
    if left := strays(place):
        yield f"left behind: {left}"


def summary(kills: pd.DataFrame, seconds: float) -> str:
    """The kills in words."""
    survived = kills[kills["problem"] == ""]
    signals = ", ".join(f"{n} {name}" for name, n in kills["signal"].value_counts().items())
    n_random, n_project = (kills["kind"] == "random").sum(), (kills["via"] == PROJECT).sum()
    n_workers, n_erase = (kills["kind"] == "worker").sum(), (kills["stage"] == "erase").sum()
    n_ray = (kills["engine"] == "ray").sum()
    gentle = kills[kills["signal"] != "SIGKILL"]["seconds_to_end"]
    ending = f"; SIGTERM and SIGINT ended it within {gentle.max():.1f} s" if len(gentle) else ""
    return (
        f"{len(survived)} of {len(kills)} kills survived in {kills['trial'].nunique()} stores: {signals}; {n_random} "
        f"at a random moment, {len(kills) - n_random - n_workers} at a step's boundary, {n_workers} of one worker; "
        f"{n_erase} of an erasure; {n_project} of `mlflow run`, {n_ray} with Ray{ending}; "
        f"undisturbed {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
