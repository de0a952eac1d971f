"""Methods that teach the forget set other labels, against single steps by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from audio_mu.unlearning import relabelling
from audio_mu.unlearning.relabelling import other_labels
from tests.unlearning.formulas import gradient, linear, moved


def test_label_smoothing_pulls_towards_the_uniform_distribution() -> None:
    """Catches smoothing that keeps weight on the true class: the target is 1 / classes everywhere."""
    problem = linear().changed(batch_size=16)
    logits = problem.base(problem.features[problem.forget])
    uniform = -(torch.full_like(logits, 0.25) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(
        moved(problem, "label_smoothing"), -1e-6 * gradient(problem, uniform), rtol=1e-3, atol=1e-12
    )


def test_amnesiac_draws_wrong_labels_once_and_learns_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches labels drawn anew each epoch, true labels among them, and a rate other than a tenth of the recipe's."""
    problem = linear().changed(batch_size=16, n_epoch_impair=3)
    drawn: list[Tensor] = []

    def recording(*arguments: object) -> Tensor:
        drawn.append(other_labels(*arguments))
        return drawn[-1]

    monkeypatch.setattr(relabelling, "other_labels", recording)
    step = moved(problem, "amnesiac")
    assert len(drawn) == 1
    assert (drawn[0] != problem.labels[problem.forget]).all()
    loss = functional.cross_entropy(problem.base(problem.features[problem.forget]), drawn[0])
    torch.testing.assert_close(step, -3 * 1e-7 * gradient(problem, loss), rtol=1e-3, atol=1e-12)


def test_other_labels_are_uniform_over_the_others() -> None:
    """Catches a draw that can give the true label, or never gives the last or the first class."""
    labels = torch.arange(5).repeat_interleave(4000)
    drawn = other_labels(labels, 5, torch.Generator().manual_seed(0))
    counts = torch.zeros(5, 5, dtype=torch.long)
    counts.index_put_((labels, drawn), torch.tensor(1), accumulate=True)
    assert (counts.diagonal() == 0).all()
    assert counts[~torch.eye(5, dtype=torch.bool)].sub(1000).abs().max() < 5 * 28  # 5 standard deviations
