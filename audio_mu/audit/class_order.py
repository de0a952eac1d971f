"""Whether the outputs of a network stand for the classes in the order that is assumed."""

from __future__ import annotations

import numpy as np

FAR_BETTER = 0.25  # accuracy that another order has to add before the assumed one is called wrong


def seeming_order(logits: np.ndarray, labels: np.ndarray) -> tuple[tuple[int, ...], float, float]:
    """(classes in the order that the outputs seem to have, accuracy in that order, accuracy in the assumed one).

    The assignment of outputs to classes that most answers agree with (Kuhn 1955, on the confusion matrix): entry j is
    the class that output j seems to stand for. `logits` [n, classes], `labels` [n].
    """
    from scipy.optimize import linear_sum_assignment

    n_classes = logits.shape[1]
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (logits.argmax(axis=1), labels), 1)
    outputs, classes = linear_sum_assignment(confusion, maximize=True)
    best = confusion[outputs, classes].sum() / len(labels)
    return tuple(int(own) for own in classes), float(best), float(np.trace(confusion) / len(labels))


def fits(best: float, assumed: float) -> bool:
    """Whether no other order of the classes is far better than the assumed one."""
    return best - assumed <= FAR_BETTER
