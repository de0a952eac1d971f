"""VGGish: a small convolutional network in the manner of VGG, for short clips."""

from torch import Tensor, nn

from audio_mu.models.base import AudioClassifier, require_shape


class VGGish(AudioClassifier):
    """Blocks of 3x3 convolutions, each block ended by a 2x2 max-pool, then three linear layers.

    After Hershey et al. (2017), "CNN architectures for large-scale audio classification", itself after
    Simonyan and Zisserman (2015), at the study's widths; no batch normalisation, no dropout.

    `blocks` lists the channels of the convolutions between two pools; `hidden` is the width of the two
    hidden linear layers. Any input that outlasts the pools works: with four of them 16 x 16 or more.

    Raises ValueError for a smaller input.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, int],
        *,
        blocks: tuple[tuple[int, ...], ...] = ((32,), (32,), (64, 64), (128, 32)),
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        shrink = 2 ** len(blocks)
        require_shape("VGGish", input_shape, (shrink, shrink))
        self.convolutions = _convolutions(blocks)
        flat = blocks[-1][-1] * (input_shape[0] // shrink) * (input_shape[1] // shrink)
        self.hidden = nn.Sequential(
            nn.Linear(flat, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(hidden, n_classes)

    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, frequencies, frames] → [batch, hidden], the second hidden layer after its ReLU."""
        # flatten, not view: it gives the order (channel, frequency, frame) whatever the memory format,
        # so weights mean the same with channels_last, where a view of the maps is impossible.
        return self.hidden(self.convolutions(features).flatten(1))

    def last_block(self) -> list[nn.Module]:
        """The last two linear layers."""
        return [self.hidden[2], self.head]


def _convolutions(blocks: tuple[tuple[int, ...], ...]) -> nn.Sequential:
    """[batch, 1, frequencies, frames] → [batch, blocks[-1][-1], frequencies // 2ⁿ, frames // 2ⁿ]."""
    layers: list[nn.Module] = []
    channels = 1
    for block in blocks:
        for position, width in enumerate(block, start=1):
            layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
            # ReLU is monotonic, so it commutes with the maximum: pool first and ReLU has a quarter of the
            # values to go through. Gradients agree too: a positive maximum sits at the same place in both
            # orders, and where no value of a window is positive both orders send back zero.
            if position == len(block):
                layers.append(nn.MaxPool2d(2))
            layers.append(nn.ReLU(inplace=True))
            channels = width
    return nn.Sequential(*layers)
