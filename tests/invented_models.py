"""Invented models whose truth is known, and what `best_method` takes of them.

Each recording has a difficulty of its own, each model a strength that depends on its seed, and each answer is drawn
anew: methods that have forgotten nothing differ as much from the original as models of other seeds do. Gaps, errors and
attack are computed by the package's own functions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import expit

from audio_mu.audit.certainty import auc_error, paired_error
from audio_mu.audit.population import placements
from audio_mu.audit.statistics import clopper_pearson
from audio_mu.names import ORIGINAL
from audio_mu.report.choice import best_method

METHODS = [f"m{i}" for i in range(20)]
N_UNSEEN = 100
NAIVE_ACCURACY = 0.65
HARDNESS, STRENGTH = 3.0, 0.2
"""Standard deviations, in logits, of the recordings' difficulty and of what a seed adds to a model's strength."""
SEED = 7


@dataclass(frozen=True)
class Cell:
    """What is drawn. gap: accuracy of the original on the forget set less naive's."""

    gap: float
    n_forget: int
    n_seeds: int
    has_good: bool


@cache
def strength_for(accuracy: float) -> float:
    """The strength at which a model recognises so many recordings in the mean."""
    difficulty = HARDNESS * np.random.default_rng(0).normal(size=4_000)
    tried = np.linspace(-10, 20, 3_001)
    reached = [expit(strength - difficulty).mean() for strength in tried]
    return float(np.interp(accuracy, reached, tried))


class Models:
    """Models of one kind, one for each seed: right answers [seeds, forget] and placements of the attack."""

    def __init__(
        self, draw: np.random.Generator, strengths: tuple[float, float], difficulty: np.ndarray, n: int
    ) -> None:
        """strengths: on the forget set, on the unseen recordings; difficulty: of both [forget + unseen]."""
        n_forget = len(difficulty) - N_UNSEEN
        strength = np.repeat(strengths, [n_forget, N_UNSEEN]) + draw.normal(0, STRENGTH, (n, 1))
        margin = strength - difficulty + draw.logistic(size=(n, len(difficulty)))
        self.right = (margin[:, :n_forget] > 0).astype(float)
        losses = np.logaddexp(0, -margin)
        self.placed = [placements(row[:n_forget], row[n_forget:]) for row in losses]
        self.auc = np.array([float(above.mean()) for above, _ in self.placed])


def figures(own: Models, naive: Models, original: Models) -> dict[str, np.ndarray]:
    """The figures that `best_method` reads, of each seed."""
    seeds = range(len(own.auc))
    gap = own.right.mean(axis=1) - naive.right.mean(axis=1)
    half = own.right - (naive.right + original.right) / 2
    weighted = [[(1.0, *own.placed[s]), (-1.0, *naive.placed[s])] for s in seeds]
    halves = [[(1.0, *own.placed[s]), (-0.5, *naive.placed[s]), (-0.5, *original.placed[s])] for s in seeds]
    return {
        "gap/forget_accuracy": gap,
        "gap/mia_auc": own.auc - naive.auc,
        "gap/tow": 1 - np.abs(gap),
        "error/forget_accuracy": np.array([paired_error(own.right[s] - naive.right[s]) for s in seeds]),
        "error/half_forget_accuracy": np.array([paired_error(half[s]) for s in seeds]),
        "error/mia_auc": np.array([auc_error(of) for of in weighted]),
        "error/half_mia_auc": np.array([auc_error(of) for of in halves]),
    }


def drawn(draw: np.random.Generator, cell: Cell) -> pd.DataFrame:
    """The long table of one cell."""
    difficulty = HARDNESS * draw.normal(size=cell.n_forget + N_UNSEEN)
    weak, strong = strength_for(NAIVE_ACCURACY), strength_for(NAIVE_ACCURACY + cell.gap)
    naive = Models(draw, (weak, weak), difficulty, cell.n_seeds)
    original = Models(draw, (strong, weak), difficulty, cell.n_seeds)
    models = {ORIGINAL: original}
    for method in METHODS:
        kind = weak if cell.has_good and method == METHODS[0] else strong
        models[method] = Models(draw, (kind, weak), difficulty, cell.n_seeds)
    rows, seeds = [], " ".join(map(str, range(cell.n_seeds)))
    for method, own in models.items():
        for metric, values in figures(own, naive, original).items():
            listed = " ".join(map(str, values.tolist()))
            rows.append((method, metric, float(values.mean()), len(values), seeds, listed, None, None))
    return pd.DataFrame(rows, columns=["method", "metric", "mean", "n", "seeds", "values", "ci_low", "ci_high"])


def counted(cell: Cell, trials: int) -> dict[str, object]:
    """How often `best_method` takes the good method, and how often another one, with the interval of that share."""
    draw = np.random.default_rng([SEED, *(round(1_000 * value) for value in asdict(cell).values())])
    taken = [best_method(drawn(draw, cell), METHODS) for _ in range(trials)]
    good = sum(method == METHODS[0] for method in taken) if cell.has_good else 0
    wrong = sum(method is not None for method in taken) - good
    low, high = clopper_pearson(wrong, trials)
    good_share = good / trials if cell.has_good else float("nan")
    return {**asdict(cell), "trials": trials, "good_taken": good_share, "wrong_taken": wrong / trials,
            "wrong_low": low, "wrong_high": high}  # fmt: skip
