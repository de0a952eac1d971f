"""A problem that a small network learns, forget set included, in a fraction of a second."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from audio_mu.models import AudioClassifier, build, tiny
from audio_mu.models.pretrained import Encoder
from audio_mu.models.sharded import Sharded
from audio_mu.seeding import seeded
from audio_mu.sharding import seed_of, train_base
from audio_mu.training import Examples, OptimizerSettings, predict
from audio_mu.unlearning import Settings, Unlearned, run_method

N_CLASSES, N_TEST = 4, 80
SMALL_SHAPE, STUDY_SHAPE = (16, 16), (32, 63)
OF_WAVEFORMS = "a network of the user's own, on waveforms"
NORMALISED, FROZEN = "a network of normalised batches", "a network with a frozen front"
SHARDED = "networks of two shards"
ENCODER = "a tiny pretrained encoder of waveforms"
SMALL_VGGISH = {"blocks": ((8,), (8,)), "hidden": 64}
RECIPE = Settings(OptimizerSettings("adam", 0.003), batch_size=4, n_epochs=24, n_epoch_repair=5)


class OfWaveforms(AudioClassifier):
    """[b, 1, samples] → logits, with normalised batches, as in networks of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        steps = (nn.Conv1d(1, 8, 32, stride=16), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 5, stride=4), nn.ReLU())
        self.layers = nn.Sequential(*steps, nn.AdaptiveAvgPool1d(4), nn.Flatten())
        self.head = nn.Linear(32, N_CLASSES)

    def penultimate(self, features: Tensor) -> Tensor:
        return self.layers(features)

    def last_block(self) -> list[nn.Module]:
        return [self.layers[3], self.head]


