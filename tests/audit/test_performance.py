"""audio_mu.audit.performance against torchmetrics, hand numbers and high-precision arithmetic."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from audio_mu.audit.performance import (
    accuracy,
    cross_entropy,
    expected_calibration_error,
    log_loss_feature,
    logit_scaled_confidence,
    mean_loss,
    performance,
    recording_accuracy,
    softmax,
)
from audio_mu.errors import UserError


@pytest.fixture
def clips() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    logits = (2 * generator.normal(size=(400, 7))).astype(np.float32)
    labels = np.where(generator.random(400) < 0.5, logits.argmax(axis=1), generator.integers(0, 7, 400))
    return logits, labels


def test_loss_matches_torch(clips):
    """Would catch a wrong axis, a mean in place of the loss per clip, or another base of logarithm."""
    logits, labels = clips
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits, dtype=torch.float64), torch.tensor(labels), reduction="none"
    )
    np.testing.assert_allclose(cross_entropy(logits, labels), expected.numpy(), rtol=1e-12)
    assert mean_loss(logits, labels) == pytest.approx(float(expected.mean()), rel=1e-12)


@pytest.mark.parametrize("logits", [[30.0, 0.0, -2.0], [60.0, 3.0, 1.0], [-700.0, 800.0, 0.0]])
def test_tiny_and_huge_losses_keep_their_digits(logits):
    """Would catch float32, log(softmax) and logsumexp minus z_y, all of which give 0 or inf here."""
    getcontext().prec = 700
    powers = [Decimal(z).exp() for z in logits]
    expected = -(powers[0] / sum(powers)).ln()
    assert cross_entropy([logits], [0])[0] == pytest.approx(float(expected), rel=1e-12)


def test_logit_scaled_confidence_is_the_logit_of_p():
    """Would catch log p in place of log p - log(1 - p), and log(1 - p) replaced by log p."""
    logits = np.log([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    expected = [np.log(0.7 / 0.3), np.log(0.5 / 0.5)]
    np.testing.assert_allclose(logit_scaled_confidence(logits, [0, 2]), expected, atol=1e-12)


def test_logit_scaled_confidence_does_not_saturate():
    """Would catch a computation by way of probabilities: p rounds to 1 and the logit to infinity."""
    assert logit_scaled_confidence([[100.0, 0.0]], [0])[0] == 100.0


def test_log_loss_is_floored():
    """Would catch log(0) = -inf reaching an attack model."""
    np.testing.assert_allclose(log_loss_feature([0.0, 1e-30, 1.0]), [np.log(1e-12), np.log(1e-12), 0.0])


def test_softmax_matches_torch(clips):
    """Would catch normalisation over clips instead of classes."""
    expected = torch.softmax(torch.tensor(clips[0], dtype=torch.float64), dim=1).numpy()
    np.testing.assert_allclose(softmax(clips[0]), expected, rtol=1e-12)


@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_calibration_error_matches_torchmetrics(clips, n_bins):
    """Would catch other bin edges, L2, an unweighted mean over bins or the confidence of the true class."""
    logits, labels = clips
    tensors = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    expected = float(multiclass_calibration_error(*tensors, num_classes=7, n_bins=n_bins, norm="l1"))
    assert expected_calibration_error(logits, labels, n_bins) == pytest.approx(expected, abs=1e-6)
    assert accuracy(logits, labels) == pytest.approx(
        float(multiclass_accuracy(*tensors, num_classes=7, average="micro")), abs=1e-7
    )


def test_calibration_error_of_certain_clips_by_hand():
    """Would catch a confidence of exactly 1 that falls out of the bins or into one of its own."""
    # Last bin: confidences 1, 1, 0.96, right, wrong, right; then 0.6, right, alone in its bin.
    logits = [[800.0, 0.0], [800.0, 0.0], [np.log(0.96), np.log(0.04)], [np.log(0.6), np.log(0.4)]]
    expected = 3 / 4 * abs(2 / 3 - 2.96 / 3) + 1 / 4 * 0.4
    assert expected_calibration_error(logits, [0, 1, 0, 0]) == pytest.approx(expected)


def test_a_confidence_on_an_edge_belongs_to_the_upper_bin():
    """Would catch bins (low, high]: 0.5 (right) and 0.8 (wrong) share the bin [0.5, 1] of two."""
    logits = [[0.0, 0.0], [np.log(0.8), np.log(0.2)]]
    assert expected_calibration_error(logits, [0, 1], n_bins=2) == pytest.approx(abs(1 / 2 - 1.3 / 2))


def test_empty_set_has_no_performance():
    """Would catch a 0 or NaN logged for a set without clips."""
    assert performance(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) == {}
    with pytest.raises(ValueError, match="no clips"):
        accuracy(np.zeros((0, 4)), np.zeros(0, np.int64))


def test_performance_has_its_keys(clips):
    """Would catch a renamed metric: the names are a contract."""
    assert set(performance(*clips)) == {"accuracy", "loss", "ece", "macro_f1", "worst_class_accuracy"}


def test_diverged_network_is_refused():
    """Would catch NaN logits counted as class 0 by argmax."""
    with pytest.raises(UserError, match="1 of 2 clips are not finite"):
        performance([[0.0, 1.0], [np.nan, 0.0]], [0, 0])


@pytest.mark.parametrize("labels", [[0, 3], [0, -1], [0], [0.0, 1.0]])
def test_wrong_labels_are_refused(labels):
    """Would catch negative labels indexing from the end, or labels that broadcast."""
    with pytest.raises(ValueError, match="labels must"):
        cross_entropy(np.zeros((2, 3)), labels)


def test_a_recording_is_answered_by_the_mean_of_its_clips():
    """Would catch a vote, a mean over clips of several classes, or a figure where each recording has one clip."""
    logits = [[5.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]]
    labels, recordings = [0, 0, 0, 1, 1, 1], [7, 7, 7, 7, 9, 9]
    # 7 of class 0: 5 to 2, right; 7 of class 1: right; 9: 3 to 2, wrong.
    assert recording_accuracy(logits, labels, recordings) == pytest.approx(2 / 3)
    assert performance(logits, labels, recordings)["recording_accuracy"] == pytest.approx(2 / 3)
    assert "recording_accuracy" not in performance(logits[:4:3], labels[:4:3], recordings[:4:3])
