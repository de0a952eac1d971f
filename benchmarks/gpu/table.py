"""The table results/gpu.csv, the settings that all processes of the benchmark share, and its clock."""

from __future__ import annotations

import csv
import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

COLUMNS = ("part", "network", "method", "what", "value", "unit", "device", "note")
FAILED, SKIPPED, HELD = "failed", "skipped", "held"
ENDED = "end"
"""What a process writes to its progress when all its parts are done."""

POISONED, NO_DEVICE = 3, 4
"""Exit codes of a process whose GPU answers no more, and of one that finds none."""


@dataclass(frozen=True)
class Settings:
    """What the command was asked for. `deadline`: seconds since the epoch. `folder`: for files that processes share."""

    out: Path
    folder: Path
    clips: int
    quick: bool
    device: str
    minutes: float
    deadline: float

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device != "cpu"

    def as_text(self) -> str:
        """The settings for another process's command line."""
        return json.dumps({name: str(v) if isinstance(v, Path) else v for name, v in asdict(self).items()})

    @staticmethod
    def from_text(text: str) -> Settings:
        """Settings that `as_text` wrote."""
        values = json.loads(text)
        return Settings(**values | {name: Path(values[name]) for name in ("out", "folder")})


class Clock:
    """The seconds that a part may still take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.time() + seconds

    @property
    def left(self) -> float:
        """Seconds until the part should be at its end."""
        return self._end - time.time()


class Table:
    """Rows of the table, each written and printed as soon as it is known."""

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.device = path, device

    def start(self) -> None:
        """An empty table."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as stream:
            csv.writer(stream).writerow(COLUMNS)

    def add(
        self, part: str, what: str, value: float | str, unit: str = "", *,
        network: str = "", method: str = "", note: str = "", device: str | None = None,
    ) -> None:  # fmt: skip
        """One row. `device`: where the figure was measured, if not where this process computes."""
        shown = f"{value:.6g}" if isinstance(value, float | int) else value
        row = (part, network, method, what, shown, unit, self.device if device is None else device, note)
        with self.path.open("a", newline="") as stream:
            csv.writer(stream).writerow(row)
        print(" | ".join(word for word in row if word and word != self.device), flush=True)

    def check(
        self, part: str, what: str, is_held: bool, *, network: str = "", method: str = "", note: str = ""
    ) -> None:
        """A row that says whether a promise holds: 1 or 0."""
        self.add(part, what, float(is_held), HELD, network=network, method=method, note=note)

    @contextmanager
    def attempt(self, part: str, what: str, *, network: str = "", method: str = "") -> Iterator[None]:
        """A failure of the block becomes a row, and the rest goes on, unless the GPU answers no more."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self.add(part, what, FAILED, network=network, method=method, note=f"{words} ({place})")
            traceback.print_exc()
            if self.device != "cpu" and _poisoned():
                sys.exit(POISONED)

    def rows(self) -> list[dict[str, str]]:
        """All rows so far."""
        with self.path.open(newline="") as stream:
            return list(csv.DictReader(stream))


def _poisoned() -> bool:
    """Whether the GPU refuses all further work of this process, as it does after a faulty kernel."""
    import torch

    try:
        torch.cuda.empty_cache()
        torch.ones(1, device="cuda").item()
        torch.cuda.synchronize()
    except Exception:
        return True
    return False


def summary(rows: list[dict[str, str]]) -> str:
    """The table for people: part by part, a method a line, then what failed, was left out and does not hold."""
    lines: list[str] = []
    last: tuple[str, ...] = ()
    for row in rows:
        if row["value"] in (FAILED, SKIPPED) or row["unit"] == HELD:
            continue
        owner = (row["part"], row["network"], row["method"])
        if owner[0] != (last or ("",))[0]:
            lines += ["", f"== {row['part']}"]
        note = f" ({row['note']})" if row["note"] else ""
        words = f"{row['what']}: {_short(row['value'])} {row['unit']}".rstrip() + note
        if row["method"] and owner == last:
            lines[-1] += f", {words}"
        else:
            lines.append(f"{' '.join(filter(None, owner[1:]))}{'  ' if any(owner[1:]) else ''}{words}")
        last = owner
    checks = [row for row in rows if row["unit"] == HELD]
    broken = [row for row in checks if float(row["value"]) != 1]
    lines += ["", f"== {len(checks) - len(broken)} of {len(checks)} promises hold"]
    for title, chosen in (
        ("does not hold", broken),
        ("failed", [row for row in rows if row["value"] == FAILED]),
        ("left out", [row for row in rows if row["value"] == SKIPPED]),
    ):
        lines += [f"{title}: {' '.join(row[c] for c in COLUMNS[:4] if row[c])}  ({row['note']})" for row in chosen]
    return "\n".join(lines)


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value
