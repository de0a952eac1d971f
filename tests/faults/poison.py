"""A store that somebody damaged or wrote into, and the command that comes next.

    python -m tests.faults.poison --cases 300          # writes results/poison.csv

A case is a small store with an answered request, of which one artifact (csv, npz, json, yaml, pt2, html, …) was mutated
as fuzz.py does, or one value of the database replaced by a hostile one, and one command on it. It passes when the
command ends, or refuses in one line; when it prints no control character; when what is in service and in the ledger is
as before, or one request more; when nobody who was answered was trained on; and when no file outside of the project has
changed. Each case is repeatable from its number and the seed.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from audio_mu.errors import UserError
from tests.answered import Answered, p1_answered
from tests.commands import ROOT
from tests.faults.damage import LONGEST_LINE, Kind, mutated

RESULTS = ROOT / "results" / "poison.csv"
OUTSIDE = "outside.txt"
WORDS = (
    b",", b'"', b"\n", b"\0", b"nan", b"inf", b"-1", b"1e999", b"null", b"[]", b"{}", b"p2_0", b"high/p1_0.wav",
    b"../../outside.txt", b"<script>alert(1)</script>", b"\x1b[2J", "\u202e".encode(), b"\xff",
    b"!!python/name:os.system ",
    b"0" * 64, b"clip_id", b"audio_hash", b"member",
)  # fmt: skip
HOSTILE = (
    "", "None", "nan", "-1", "9" * 400, "../../outside.txt", "\x1b[2J\u202eevil", "<script>alert(1)</script>",
    '{"seed-40": "999"}', "{", "[]", "naive", "0" * 64, "a,b\nc", "speaker-p2",
)  # fmt: skip
COLUMNS = (
    ("tags", "value"), ("params", "value"), ("metrics", "value"), ("latest_metrics", "value"), ("runs", "name"),
    ("runs", "status"), ("runs", "artifact_uri"), ("model_versions", "source"), ("model_versions", "run_id"),
    ("model_version_tags", "value"), ("registered_model_aliases", "version"), ("logged_models", "artifact_location"),
    ("logged_model_tags", "tag_value"), ("inputs", "destination_id"), ("datasets", "dataset_source"),
)  # fmt: skip
REQUEST = {"methods": "naive", "register": "naive"}
COMMANDS = {
    "compare": ("compare", {}),
    "report": ("report", {"forget": "speaker", "forget_speakers": "p1"}),
    "the next person": ("unlearn", {"forget": "speaker", "forget_speakers": "p2", **REQUEST}),
    "the person again": ("unlearn", {"forget": "speaker", "forget_speakers": "p1", **REQUEST}),
    "train": ("train", {}),
    "attack": ("attack", {}),
    "erase": ("erase", {"confirm": "true"}),
}


def poison(place: Answered, chance: random.Random) -> str:
    """Damage one thing of a store; returns what."""
    if chance.random() < 0.6:
        tops = (place.folder / "mlruns", place.folder / "cache")
        by_kind: dict[str, list[Path]] = {}
        for path in sorted(path for top in tops for path in top.rglob("*") if path.is_file()):
            by_kind.setdefault(path.name if path.suffix in (".csv", ".json", ".yaml") else path.suffix, []).append(path)
        kind = chance.choice(sorted(by_kind))
        path = chance.choice(by_kind[kind])
        data = path.read_bytes()
        path.write_bytes(mutated(Kind(lambda: (data,), WORDS, lambda *_: None), chance))
        return f"{kind} of {path.parent.name}"
    table, column = chance.choice(COLUMNS)
    rows = [row for (row,) in place.query(f"select rowid from {table} order by rowid")]
    value = chance.choice(HOSTILE)
    for row in chance.sample(rows, min(len(rows), chance.choice((1, 1, 3)))):
        try:
            place.query(f"update {table} set {column} = ? where rowid = ?", value, row)
        except Exception as error:  # a constraint of the database's own
            return f"{table}.{column} refused by the database ({error})"
    return f"{table}.{column} = {value[:20]!r}"


def wrong(place: Answered, backup: Path, name: str, chance: random.Random) -> tuple[str, str, str]:
    """Restore, damage, run a command: what was damaged, how it ended, and what is wrong (empty: nothing)."""
    place.restore(backup)
    outside = place.folder.parent / OUTSIDE
    outside.write_text("not ours")
    entries, runs = len(place.finished_entries()), set(place.runs())
    what = poison(place, chance)
    aliases = place.aliases()  # as poisoned
    stage, parameters = COMMANDS[name]
    if stage == "erase":
        parameters = {**parameters, "request": place.hash("p1") if place.entries() else ""}
    try:
        output, end = place.run(stage, **parameters), "ended"
    except UserError as error:
        output, end = str(error), "refused"
        if len(output.splitlines()) != 1 or len(output) > LONGEST_LINE:
            return what, "refused", f"no line: {output[:300]!r}"
    except BaseException as error:
        at = traceback.extract_tb(error.__traceback__)
        own = next((f"{Path(f.filename).name}:{f.lineno}" for f in reversed(at) if "audio_mu" in f.filename), "")
        return what, "crashed", f"{type(error).__name__} at {own}: {str(error)[:200]}"
    return what, end, "; ".join(_states(place, outside, output, end, (aliases, entries, runs)))


def _states(place: Answered, outside: Path, output: str, end: str, before: tuple) -> Iterator[str]:
    aliases, entries, runs = before
    if any(not letter.isprintable() and letter not in "\n\t" for letter in output):
        yield "control characters were printed"
    if outside.read_text() != "not ours":
        yield "a file outside of the project has changed"
    more = len(place.finished_entries()) - entries
    if end == "refused" and place.aliases() != aliases:
        yield "refused, and another model is in service"
    if more not in (0, 1) and "killed" not in output:
        yield f"{more} more entries in the ledger"
    for run in set(place.runs()) - runs:
        if back := sorted(id_ for id_ in place.trained(run) if "/p1_" in id_):
            yield f"{back[:2]} were trained on again"


def main() -> None:
    """Run the cases, write the table, print what is wrong; exit 1 where something is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, p1_answered(Path(folder) / "project") as place:
        place.save(Path(folder) / "backup")
        for i in range(given.first, given.first + given.cases):
            chance = random.Random(f"{given.seed} {i}")
            name = chance.choice(sorted(COMMANDS))
            began = time.monotonic()
            what, end, fault = wrong(place, Path(folder) / "backup", name, chance)
            rows.append([i, name, what, "wrong" if fault and end != "crashed" else end, fault])
            if fault:
                print(*rows[-1], sep=" | ", flush=True)
            if time.monotonic() - began > 60:
                print(i, name, what, f"took {time.monotonic() - began:.0f} s", sep=" | ", flush=True)
        os.chdir(ROOT)
    if (given.first, given.seed) == (0, 0):
        with RESULTS.open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([["case", "command", "damage", "end", "fault"], *rows])
    counts = {end: sum(row[3] == end for row in rows) for end in ("ended", "refused", "crashed", "wrong")}
    print(f"{len(rows)} cases: {counts}")
    sys.exit(1 if counts["crashed"] + counts["wrong"] else 0)


if __name__ == "__main__":
    main()
