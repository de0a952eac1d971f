"""Figures of one invented cell, whose verdicts are known by construction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from audio_mu.report.facts import RequestFacts
from audio_mu.report.tables import long_table
from tests.browser import Browser, programs

SEEDS = (40, 41, 42, 43, 44)
NOISE = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])
# method: forget, remain, test accuracy, attack AUC, seconds
MEANS = {
    "original": (0.99, 0.99, 0.95, 0.60, None),
    "naive": (0.90, 0.99, 0.95, 0.50, 100.0),
    "good": (0.91, 0.985, 0.945, 0.51, 20.0),
    "good_but_farther": (0.88, 0.98, 0.94, 0.48, 10.0),
    "remembers": (0.98, 0.99, 0.95, 0.58, 10.0),
    "remembers_by_loss": (0.90, 0.99, 0.95, 0.60, 10.0),
    "overdone": (0.70, 0.985, 0.945, 0.30, 10.0),
    "damaged": (0.60, 0.70, 0.66, 0.50, 200.0),
}


def table(means: dict[str, tuple[float | None, ...]], noise: np.ndarray = NOISE) -> pd.DataFrame:
    """The long table of a cell whose methods have these means; gaps as far as naive is among them."""
    naive = means.get("naive")
    rows = []
    for method, (forget, remain, test, auc, seconds) in means.items():
        for i, seed in enumerate(SEEDS[: len(noise)]):
            own = {"forget/accuracy": forget, "remain/accuracy": remain, "test/accuracy": test, "mia/auc": auc}
            values = {name: value + noise[i] * (1 if method == "naive" else -1) for name, value in own.items()}
            if seconds is not None:
                values["time/total_s"] = seconds
            if naive is not None and method != "naive":
                gaps = [own[name] - naive[k] - 2 * noise[i] for k, name in enumerate(own)]
                names = ("gap/forget_accuracy", "gap/remain_accuracy", "gap/test_accuracy", "gap/mia_auc")
                values |= dict(zip(names, gaps, strict=True))
                values["gap/tow"] = float(np.prod([1 - abs(gap) for gap in gaps[:3]]))
                if seconds is not None:
                    values["time/speedup"] = naive[4] / seconds
            rows += [("c", "item-10", method, name, seed, value) for name, value in values.items()]
    return long_table(pd.DataFrame(rows, columns=["cell", "request", "method", "metric", "seed", "value"]))


@pytest.fixture(scope="session")
def long() -> pd.DataFrame:
    """Five seeds of every kind of method."""
    return table(MEANS)


@pytest.fixture(scope="session")
def request_facts() -> RequestFacts:
    """A request for 144 of 1,440 recordings."""
    return RequestFacts("item-10", "ab" * 32, 144, 1296, 360, 0, 3)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One window for all pages."""
    if programs() is None:
        pytest.skip("no chromium and chromedriver on this machine: the pages are not tried in a browser")
    with Browser() as opened:
        yield opened
