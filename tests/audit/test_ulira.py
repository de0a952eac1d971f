"""audio_mu.audit.ulira against densities from scipy.stats, clip by clip."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from audio_mu.audit.ulira import VARIANCE_FLOOR, ulira
from audio_mu.errors import UserError

SEEDS = (40, 41, 42, 43, 44)


def networks(shift: float, first_seed: int, n: int = 25) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Logits per seed in which the true class is raised by shift."""
    labels = np.arange(n) % 4
    logits = {}
    for offset, seed in enumerate(SEEDS):
        values = np.random.default_rng(first_seed + offset).normal(size=(n, 4))
        values[np.arange(n), labels] += shift
        logits[seed] = values
    return logits, labels


def confidence(logits: np.ndarray, label: int) -> float:
    p = np.exp(logits) / np.exp(logits).sum()
    return float(np.log(p[label]) - np.log(1 - p[label]))


def test_scores_match_densities_from_scipy():
    """Would catch the left-out seed kept in the fit, ddof 0, a variance per side, and log p for the confidence."""
    (unlearned, labels), (retrained, _) = networks(1.5, 0), networks(0.5, 100)
    found = ulira(unlearned, retrained, labels)
    for row, left_out in enumerate(SEEDS):
        for clip, label in enumerate(labels):
            sides = {}
            for name, logits in (("u", unlearned), ("r", retrained)):
                sides[name] = [confidence(logits[seed][clip], label) for seed in SEEDS if seed != left_out]
            squares = [sum((phi - np.mean(side)) ** 2 for phi in side) for side in sides.values()]
            std = np.sqrt(sum(squares) / 6)  # 4 + 4 values less two means
            for logits, scores in (
                (unlearned, found.scores_unlearned),
                (retrained, found.scores_retrained),
            ):
                phi = confidence(logits[left_out][clip], label)
                expected = norm.logpdf(phi, np.mean(sides["u"]), std) - norm.logpdf(phi, np.mean(sides["r"]), std)
                assert scores[row, clip] == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_auc_and_accuracy_match_sklearn():
    """Would catch the reversed direction and accuracy of one side only."""
    (unlearned, labels), (retrained, _) = networks(2.0, 0), networks(0.0, 100)
    found = ulira(unlearned, retrained, labels)
    truth = np.repeat([1, 0], len(labels))
    for row in range(len(SEEDS)):
        scores = np.concatenate([found.scores_unlearned[row], found.scores_retrained[row]])
        assert found.auc[row] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        assert found.accuracy[row] == pytest.approx(np.mean((scores > 0) == truth), abs=1e-12)
    assert found.auc_over_seeds().mean > 0.8
    assert found.auc_over_seeds().n == 5


def test_naive_against_itself_is_exactly_at_the_null():
    """Would catch ties decided for one side, and NaN from equal means."""
    retrained, labels = networks(1.0, 0)
    found = ulira(retrained, retrained, labels)
    assert (found.auc == 0.5).all()
    assert (found.accuracy == 0.5).all()
    assert (found.scores_unlearned == 0).all()


def test_networks_of_one_kind_are_at_the_null_on_average():
    """Would catch a leak of the left-out seed into its own Gaussian: then the AUC rises above 0.5."""
    aucs = []
    for trial in range(40):
        (unlearned, labels), (retrained, _) = networks(1.0, 1000 * trial), networks(1.0, 1000 * trial + 500)
        aucs.append(ulira(unlearned, retrained, labels).auc.mean())
    assert np.mean(aucs) == pytest.approx(0.5, abs=3 * np.std(aucs) / np.sqrt(40))
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)


def test_variance_is_floored():
    """Would catch a division by 0 where the networks of a side agree exactly."""
    labels = np.zeros(3, np.int64)
    unlearned = {seed: np.array([[1.0, 0.0]] * 3) for seed in SEEDS}
    retrained = {seed: np.array([[0.5, 0.0]] * 3) for seed in SEEDS}
    found = ulira(unlearned, retrained, labels)
    np.testing.assert_allclose(found.scores_unlearned, 0.5 * 0.5**2 / VARIANCE_FLOOR)
    assert np.isfinite(found.scores_retrained).all()


def test_saturated_confidence_still_differs():
    """Would catch float32 or probabilities, for which z = 40 and z = 60 are both certain."""
    generator = np.random.default_rng(0)
    labels = np.zeros(20, np.int64)

    def sure(of: float) -> dict[int, np.ndarray]:
        return {seed: np.column_stack([generator.normal(of, 1, 20), np.zeros(20)]) for seed in SEEDS}

    assert ulira(sure(60), sure(40), labels).auc.min() == 1.0


def test_correctness_is_refused():
    """Would catch U-LiRA fed with 0/1 correctness: only logits [n, classes] are taken."""
    correct = {seed: np.array([0.0, 1.0, 1.0]) for seed in SEEDS}
    with pytest.raises(ValueError, match="logits must have shape"):
        ulira(correct, correct, [0, 1, 0])
    one_column = {seed: values[:, None] for seed, values in correct.items()}
    with pytest.raises(ValueError, match="logits must have shape"):
        ulira(one_column, one_column, [0, 0, 0])


def test_only_common_seeds_count_and_three_are_needed():
    """Would catch pairs of different seeds, and a variance from one network."""
    (unlearned, labels), (retrained, _) = networks(1.0, 0), networks(1.0, 100)
    fewer = {seed: retrained[seed] for seed in SEEDS[:3]}
    assert ulira(unlearned, fewer, labels).seeds == (40, 41, 42)
    with pytest.raises(UserError, match="3 seeds"):
        ulira(unlearned, {seed: retrained[seed] for seed in SEEDS[:2]}, labels)
    empty = {seed: np.zeros((0, 4)) for seed in SEEDS}
    with pytest.raises(ValueError, match="needs clips"):
        ulira(empty, empty, np.zeros(0, np.int64))
