"""The study's way of working, told again plainly.

Tests hold this project's fast ways to its figures, and `benchmarks.speed` measures this project against its speed.
One file a clip, a list of tensors, a DataLoader of 256 with its default collation, a plain loop that asks for the loss
after every step, activations before pooling, attention written out, evaluation of every set after each epoch and each
method, and the loss of every clip by itself. Written from a description of the study, not from its code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchaudio.transforms import MelSpectrogram

from audio_mu.models import AudioClassifier, build
from audio_mu.models.attention import SelfAttention

BATCH, SAMPLES, RATE, MOMENTUM = 256, 16_000, 0.01, 0.9
BINS = 15


class ClipList(Dataset):
    """Clips as a list of tensors [1, f, t] and a list of labels."""

    def __init__(self, features: Sequence[Tensor], labels: Sequence[int]) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.features[index], self.labels[index]

    def part(self, indices: Sequence[int]) -> ClipList:
        """These clips alone."""
        return ClipList([self.features[i] for i in indices], [self.labels[i] for i in indices])


def preprocess(recordings: Sequence[Path], folder: Path) -> list[Path]:
    """Transform one recording after the other, each into a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_preprocess_one(recording, folder) for recording in recordings]


def _preprocess_one(recording: Path, folder: Path) -> Path:
    samples, _ = soundfile.read(recording, dtype="float32", always_2d=True)
    waveform = torch.from_numpy(samples.T.copy()).mean(dim=0, keepdim=True)
    waveform = functional.pad(waveform[:, :SAMPLES], (0, max(0, SAMPLES - waveform.shape[1])))
    transform = MelSpectrogram(sample_rate=16_000, n_fft=512, win_length=512, hop_length=256, n_mels=32)
    path = folder / f"{recording.parent.name}_{recording.stem}.pt"
    torch.save((transform(waveform), int(recording.name.split("_")[0])), path)
    return path


def load(files: Sequence[Path]) -> ClipList:
    """The clips of these files, read one after the other."""
    pairs = [torch.load(path, weights_only=True) for path in files]
    return ClipList([features for features, _ in pairs], [label for _, label in pairs])


class PlainAttention(nn.Module):
    """Self-attention written out, with the weights of another one."""

    def __init__(self, other: SelfAttention) -> None:
        super().__init__()
        self.heads, self.query_key_value, self.output = other.heads, other.query_key_value, other.output
        self.dropout = nn.Dropout(other.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.query_key_value(tokens).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        weights = self.dropout((query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1))
        return self.output((weights @ value).transpose(1, 2).flatten(2))


def plain(network: AudioClassifier) -> AudioClassifier:
    """A copy of a network that computes the same as the study wrote it: ReLU before pooling, in memory of its own, and
    attention by hand.
    """
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in list(network.modules()):
        if isinstance(module, nn.ReLU):
            module.inplace = False
        elif isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                if isinstance(module[i], nn.MaxPool2d) and isinstance(module[i + 1], nn.ReLU):
                    module[i], module[i + 1] = module[i + 1], module[i]
        elif isinstance(getattr(module, "attention", None), SelfAttention):
            module.attention = PlainAttention(module.attention)
    return network


def new_network(architecture: str, seed: int, shape: tuple[int, int] = (32, 63), n_classes: int = 10) -> nn.Module:
    """A plain network with weights drawn from the seed."""
    torch.manual_seed(seed)
    return plain(build(architecture, shape, n_classes))


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    """SGD as the study sets it."""
    return torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)


def batches(
    network: nn.Module, clips: ClipList, size: int = BATCH, shuffle: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of a DataLoader, one after the other copied to where the network is."""
    device = next(network.parameters()).device
    for features, labels in DataLoader(clips, batch_size=size, shuffle=shuffle):
        yield features.to(device), labels.to(device)


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def cross_entropy(network: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a batch."""
    return functional.cross_entropy(network(features), labels)


def train_epoch(
    network: nn.Module,
    clips: ClipList,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss = cross_entropy,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """One pass in random order; the mean loss."""
    network.train()
    total = 0.0
    for features, labels in batches(network, clips, shuffle=True):
        optimizer.zero_grad()
        loss = loss_of(network, features, labels)
        loss.backward()
        optimizer.step()
        after_step()
        total += loss.item() * len(labels)
    return total / len(clips)


@torch.no_grad()
def evaluate(network: nn.Module, clips: ClipList) -> dict[str, float]:
    """Accuracy, loss and expected calibration error, in one pass."""
    network.eval()
    correct, loss, confidences, hits = 0, 0.0, [], []
    for features, labels in batches(network, clips):
        logits = network(features)
        confidence, answers = logits.softmax(dim=1).max(dim=1)
        correct += (answers == labels).sum().item()
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        confidences.append(confidence)
        hits.append(answers == labels)
    confidence, hit = torch.cat(confidences), torch.cat(hits).float()
    bins = torch.bucketize(confidence, torch.linspace(0, 1, BINS + 1, device=confidence.device)[1:-1])
    gaps = [
        abs(confidence[bins == b].mean() - hit[bins == b].mean()).item() * (bins == b).float().mean().item()
        for b in bins.unique()
    ]
    return {"accuracy": correct / len(clips), "loss": loss / len(clips), "ece": sum(gaps)}


@torch.no_grad()
def loss_list(network: nn.Module, clips: ClipList) -> list[float]:
    """The loss of every clip, asked for one by one."""
    network.eval()
    return [
        functional.cross_entropy(network(features), labels).item() for features, labels in batches(network, clips, 1)
    ]


def split(ids: Sequence[str], percentage: int) -> tuple[list[str], list[str]]:
    """Forget and remain ids of a training set: every id is looked for in the list of those drawn."""
    n = -(-len(ids) * percentage // 100)
    forget = np.random.default_rng(42).choice(ids, size=n, replace=False).tolist()
    return forget, [clip for clip in ids if clip not in forget]
