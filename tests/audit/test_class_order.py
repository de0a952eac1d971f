"""The order of the classes that a network's outputs seem to have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from audio_mu.audit.class_order import fits, seeming_order

LABELS = np.arange(60) % 4


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_the_order_and_the_way_back(order: tuple[int, ...]) -> None:
    """Catches the inverse of the order: `order.index` for each class is what puts the outputs right."""
    draw = np.random.default_rng(0)
    right = np.eye(4)[LABELS] * 3 + draw.normal(size=(60, 4))
    theirs = right[:, list(order)]  # output j stands for class order[j]
    found, best, assumed = seeming_order(theirs, LABELS)
    assert found == order
    back = theirs[:, [found.index(i) for i in range(4)]]
    assert (back.argmax(axis=1) == LABELS).mean() == best == (right.argmax(axis=1) == LABELS).mean()
    assert assumed == (theirs.argmax(axis=1) == LABELS).mean()
    assert fits(best, assumed) == (order == tuple(range(4)))


def test_a_network_that_knows_nothing_is_not_called_shuffled() -> None:
    """Catches a refusal of the order by chance."""
    logits = np.random.default_rng(1).normal(size=(60, 4))
    _, best, assumed = seeming_order(logits, LABELS)
    assert fits(best, assumed)
