"""The interface of the networks: logits, penultimate features, and the last block."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class AudioClassifier(nn.Module, ABC):
    """A network from features of one clip to logits, with a linear `head` as its last layer.

    Input: float32 [batch, 1, frequencies, frames]; output: float32 [batch, n_classes].
    """

    head: nn.Linear

    @abstractmethod
    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, frequencies, frames] → [batch, d], the input of the last linear layer."""

    @abstractmethod
    def last_block(self) -> list[nn.Module]:
        """The modules of the last block and of the head, in the order in which they are applied."""

    def forward(self, features: Tensor) -> Tensor:
        """[batch, 1, frequencies, frames] → logits [batch, n_classes]."""
        return self.head(self.penultimate(features))


def require_shape(name: str, input_shape: tuple[int, int], smallest: tuple[int, int]) -> None:
    """Raise ValueError when `input_shape` = (frequencies, frames) is below `smallest` in either direction."""
    if input_shape[0] < smallest[0] or input_shape[1] < smallest[1]:
        raise ValueError(
            f"{name} needs an input of at least {smallest[0]} frequencies x {smallest[1]} frames, "
            f"got {input_shape[0]} x {input_shape[1]}: use longer clips or another architecture"
        )
