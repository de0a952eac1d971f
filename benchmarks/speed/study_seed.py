"""One seed's nine methods in the study's way: impair, repair, evaluate, attack and write, one after the other."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.cosine_curve import cosine_cut, post_optimal_cut
from audio_mu.unlearning.pruning import apply_mask, keep_mask, magnitudes, regrow
from audio_mu.unlearning.task import flat_parameters
from tests.study_loop import (
    ClipList,
    Loss,
    batches,
    cross_entropy,
    evaluate,
    loss_list,
    new_network,
    optimizer_of,
    train_epoch,
)


@torch.no_grad()
def probabilities(network: nn.Module, clips: ClipList) -> Tensor:
    """Softmax of every clip [n, classes]."""
    network.eval()
    return torch.cat([network(features).softmax(dim=1) for features, _ in batches(network, clips)])


class SeedUnlearning:
    """One seed's nine methods, one after the other, each evaluated and written as the study does.

    `sets` are forget, remain and test; `attacks` are attack models from a loss [n, 1] to two logits.
    """

    def __init__(
        self, base: nn.Module, sets: Mapping[str, ClipList], attacks: Sequence[nn.Module], folder: Path, seed: int
    ) -> None:
        self.base, self.sets, self.attacks, self.folder, self.seed = base, sets, attacks, folder, seed
        self.naive = base
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, naive_epochs: int = 2, repair_epochs: int = 1) -> None:
        """All nine; one impair epoch where there is one."""
        self.naive = self._new(self.seed)
        self._train(self.naive, "remain", epochs=naive_epochs)
        self._finish("naive", self.naive)
        for name, impair in self._impairs().items():
            network = copy.deepcopy(self.base)
            self._train(network, "forget", impair)
            teach = self._like(self.base) if name == "stochastic_teacher" else cross_entropy
            self._train(network, "remain", teach, repair_epochs)
            self._finish(name, network)
        for name, rate in {"omp": lambda _: 0.95, "cosine": cosine_cut, "pop": post_optimal_cut}.items():
            network = copy.deepcopy(self.base)
            sorted_weights = magnitudes(flat_parameters(network))
            mask = keep_mask(network, sorted_weights, rate(sorted_weights.cosine))
            if name == "omp":
                apply_mask(network, mask)
                self._train(
                    network, "remain", epochs=repair_epochs, after_step=lambda n=network, m=mask: apply_mask(n, m)
                )
            else:
                regrow(network, mask, self._new(self.seed + 1))
                self._train(network, "remain", epochs=repair_epochs)
            self._finish(name, network)
        network = copy.deepcopy(self.base)
        self._train(network, "remain", epochs=repair_epochs)
        self._finish("fine_tune", network)

    def _new(self, seed: int) -> nn.Module:
        """A fresh network where the base is."""
        return new_network("VGGish", seed).to(next(self.base.parameters()).device)

    def _impairs(self) -> dict[str, Loss]:
        return {
            "gradient_ascent": lambda network, features, labels: -cross_entropy(network, features, labels),
            "stochastic_teacher": self._like(self._new(self.seed + 2)),
            "amnesiac": lambda network, features, labels: cross_entropy(
                network, features, (labels + torch.randint(1, 10, labels.shape, device=labels.device)) % 10
            ),
            "label_smoothing": lambda network, features, labels: functional.cross_entropy(
                network(features), labels, label_smoothing=1.0
            ),
        }

    def _like(self, teacher: nn.Module) -> Loss:
        """Divergence from a teacher, which answers every batch anew."""
        teacher = copy.deepcopy(teacher).eval()

        def divergence(network: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                answers = teacher(features).log_softmax(dim=1)
            student = network(features).log_softmax(dim=1)
            return functional.kl_div(student, answers, log_target=True, reduction="batchmean")

        return divergence

    def _train(
        self,
        network: nn.Module,
        name: str,
        loss_of: Loss = cross_entropy,
        epochs: int = 1,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        optimizer = optimizer_of(network)
        for _ in range(epochs):
            train_epoch(network, self.sets[name], optimizer, loss_of, after_step)
            for clips in self.sets.values():
                evaluate(network, clips)

    def _finish(self, method: str, network: nn.Module) -> None:
        """Evaluate, compare with naive, attack, and write model, losses and results."""
        row: dict[str, float | str] = {"method": method}
        for name, clips in self.sets.items():
            row |= {f"{name}_{key}": value for key, value in evaluate(network, clips).items()}
            losses = loss_list(network, clips)
            (self.folder / f"{method}-{name}.csv").write_text("\n".join(map(str, losses)))
            if name == "forget":
                row["mia"] = self._called_nonmember(losses)
        ours, naive = probabilities(network, self.sets["forget"]), probabilities(self.naive, self.sets["forget"])
        row["activation_distance"] = (ours - naive).norm(dim=1).mean().item()
        middle = ((ours + naive) / 2).clamp(min=1e-12).log()
        row["js"] = 0.5 * sum(functional.kl_div(middle, p, reduction="batchmean").item() for p in (ours, naive))
        torch.save(network.state_dict(), self.folder / f"{method}.pt")
        with (self.folder / "results.csv").open("a", newline="") as stream:
            csv.DictWriter(stream, row).writerow(row)

    @torch.no_grad()
    def _called_nonmember(self, losses: Sequence[float]) -> float:
        values = torch.tensor(losses).unsqueeze(1)
        return float(np.mean([attack(values).argmax(dim=1).float().mean().item() for attack in self.attacks]))
