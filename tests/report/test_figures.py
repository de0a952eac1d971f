"""Figures: what is computed for them, and that they follow the page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.text import Text
from sklearn.metrics import roc_curve

from audio_mu.audit.statistics import friedman
from audio_mu.report import canvas, figures
from tests.report.conftest import MEANS


def test_roc_agrees_with_scikit_learn() -> None:
    """Catches members and non-members the wrong way round, or a threshold that calls too many."""
    generator = np.random.default_rng(1)
    members, others = generator.exponential(size=40), 1.5 * generator.exponential(size=60)
    rates, found, _ = roc_curve([1] * 40 + [0] * 60, -np.concatenate([members, others]), drop_intermediate=False)
    for rate in (1 / 60, 0.1, 0.5, 1.0):
        expected = found[rates <= rate + 1e-9].max()
        assert figures.roc(members, others, np.array([rate]))[0] == expected


def test_svg_takes_colours_and_fonts_from_the_page(long: pd.DataFrame) -> None:
    """Catches a figure that stays dark on dark, or brings fonts, sizes or styles of its own."""
    svg = canvas.as_svg(figures.trade_off_figure(long, list(MEANS)), "f")
    assert "var(--ink)" in svg
    assert "var(--forget)" in svg
    assert "DejaVu" not in svg
    assert "<style" not in svg
    assert not re.match(r"<svg[^>]* (width|height)=", svg)
    assert "#000000" not in svg


def test_svg_is_the_same_every_time(long: pd.DataFrame) -> None:
    """Catches dates or random ids, which would make two reports of one store differ."""
    first, second = (canvas.as_svg(figures.mia_figure(long, list(MEANS)), "f") for _ in range(2))
    assert first == second


def test_the_cuts_are_marked_where_the_methods_cut() -> None:
    """Catches marks at other prune rates than the methods use."""
    curve = np.sqrt(1 - np.linspace(0, 1, 101) ** 4)
    svg = canvas.as_svg(figures.prune_figure({"40": curve}), "f")
    rates = np.arange(101) / 100
    cosine = rates[np.argmin((rates - 1) ** 2 + (curve - 1) ** 2)]
    pop = rates[np.argmax((rates + 1) ** 2 + curve**2)]
    assert f"cosine {cosine:.2f}" in svg
    assert f"POP {pop:.2f}" in svg
    assert figures.prune_figure({}) is None


def test_names_do_not_cover_each_other() -> None:
    """Catches a crowded figure whose names cannot be read."""
    names = [f"method_{i}" for i in range(6)]
    rows = [{"method": name, "metric": metric, "mean": 0.9 + 0.001 * i, "ci_low": np.nan, "ci_high": np.nan}
            for i, name in enumerate(names) for metric in ("forget/accuracy", "test/accuracy")]  # fmt: skip
    figure = figures.trade_off_figure(pd.DataFrame(rows), names)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_nothing_to_compare_gives_no_speed_figure(long: pd.DataFrame) -> None:
    """Catches an empty figure where no method has both a time and naive's."""
    assert figures.speed_figure(long[~long["metric"].str.startswith("time")], list(MEANS)) is None


def test_an_accuracy_ends_at_1(long: pd.DataFrame) -> None:
    """Catches an axis that offers accuracies and shares that there cannot be."""
    for figure in (figures.accuracy_figure(long, list(MEANS), ""), figures.trade_off_figure(long, list(MEANS)),
                   figures.mia_figure(long, list(MEANS))):  # fmt: skip
        for axes in figure.axes:
            assert axes.get_ylim()[1] <= 1 and axes.get_ylim()[0] >= 0
    assert figures.trade_off_figure(long, list(MEANS)).axes[0].get_xlim()[1] <= 1


def test_a_verdict_has_a_colour_and_a_shape(long: pd.DataFrame) -> None:
    """Catches a figure that tells failed methods apart by colour alone."""
    marks = {"good": canvas.Mark(canvas.GOOD, "o"), "damaged": canvas.Mark(canvas.BAD, "X")}
    points = figures.trade_off_figure(long, list(MEANS), marks).axes[0].lines
    drawn = {(line.get_color(), line.get_marker()) for line in points}
    assert {(canvas.GOOD, "o"), (canvas.BAD, "X"), (canvas.INK, "D"), (canvas.COLOURS["original"], "s")} <= drawn


def test_the_ranking_joins_what_cannot_be_told_apart() -> None:
    """Catches a line that joins methods a critical difference apart, one within another, or a name that is missing."""
    assert figures.alike([1.0, 2.0, 3.0, 6.0], 2.5) == [(0, 2)]
    assert figures.alike([1.0, 2.0, 3.0, 4.0], 2.0) == [(0, 1), (1, 2), (2, 3)]
    assert figures.alike([1.0, 4.0], 2.0) == []
    table = pd.DataFrame([[0.9, 0.8, 0.1]] * 4, columns=["pop", "fine_tune", "ssd"])
    figure = figures.ranking_figure(friedman(table, higher_is_better=True), "ToW")
    assert figure is not None
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    assert all(name in texts for name in ("pop", "fine_tune", "ssd", "4 cells"))
    assert figures.ranking_figure(friedman(table[:1], higher_is_better=True), "ToW") is None
