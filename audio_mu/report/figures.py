"""The figures of a comparison: as files for the tracking store, as SVG in the page's own colours for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from audio_mu.audit.statistics import FriedmanResult
from audio_mu.cosine_curve import CUTS, RATES
from audio_mu.names import NAIVE
from audio_mu.report.canvas import AXIS, COLOURS, GRID, INK, SETS, STYLE, YARDSTICKS, Marks, mark_of, subplots

MIN_WIDTH = 4.0  # inches; a narrower figure has no room for its own legend
LOSS_FLOOR, LOSS_CEILING = 1e-6, 1e2
LABEL_PLACES = [(7, 0), (-7, 0)] + [
    (dx, sign * dy) for dy in range(10, 130, 10) for sign in (1, -1) for dx in (12, -12)
]
"""Where a point's name may stand, in points from it, the best place first."""
POWERS = FuncFormatter(lambda value, _: f"{value:g}")  # matplotlib's own writes formulas
CUT_NAMES = {"cosine": "cosine", "orthogonal": "orthogonal", "post_optimal": "POP"}


def _values(long: pd.DataFrame, metric: str, methods: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(mean [n], distances to the interval's ends [2, n], 0 where there is no interval)."""
    rows = long[long["metric"] == metric].set_index("method").reindex(methods)
    mean = rows["mean"].to_numpy(float)
    ends = np.stack([mean - rows["ci_low"].to_numpy(float), rows["ci_high"].to_numpy(float) - mean])
    return mean, np.nan_to_num(ends, nan=0.0)


def _name_positions(axes: Axes, methods: Sequence[str]) -> None:
    axes.set_xticks(np.arange(len(methods)), methods, rotation=30, ha="right")


def accuracy_figure(long: pd.DataFrame, methods: Sequence[str], title: str) -> Figure:
    """Accuracy on the forget, remain and test sets per method, with naive's forget accuracy as the target."""
    with rc_context(STYLE):
        figure, axes = subplots((max(MIN_WIDTH, 1.6 + 0.95 * len(methods)), 4.2), names=methods, top=0.32)
        positions = np.arange(len(methods))
        for i, (name, colour) in enumerate(SETS.items()):
            mean, ends = _values(long, f"{name}/accuracy", methods)
            bar = {"elinewidth": 0.8, "ecolor": AXIS, "capsize": 2}
            axes.bar(positions + (i - 1) * 0.27, mean, 0.25, yerr=ends, label=name, color=colour, error_kw=bar)
        if NAIVE in methods:
            target = _values(long, "forget/accuracy", [NAIVE])[0][0]
            axes.axhline(target, color=INK, linewidth=1, linestyle="--", label="naive on forget (target)")
        _name_positions(axes, methods)
        axes.set(ylabel="accuracy", ylim=(0, 1), title=title)
        axes.legend(loc="lower right")
    return figure


def trade_off_figure(long: pd.DataFrame, methods: Sequence[str], marks: Marks = YARDSTICKS) -> Figure:
    """Forget against test accuracy with 95 % intervals; naive's point, with cross-hairs, is the target."""
    with rc_context(STYLE):
        figure, axes = subplots((6.4, 4.6))
        x, x_ends = _values(long, "forget/accuracy", methods)
        y, y_ends = _values(long, "test/accuracy", methods)
        for i, method in enumerate(methods):
            mark = mark_of(method, marks)
            axes.errorbar(x[i], y[i], xerr=x_ends[:, [i]], yerr=y_ends[:, [i]], color=mark.colour, fmt="none",
                          elinewidth=0.7, alpha=0.45)  # fmt: skip
            axes.plot(x[i], y[i], mark.shape, color=mark.colour, markersize=6, clip_on=False)  # whole at 1 too
        if NAIVE in methods:
            i = list(methods).index(NAIVE)
            axes.axvline(x[i], color=INK, linewidth=0.7, linestyle=":")
            axes.axhline(y[i], color=INK, linewidth=0.7, linestyle=":")
        _limit_to_points(axes, x, y)
        _label_points(axes, x, y, methods)
        axes.set(xlabel="accuracy on the forget set", ylabel="accuracy on the test set")
        axes.grid(True)
    return figure


def _limit_to_points(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Show the points; intervals of few seeds may be wider than everything else and are cut."""
    for values, limit in ((x, axes.set_xlim), (y, axes.set_ylim)):
        known = values[np.isfinite(values)]
        if len(known):
            margin = max(0.15 * float(np.ptp(known)), 0.02)
            limit(max(0.0, float(known.min()) - margin), min(1.0, float(known.max()) + 1.6 * margin))


def _label_points(axes: Axes, x: np.ndarray, y: np.ndarray, methods: Sequence[str]) -> None:
    """Write each method beside its point, where it covers neither a point nor another name; a line leads to it."""
    unit = axes.figure.dpi / 72
    at = axes.transData.transform(np.column_stack([x, y])) / unit
    known = np.isfinite(at).all(axis=1)
    taken = [(px - 3, py - 3, px + 3, py + 3) for px, py in at[known]]
    for i in np.flatnonzero(known).tolist():
        width = 4.9 * len(methods[i])
        for dx, dy in LABEL_PLACES:
            left = at[i, 0] + dx - (width if dx < 0 else 0)
            box = (left, at[i, 1] + dy - 4.5, left + width, at[i, 1] + dy + 4.5)
            if not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            methods[i], (x[i], y[i]), (dx, dy), textcoords="offset points", va="center", fontsize=8.5,
            ha="right" if dx < 0 else "left", fontweight="bold" if methods[i] == NAIVE else "normal",
            arrowprops={"arrowstyle": "-", "color": AXIS, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3} if dy else None,
        )  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def mia_figure(long: pd.DataFrame, methods: Sequence[str], title: str = "", marks: Marks = YARDSTICKS) -> Figure:
    """What membership attacks see per method, with 95 % intervals; naive's value is the target."""
    panels = {"mia/score": "forget clips called non-member", "mia/auc": "AUC of the attack by the loss"}
    known = [metric for metric in panels if (long["metric"] == metric).any()]
    with rc_context(STYLE):
        size = (1.6 + 0.8 * len(methods), 0.6 + 2.5 * max(1, len(known)))
        above = 0.36 if title else 0.14
        figure, grid = subplots(
            size, max(1, len(known)), 1, names=methods, top=above, between=(0, 0.16), squeeze=False, sharex=True
        )
        for axes, metric in zip(grid[:, 0], known):
            mean, ends = _values(long, metric, methods)
            for i, method in enumerate(methods):
                mark = mark_of(method, marks)
                bar = {"color": mark.colour, "capsize": 3, "elinewidth": 1, "clip_on": False}
                axes.errorbar(i, mean[i], yerr=ends[:, [i]], fmt=mark.shape, **bar)
            if NAIVE in methods:
                target, spread = _values(long, metric, [NAIVE])
                axes.axhline(target[0], color=INK, linewidth=0.8, linestyle="--")
                axes.axhspan(target[0] - spread[0, 0], target[0] + spread[1, 0], color=INK, alpha=0.07, linewidth=0)
            low, high = np.nanmin(mean - ends[0]), np.nanmax(mean + ends[1])
            margin = max(0.05 * (high - low), 0.01)
            axes.set(ylabel=panels[metric], ylim=(max(0.0, low - margin), min(1.0, high + margin)))
            axes.grid(True, axis="y")
            _name_positions(axes, methods)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def _small_multiples(n: int, height: float = 1.9, top: float = 0.3) -> tuple[Figure, list[Axes]]:
    columns = min(4, max(1, n))
    rows = max(1, -(-n // columns))
    size = (2.6 * columns, height * rows + 0.5)
    figure, grid = subplots(size, rows, columns, top=top, between=(0.16, 0.3), sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for i, axes in enumerate(panels):
        if i >= n:
            axes.set_axis_off()
        if i + columns >= n:  # the lowest panel of its column
            axes.tick_params(labelbottom=True)
    return figure, panels[:n]


def _decades_alone(axis: Axis) -> None:
    """Ticks at powers of ten and none between: in small panels those in between take most of the drawing's time."""
    axis.set_major_formatter(POWERS)
    axis.set_minor_locator(NullLocator())


def forget_loss_figure(
    losses: Mapping[str, np.ndarray], methods: Sequence[str], title: str = "", marks: Marks = YARDSTICKS
) -> Figure:
    """Distribution of the forget set's losses (all seeds) of each method over naive's, on a log scale."""
    shown = [method for method in methods if method in losses and method != NAIVE]
    bins = np.logspace(np.log10(LOSS_FLOOR), np.log10(LOSS_CEILING), 45).tolist()
    with rc_context(STYLE):
        figure, panels = _small_multiples(len(shown), top=0.52 if title else 0.3)
        for axes, method in zip(panels, shown):
            if NAIVE in losses:
                filled = np.clip(losses[NAIVE], LOSS_FLOOR, LOSS_CEILING)
                axes.hist(filled, bins, histtype="stepfilled", color=INK, alpha=0.25, linewidth=0)
            own, colour = np.clip(losses[method], LOSS_FLOOR, LOSS_CEILING), mark_of(method, marks).colour
            axes.hist(own, bins, histtype="step", color=colour, linewidth=1.2)
            axes.set_xscale("log")
            _decades_alone(axes.xaxis)
            axes.set_title(method, loc="left")
        figure.supxlabel("cross-entropy of forget clips, log scale (filled: naive)", fontsize=9, color=AXIS)
        figure.supylabel("clips", fontsize=9, color=AXIS)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def roc(members: np.ndarray, nonmembers: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """True-positive rate [len(grid)] at false-positive rates `grid` of the attack that calls low losses members.

    At each rate the lowest threshold that calls no more than that share of the n non-members is taken.
    """
    ordered = np.sort(nonmembers)
    allowed = np.floor(np.clip(grid, 0, 1) * len(ordered) + 1e-9).astype(int)
    limits = np.concatenate([ordered, [np.inf]])[allowed]
    return (members[None, :] < limits[:, None]).mean(axis=1)


def roc_figure(
    pairs: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], methods: Sequence[str], marks: Marks = YARDSTICKS
) -> Figure:
    """ROC of the attack by the loss on log axes, mean over the seeds, each method over naive's.

    pairs: method → per seed (losses of the forget set, losses of the non-members).
    """
    shown = [method for method in methods if method in pairs and method != NAIVE]
    n = max((len(b) for seeds in pairs.values() for _, b in seeds), default=100)
    grid = np.logspace(np.log10(1 / n), 0, 120)
    with rc_context(STYLE):
        figure, panels = _small_multiples(len(shown), 2.3)
        for axes, method in zip(panels, shown):
            axes.plot(grid, grid, color=GRID, linewidth=1)
            for name in (NAIVE, method):
                if name in pairs:
                    mean = np.mean([roc(a, b, grid) for a, b in pairs[name]], axis=0)
                    # A rate of 0 has no place on a log axis: the curve begins where it is above.
                    axes.plot(grid, np.where(mean > 0, mean, np.nan), color=mark_of(name, marks).colour,
                              linewidth=1.4 if name == method else 1.0)  # fmt: skip
            axes.set(xscale="log", yscale="log", xlim=(1 / n, 1), ylim=(1 / n, 1))
            _decades_alone(axes.xaxis)
            _decades_alone(axes.yaxis)
            axes.set_title(method, loc="left")
        figure.supxlabel("false-positive rate (dark: naive)", fontsize=9, color=AXIS)
        figure.supylabel("true-positive rate", fontsize=9, color=AXIS)
    return figure


def speed_figure(long: pd.DataFrame, methods: Sequence[str], marks: Marks = YARDSTICKS) -> Figure | None:
    """Speed-up over retraining against the gap to naive (1 − ToW), or None where nothing has both."""
    timed = [method for method in methods if method not in COLOURS]
    x, y = _values(long, "time/speedup", timed)[0], 1 - _values(long, "gap/tow", timed)[0]
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None
    names = [method for method, is_known in zip(timed, known) if is_known]
    with rc_context(STYLE):
        figure, axes = subplots((6.4, 4.6))
        axes.set_xscale("log")
        x, y, names = np.append(x[known], 1.0), np.append(y[known], 0.0), [*names, NAIVE]
        for name, at, gap in zip(names, x, y):
            mark = mark_of(name, marks)
            axes.plot(at, gap, mark.shape, color=mark.colour, markersize=6)
        axes.set(
            xlabel="times as fast as retraining (log scale)", ylabel="gap to retraining, 1 − ToW",
            xlim=(0.8 * x.min(), 1.9 * x.max()), ylim=(-0.06 * y.max() - 0.005, 1.12 * y.max() + 0.005),
        )  # fmt: skip
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(True)
        _label_points(axes, x, y, names)
    return figure


def prune_figure(curves: Mapping[str, np.ndarray]) -> Figure | None:
    """Cosine similarity to the base against the prune rate, with the three cuts marked; None without curves.

    curves: seed → cosine at the 101 prune rates 0, 0.01 … 1.
    """
    if not curves:
        return None
    with rc_context(STYLE):
        figure, axes = subplots((6.4, 4.6))
        for curve in curves.values():
            axes.plot(RATES, curve, color=SETS["test"], linewidth=0.8, alpha=0.7)
        mean = np.mean(list(curves.values()), axis=0)
        axes.plot(RATES, mean, color=INK, linewidth=1.4)
        for i, (name, cut) in enumerate(CUTS.items()):
            rate = cut(mean)
            height = mean[round(rate * 100)]
            axes.plot(rate, height, "o", color=SETS["forget"], markersize=6)
            axes.annotate(f"{CUT_NAMES[name]} {rate:.2f}", (rate, height), (-12, -14 - 6 * i), ha="right",
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
        axes.set(xlabel="share of weights pruned", ylabel="cosine to the base model", xlim=(0, 1), ylim=(0, 1))
        axes.grid(True)
    return figure


def alike(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """(first, last) of each longest run of two or more ascending ranks that lie less than `critical` apart."""
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank < critical)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def ranking_figure(result: FriedmanResult, metric: str) -> Figure | None:
    """Critical-difference diagram (Demsar 2006, figure 1): average ranks on an axis, best on the left.

    Thick lines join methods that Nemenyi's test cannot tell apart at 5 %. None where there was nothing to test.
    """
    if result.critical_difference is None:
        return None
    ranks, names = zip(*sorted(zip(result.average_ranks, result.methods)))
    k, joined = len(names), alike(ranks, result.critical_difference)
    on_left = -(-k // 2)
    first_row = -0.9 - 0.35 * len(joined)
    lowest = first_row - 0.62 * (on_left - 1)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.36 * (1.6 - lowest)))
        axes = figure.add_axes((0.2, 0, 0.6, 1))
        axes.set(xlim=(1, k), ylim=(lowest - 0.4, 1.2))
        axes.set_axis_off()
        line: dict[str, Any] = {"color": AXIS, "linewidth": 0.8, "clip_on": False, "solid_capstyle": "butt"}
        axes.plot([1, k], [0, 0], **line)
        for tick in range(1, k + 1):
            axes.plot([tick, tick], [0, 0.12], **line)
            axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=7.5, color=AXIS)
        for i, (rank, name) in enumerate(zip(ranks, names)):
            is_left = i < on_left
            row = first_row - 0.62 * (i if is_left else k - 1 - i)
            edge = 1 - 0.01 * k if is_left else k + 0.01 * k
            axes.plot([rank, rank, edge], [0, row, row], **line)
            label = f"{name}  {rank:.1f}" if is_left else f"{rank:.1f}  {name}"
            axes.text(edge, row, f" {label} ", ha="right" if is_left else "left", va="center", fontsize=8.5)
        for place, (first, last) in enumerate(joined):
            height = -0.45 - 0.35 * place
            ends = [ranks[first] - 0.04, ranks[last] + 0.04]
            axes.plot(ends, [height, height], color=SETS["remain"], linewidth=3, clip_on=False, solid_capstyle="butt")
        axes.plot([1, 1 + result.critical_difference], [0.95, 0.95], color=INK, linewidth=1.4, clip_on=False)
        about = f" critical difference {result.critical_difference:.2f} · {metric}, {result.n_cells} cells"
        axes.text(1 + result.critical_difference, 0.95, about, va="center", fontsize=8.5, clip_on=False)
    return figure
