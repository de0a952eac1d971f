"""What every figure is drawn on: its style and margins, its colours, and how it becomes a file or a part of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from audio_mu.names import NAIVE, ORIGINAL

INK = "#1b1b1b"
COLOURS = {NAIVE: INK, ORIGINAL: "#a8703a"}
"""Colours of the two yardsticks."""
SETS = {"forget": "#b5432f", "remain": "#2f5f8f", "test": "#7d8a97"}
AXIS, GRID = "#5b5b60", "#dcdad5"
GOOD, BAD, WARN = "#2d6f4e", "#a63a28", "#86590c"
VARIABLES = {
    INK: "ink", COLOURS[ORIGINAL]: "original", SETS["forget"]: "forget", SETS["remain"]: "remain", SETS["test"]: "test",
    AXIS: "muted", GRID: "rule", GOOD: "good", BAD: "bad", WARN: "warn",
}  # fmt: skip
"""Colour → name of the style variable that the report puts in its place, so that figures follow light and dark."""

LETTER = 5.0 / 72  # inches that a letter of a method's name takes, about

STYLE: dict[Any, Any] = {
    "axes.edgecolor": AXIS, "axes.labelcolor": AXIS, "xtick.color": AXIS, "ytick.color": AXIS, "text.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.titlesize": 9,
    "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "font.size": 9, "grid.color": GRID,
    "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 8.5, "svg.fonttype": "none",
    "axes.titley": 1.0,  # where it is anyway: looking for a free place takes a fifth of a figure's drawing
    # Names of classes and speakers come from the user's folders: a $ in one is no formula.
    "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """How a method is drawn: colour and shape, so that neither says something alone."""

    colour: str = SETS["forget"]
    shape: str = "o"


YARDSTICKS = {NAIVE: Mark(INK, "D"), ORIGINAL: Mark(COLOURS[ORIGINAL], "s")}
Marks = Mapping[str, Mark]
"""Method → its mark; what is not in it has that of the yardsticks, or the plain one."""


def mark_of(method: str, marks: Marks) -> Mark:
    """How a method is drawn."""
    return marks.get(method) or YARDSTICKS.get(method) or Mark()


def subplots(
    size: tuple[float, float], rows: int = 1, columns: int = 1, *, names: Sequence[str] = (), top: float = 0.14,
    between: tuple[float, float] = (0.0, 0.0), **options: Any,
) -> tuple[Figure, Any]:  # fmt: skip
    """A figure of its own and its axes. Not through pyplot, whose backend is the business of whoever imports us.

    names: what is written aslant below the ticks; top: inches above the axes; between: inches between columns and rows.
    The margins are set here: matplotlib's own layout draws every figure twice, and drawing is most of a report's time.
    """
    below = 0.5 + 0.5 * LETTER * max(map(len, names), default=0)
    # Of a name that long, what does not fit between the left edge and its tick.
    left = max([0.72, *(0.87 * LETTER * len(name) - 0.8 * i + 0.1 for i, name in enumerate(names))])
    figure = Figure(figsize=size)
    width, height = size
    wide = (width - left - 0.14 - (columns - 1) * between[0]) / columns
    high = (height - below - top - (rows - 1) * between[1]) / rows
    figure.subplots_adjust(left / width, below / height, 1 - 0.14 / width, 1 - top / height, between[0] / wide,
                           between[1] / high)  # fmt: skip
    return figure, figure.subplots(rows, columns, **options)


def as_file(figure: Figure, kind: str) -> bytes:
    """The figure as the bytes of a png, pdf or svg file, the same ones each time; text in vector files is text."""
    buffer = io.BytesIO()
    without_time: dict[str, Any] = {} if kind == "png" else {"CreationDate" if kind == "pdf" else "Date": None}
    with rc_context({**STYLE, "pdf.fonttype": 42, "svg.hashsalt": kind}):
        figure.savefig(buffer, format=kind, dpi=110, metadata=without_time)
    return buffer.getvalue()


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element in the page's fonts and colours.

    `name` keeps the ids of several figures on one page apart.
    """
    buffer = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # a style here would hold for the page
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)  # keep those of markers and clip paths, drop the rest
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