class Normalised(AudioClassifier):
    """[b, 1, 16, 16] → logits, batches normalised before and in the last block, where one clip alone cannot be."""

    def __init__(self) -> None:
        super().__init__()
        front = nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()
        middle = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
        self.layers = nn.Sequential(*front, *middle, nn.Linear(200, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.head = nn.Linear(64, N_CLASSES)

    def penultimate(self, features: Tensor) -> Tensor:
        return self.layers(features)

    def last_block(self) -> list[nn.Module]:
        return [self.layers[7], self.layers[8], self.head]


class Frozen(Normalised):
    """The same with a front that is frozen, and a bias in its last block."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[:2].requires_grad_(False)
        self.layers[8].bias.requires_grad_(False)


class TinyEncoder(Encoder):
    """[b, 1, 1600] → logits: a pretrained encoder's classes with a few weights, its front frozen."""

    def __init__(self) -> None:
        super().__init__(N_CLASSES, (1, 1_600))

    @staticmethod
    def network() -> nn.Module:
        layers = [(8, 10, 5), (8, 3, 4), (8, 3, 4)]
        return torchaudio.models.wav2vec2_model(
            "group_norm", layers, False, 16, 0.1, 8, 4, 2, 2, 0.1, 32, 0.0, 0.1, False, 0.0, None
        )


OWN: dict[str, type[AudioClassifier]] = {
    OF_WAVEFORMS: OfWaveforms, NORMALISED: Normalised, FROZEN: Frozen, ENCODER: TinyEncoder,
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A base model and its clips: the first `n_train` are the training set, the others test clips."""

    base: nn.Module
    initialise: Callable[[int], nn.Module]
    features: Tensor
    labels: Tensor
    n_train: int
    forget: Tensor
    settings: Settings
    shard_of: Tensor | None = None

    @property
    def remain(self) -> Tensor:
        """Training clips that are not to be forgotten."""
        return torch.tensor(np.setdiff1d(np.arange(self.n_train), self.forget.numpy()))

    @property
    def test(self) -> Tensor:
        """Clips that no method may see."""
        return torch.arange(self.n_train, len(self.labels))

    @property
    def sets(self) -> Mapping[str, Examples]:
        """What a task is given."""
        return {
            "forget": Examples(self.features, self.labels, self.forget),
            "remain": Examples(self.features, self.labels, self.remain),
        }

    def run(
        self, method: str, *, seed: int = 40, request: str = "item", hyper_parameters: dict[str, Any] | None = None
    ) -> Unlearned:
        """Unlearn with a registered method."""
        return run_method(
            method, seed, self.base, self.initialise, self.sets, self.settings, N_CLASSES,
            request=request, hyper_parameters=hyper_parameters, shard_of=self.shard_of,
        )  # fmt: skip

    def changed(self, **settings: Any) -> Problem:
        """The same problem under other settings."""
        return replace(self, settings=replace(self.settings, **settings))

    def forgetting(self, forget: list[int]) -> Problem:
        """The same problem with another forget set."""
        return replace(self, forget=torch.tensor(forget))

    def poisoned(self, *, unread: set[str]) -> Problem:
        """The same problem with the test clips, and the clips of unread sets, replaced by NaN with label 0."""
        rows = [self.test, *(self.sets[name].indices for name in unread)]
        features, labels = self.features.clone(), self.labels.clone()
        features[torch.cat(rows)] = torch.nan
        labels[torch.cat(rows)] = 0
        return replace(self, features=features, labels=labels)

    def loss(self, network: nn.Module, rows: Tensor) -> float:
        """Mean cross-entropy on clips of this problem."""
        logits = torch.from_numpy(predict(network, self.features, rows))
        return float(functional.cross_entropy(logits, self.labels[rows]))

    def test_accuracy(self, network: nn.Module) -> float:
        """Share of the test clips that are answered rightly."""
        answers = predict(network, self.features, self.test).argmax(1)
        return float((answers == self.labels[self.test].numpy()).mean())


def small_problem(
    architecture: str | None = None,
    *,
    shape: tuple[int, ...] = SMALL_SHAPE,
    n_train: int = 64,
    settings: Settings = RECIPE,
    shards: int = 1,
) -> Problem:
    """A trained base, channels_last, of a tiny architecture, or of a smaller VGGish where none is named.

    Classes are random patterns under noise; an eighth of the training labels is wrong, so that what the base
    knows of these clips, it learned by heart. Four clips after four others are on the next shard.
    """
    draw = torch.Generator().manual_seed(7)
    n = n_train + N_TEST
    patterns = torch.randn(N_CLASSES, 1, *shape, generator=draw)
    labels = torch.arange(n) % N_CLASSES
    features = patterns[labels] + 0.6 * torch.randn(n, 1, *shape, generator=draw)
    wrong = torch.randperm(n_train, generator=draw)[: n_train // 8]
    labels[wrong] = (labels[wrong] + 1) % N_CLASSES
    forget = torch.randperm(n_train, generator=draw)[: n_train // 4].sort().values
    own = OWN.get(architecture or "")
    widths = {} if own else SMALL_VGGISH if architecture is None else tiny(architecture)

    def alone(seed: int) -> nn.Module:
        with seeded(seed):
            if own is not None:
                return own()
            return build(architecture or "VGGish", shape, N_CLASSES, **widths).to(memory_format=torch.channels_last)

    def initialise(seed: int) -> nn.Module:
        return alone(seed) if shards == 1 else Sharded(alone(seed_of(seed, shard)) for shard in range(shards))

    shard_of = None if shards == 1 else torch.arange(n) // N_CLASSES % shards
    base = train_base(
        initialise, Examples(features, labels, torch.arange(n_train)), settings.optimizer,
        epochs=settings.n_epochs, batch_size=settings.batch_size, seed=40, shard_of=shard_of,
    )  # fmt: skip
    return Problem(base, initialise, features, labels, n_train, forget, settings, shard_of)


@cache
def trained(architecture: str | None = None, shards: int = 1) -> Problem:
    """The problem as it is by default; no test may change it. With a network of one's own one clip is left over."""
    if architecture is None:
        return small_problem(shards=shards)
    return small_problem(architecture, n_train=65, settings=replace(RECIPE, batch_size=8), shards=shards)


def weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of everything that the network holds."""
    return copy.deepcopy(dict(network.state_dict()))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two states agree bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
