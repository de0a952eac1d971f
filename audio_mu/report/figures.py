"""The figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

SETS = {"forget": "#c0392b", "remain": "#2471a3", "test": "#7d8a97"}
NAIVE = "#1b1b1b"
LOSS_FLOOR = 1e-6


def _values(long: pd.DataFrame, metric: str, methods: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = long[long["metric"] == metric].set_index("method").reindex(methods)
    return rows["mean"].to_numpy(float), rows["std"].fillna(0.0).to_numpy(float)


def accuracy_figure(long: pd.DataFrame, methods: Sequence[str], title: str) -> Figure:
    """Accuracy on the forget, remain and test sets per method, with naive's forget accuracy as the target."""
    figure, axes = plt.subplots(figsize=(1.6 + 0.95 * len(methods), 4.2), layout="constrained")
    positions = np.arange(len(methods))
    for i, (name, colour) in enumerate(SETS.items()):
        mean, deviation = _values(long, f"{name}/accuracy", methods)
        axes.bar(positions + (i - 1) * 0.27, mean, 0.25, yerr=deviation, label=name, color=colour, capsize=2)
    if "naive" in methods:
        target = _values(long, "forget/accuracy", ["naive"])[0][0]
        axes.axhline(target, color=NAIVE, linewidth=1, linestyle="--", label="naive on forget (target)")
    axes.set_xticks(positions, methods, rotation=30, ha="right")
    axes.set(ylabel="accuracy", ylim=(0, 1.02), title=title)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def mia_figure(long: pd.DataFrame, methods: Sequence[str], title: str) -> Figure:
    """Share of forget clips that the attack models call non-member, per method; naive's value is the target."""
    figure, axes = plt.subplots(figsize=(1.6 + 0.8 * len(methods), 3.8), layout="constrained")
    mean, deviation = _values(long, "mia/score", methods)
    axes.errorbar(np.arange(len(methods)), mean, yerr=deviation, fmt="o", color=SETS["forget"], capsize=3)
    if "naive" in methods:
        target, spread = _values(long, "mia/score", ["naive"])
        axes.axhline(target[0], color=NAIVE, linewidth=1, linestyle="--", label="naive (target)")
        axes.axhspan(target[0] - spread[0], target[0] + spread[0], color=NAIVE, alpha=0.08)
        axes.legend(fontsize=8)
    axes.set_xticks(np.arange(len(methods)), methods, rotation=30, ha="right")
    axes.set(ylabel="forget clips called non-member", ylim=(-0.02, 1.02), title=title)
    return figure


def forget_loss_figure(losses: Mapping[str, np.ndarray], methods: Sequence[str], title: str) -> Figure:
    """Distribution of the forget set's losses (all seeds) of each method over naive's, on a log scale."""
    shown = [method for method in methods if method in losses and method != "naive"]
    columns = min(4, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.3 * rows + 0.4), sharex=True, squeeze=False, layout="constrained"
    )
    bins = np.logspace(np.log10(LOSS_FLOOR), 2, 45)
    for axes, method in zip(grid.flat, shown, strict=False):
        if "naive" in losses:
            axes.hist(np.clip(losses["naive"], LOSS_FLOOR, 100), bins, color=NAIVE, alpha=0.35, label="naive")
        axes.hist(np.clip(losses[method], LOSS_FLOOR, 100), bins, histtype="step", color=SETS["forget"], label=method)
        axes.set_xscale("log")
        axes.set_title(method, fontsize=9)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("cross-entropy of forget clips (log)", fontsize=9)
    figure.suptitle(f"{title} (grey: naive)", fontsize=10)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as PNG bytes; it is closed."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
