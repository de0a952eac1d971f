"""Fine-tuning under a fading L1 penalty."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from audio_mu.training import OptimizerSettings
from tests.unlearning.formulas import SGD, agree, by_hand, flat, mean_loss, precise
from tests.unlearning.small_problem import trained


def test_l1_penalty_fades_from_its_full_value_over_the_epochs() -> None:
    """Catches a constant penalty, one that fades within an epoch or starts at 0, and biases left out."""
    problem = precise().changed(optimizer=OptimizerSettings("sgd", 1e-6, momentum=0.0))
    remain = mean_loss(problem, problem.remain)

    def loss(strength: float) -> Callable[[nn.Module], Tensor]:
        return lambda network: remain(network) + strength * sum(p.abs().sum() for p in network.parameters())

    expected = by_hand(problem, [(1e-6, loss(0.5 * (1 - t / 4))) for t in range(4)], momentum=0.0)
    found = problem.run("l1_sparse", hyper_parameters={"penalty": 0.5, "epochs": 4}).network
    agree(flat(found), expected, flat(problem.base))


def test_l1_sparse_shrinks_weights() -> None:
    """Catches a penalty that is computed but not in the loss."""
    problem = trained().changed(optimizer=SGD)
    norms = [
        flat(problem.run("l1_sparse", hyper_parameters={"penalty": penalty}).network).abs().sum()
        for penalty in (0.0, 0.0005, 0.005)
    ]
    assert norms[0] > norms[1] > norms[2]
