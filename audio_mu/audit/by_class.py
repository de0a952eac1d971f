"""Figures of each class, and what the recordings of a class are called instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from audio_mu.audit.performance import answers_and_labels, of_classes

OF_A_CLASS = ["set", "class", "n", "accuracy", "precision", "recall", "f1"]
CONFUSION = ["set", "label", "answer", "n"]


@dataclass(frozen=True)
class ByClass:
    """What a model answers on several sets.

    per_class: a row for each set and class that it has recordings of, columns `OF_A_CLASS`; the accuracy of a class is
    the share of its recordings that are answered rightly, its recall. confusion: how many recordings of a class get
    which answer, without what never happens, columns `CONFUSION`.
    """

    per_class: pd.DataFrame
    confusion: pd.DataFrame

    @property
    def files(self) -> dict[str, pd.DataFrame]:
        """The tables by the names of their files."""
        return {"per_class.csv": self.per_class, "confusion.csv": self.confusion}

    @property
    def worst(self) -> dict[str, str]:
        """Tag → the class of the lowest accuracy of a set, the first of equals, with its size."""
        lowest = self.per_class.loc[self.per_class.groupby("set", sort=False)["accuracy"].idxmin()]
        named = zip(lowest["set"], lowest["class"], lowest["n"])
        return {f"worst_class_{name}": f"{label} ({n} recordings)" for name, label, n in named}


def by_class(sets: Mapping[str, tuple[ArrayLike, ArrayLike]], class_names: Sequence[str]) -> ByClass:
    """Return the figures of every class on each set, given by its logits [n, classes] and labels [n]."""
    rows: list[tuple[object, ...]] = []
    confused: list[tuple[object, ...]] = []
    for name, (logits, labels) in sets.items():
        answers, truth = answers_and_labels(logits, labels)
        if not len(truth):
            continue
        found = of_classes(answers, truth)
        columns = (found.n, found.recall, found.precision, found.recall, found.f1)
        for label, *figures in zip(found.labels, *(column.tolist() for column in columns)):
            rows.append((name, class_names[label], *figures))
        counts = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
        np.add.at(counts, (truth, answers), 1)
        confused += [
            (name, class_names[of], class_names[called], int(counts[of, called])) for of, called in np.argwhere(counts)
        ]
    return ByClass(pd.DataFrame(rows, columns=OF_A_CLASS), pd.DataFrame(confused, columns=CONFUSION))
