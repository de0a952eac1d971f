"""Figures of single classes against scikit-learn, and the names beside them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from audio_mu.audit.by_class import by_class
from audio_mu.audit.performance import class_performance, performance

NAMES = ("cat", "dog", "emu", "fox")


def logits_of(answers: list[int]) -> np.ndarray:
    return np.eye(len(NAMES))[answers]


def test_macro_f1_counts_the_classes_that_are_there() -> None:
    """Catches a mean over recordings, and a removed class that counts as 0 in the test set that has lost it."""
    labels = np.array([0] * 8 + [1, 1])
    answers = [0] * 8 + [1, 3]
    found = class_performance(logits_of(answers), labels)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, answers, labels=[0, 1], average="macro"))
    assert found["macro_f1"] < performance(logits_of(answers), labels)["accuracy"]
    assert found["worst_class_accuracy"] == 0.5


def test_a_removed_class_has_a_figure_of_its_own_set() -> None:
    """Catches a forget set of one class whose F1 is thinned by all classes that it is called instead."""
    half = class_performance(logits_of([2, 2, 0, 1]), np.array([2, 2, 2, 2]))
    assert half == {"macro_f1": pytest.approx(2 / 3), "worst_class_accuracy": 0.5}
    assert class_performance(logits_of([0, 1]), np.array([2, 2])) == {"macro_f1": 0.0, "worst_class_accuracy": 0.0}


def test_tables_name_every_class_and_every_confusion() -> None:
    """Catches classes exchanged, sets mixed, an accuracy that is not the recall, and what never happens in the list."""
    sets = {
        "forget": (logits_of([0, 0, 1]), np.array([2, 2, 2])),
        "test": (logits_of([0, 1, 1, 3]), np.array([0, 1, 0, 3])),
        "held_out": (np.zeros((0, 4)), np.zeros(0, dtype=np.int64)),
    }
    found = by_class(sets, NAMES)
    rows = {(row["set"], row["class"]): row for row in found.per_class.to_dict("records")}
    assert list(rows) == [("forget", "emu"), ("test", "cat"), ("test", "dog"), ("test", "fox")]
    assert [rows["test", "cat"][name] for name in ("n", "accuracy", "precision", "recall")] == [2, 0.5, 1.0, 0.5]
    assert rows["test", "dog"]["f1"] == pytest.approx(2 / 3)
    told = [tuple(row) for row in found.confusion.itertuples(index=False)]
    assert told[:2] == [("forget", "emu", "cat", 2), ("forget", "emu", "dog", 1)]
    assert found.confusion.groupby("set")["n"].sum().to_dict() == {"forget": 3, "test": 4}
    assert found.worst == {
        "worst_class_forget": "emu (3 recordings)",
        "worst_class_test": "cat (2 recordings)",
    }
