"""Two commands at once on one store, in all pairs: each ends or is refused in one line, and no promise breaks.

    python -m tests.faults.pairs          # writes results/pairs.csv

The store is a small one in which p1 is answered. The commands make base models anew, make attack models anew, answer
p2, answer p3, compare, and erase p1. After each pair: no traceback, the exit code 0 or 2; nobody who is answered in the
lists behind the version in service; as many entries in the ledger as commands that answered; nothing of p1 in files or
database where p1 was erased (once more, where the erasure told of a run without an end); no run RUNNING; and the next
`compare` works.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path

from audio_mu.errors import UserError
from tests.answered import Answered, p1_answered
from tests.commands import ROOT, entry_point, own_environment
from tests.faults.looking import still_named

RESULTS = ROOT / "results" / "pairs.csv"
ANSWER = {"forget": "speaker", "methods": "naive", "register": "naive", "save_models": "naive"}
COMMANDS = {
    "train": ("train", {"force": "true"}),
    "attack": ("attack", {"force": "true"}),
    "answer p2": ("unlearn", {**ANSWER, "forget_speakers": "p2"}),
    "answer p3": ("unlearn", {**ANSWER, "forget_speakers": "p3"}),
    "compare": ("compare", {}),
    "erase p1": ("erase", {"confirm": "true"}),
}
SECONDS = 600


def both(place: Answered, names: tuple[str, str]) -> list[tuple[int, str]]:
    """Exit code and output of two commands that were started at once."""
    environment = own_environment(place.folder / "cache", MLFLOW_TRACKING_URI=f"sqlite:///{place.database}")
    processes = []
    for name in names:
        stage, own = COMMANDS[name]
        parameters = {"request": place.hash("p1"), **own} if stage == "erase" else {**place.parameters, **own}
        words = entry_point(stage, parameters)
        processes.append(
            subprocess.Popen(words, cwd=place.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    outputs = [process.communicate(timeout=SECONDS)[0].decode() for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs)]


def faults(place: Answered, names: tuple[str, str], ended: list[tuple[int, str]]) -> Iterator[str]:
    """What is wrong after a pair of commands."""
    for name, (code, output) in zip(names, ended):
        lines = [line for line in output.splitlines() if line.startswith("error:")]
        if "Traceback" in output or code not in (0, 2) or len(lines) != (code == 2):
            yield f"{name}: exit code {code}, {output[-300:]!r}"
    done = [name for name, (code, _) in zip(names, ended) if code == 0]
    answered = {"p1", *(name.split()[1] for name in done if name.startswith("answer"))}
    if len(place.finished_entries()) != len(answered):
        yield f"{len(place.finished_entries())} entries in the ledger, {len(answered)} requests answered"
    for name, alias, version in place.aliases():
        ((run,),) = place.query("select run_id from model_versions where name = ? and version = ?", name, str(version))
        back = {id_ for id_ in place.trained(run) if _person(id_) in answered}
        if alias.startswith("unlearned") and back:
            yield f"{alias} was trained on {len(back)} recordings of answered people"
    if "erase p1" in done:
        if any("without an end" in output for _, output in ended):  # the other wrote while this erased: it is told
            place.run("erase", request=place.hash("p1"), confirm="true")
        yield from _left(place)
    if running := place.query("select name from runs where status = 'RUNNING'"):
        yield f"runs without an end: {running}"
    try:
        place.run("compare")
    except UserError as error:
        if "no finished unlearning" not in str(error):
            yield f"compare afterwards: {error}"


def _person(id_: str) -> str:
    return id_.split("/")[1].split("_", maxsplit=1)[0]


def _left(place: Answered) -> Iterator[str]:
    needles = [id_.encode() for id_ in place.ids("p1")]
    own = [place.place(run) / "recordings.csv" for run in place.entries()]
    yield from still_named(place.folder, place.database, needles, own)


def main() -> int:
    """Run all pairs, write the table, return 1 where something is wrong."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, p1_answered(Path(folder) / "project") as place:
        backup = Path(folder) / "backup"
        place.run("attack")
        place.save(backup)
        for names in combinations_with_replacement(COMMANDS, 2):
            place.restore(backup)
            began = time.monotonic()
            ended = both(place, names)
            seconds = time.monotonic() - began
            told = [output.splitlines()[-1] if code else "" for code, output in ended]
            wrong = "; ".join(faults(place, names, ended))
            rows.append([*names, *(code for code, _ in ended), *told, f"{seconds:.0f}", wrong])
            print(*rows[-1], sep=" | ", flush=True)
    with RESULTS.open("w", newline="") as stream:
        header = ["one", "other", "exit_code_one", "exit_code_other", "told_one", "told_other", "seconds", "wrong"]
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    n_wrong = sum(bool(row[-1]) for row in rows)
    print(f"{len(rows)} pairs, {n_wrong} wrong")
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
