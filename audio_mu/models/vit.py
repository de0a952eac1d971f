"""ViT: a plain vision transformer over patches of whole spectrogram columns."""

import torch
from torch import Tensor, nn

from audio_mu.models.attention import SelfAttention
from audio_mu.models.base import AudioClassifier, require_shape

_SPECTROGRAM_FREQUENCIES = 257


class ViT(AudioClassifier):
    """Patches of all frequencies x `patch_frames` frames, a pre-norm transformer, mean pooling.

    After Beyer et al. (2022), "Better plain ViT baselines for ImageNet-1k": fixed sine-cosine positions, no
    class token, no dropout. `patch_frames` None takes the study's: 9 frames for its 257 frequencies,
    3 otherwise. Where the patches do not divide the frames, the last frame is repeated to fill the last
    patch: no sound is lost, and no value comes in that the representation does not have (zero is silence
    in mel, but full scale in decibels).

    Raises ValueError for fewer frames than one patch or a width the positions cannot have.
    """

    positions: Tensor

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, int],
        *,
        patch_frames: int | None = None,
        width: int = 512,
        depth: int = 6,
        heads: int = 6,
        head_width: int = 64,
        mlp_width: int = 1024,
    ) -> None:
        super().__init__()
        frequencies, frames = input_shape
        self.patch_frames = default_patch_frames(frequencies) if patch_frames is None else patch_frames
        require_shape("ViT", input_shape, (1, self.patch_frames))
        self.filling = -frames % self.patch_frames
        patch = frequencies * self.patch_frames
        self.embedding = nn.Sequential(nn.LayerNorm(patch), nn.Linear(patch, width), nn.LayerNorm(width))
        # Not persistent: it follows from the shape, and a state_dict then holds what is trained alone.
        n_patches = (frames + self.filling) // self.patch_frames
        self.register_buffer("positions", sine_cosine_positions(1, n_patches, width), persistent=False)
        self.layers = nn.Sequential(*(ViTLayer(width, heads, head_width, mlp_width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, frequencies, frames] → [batch, width], the mean of the tokens after the last norm."""
        tokens = self.embedding(self._patches(features)) + self.positions
        return self.norm(self.layers(tokens)).mean(dim=1)

    def last_block(self) -> list[nn.Module]:
        """The last transformer layer, the final norm and the head; mean pooling has no parameters."""
        return [self.layers[-1], self.norm, self.head]

    def _patches(self, features: Tensor) -> Tensor:
        """[batch, 1, frequencies, frames] → [batch, patches, frequencies · patch_frames]."""
        columns = features.squeeze(1)
        if self.filling:
            last = columns[..., -1:].expand(-1, -1, self.filling)
            columns = torch.cat([columns, last], dim=-1)
        return columns.unflatten(-1, (-1, self.patch_frames)).transpose(1, 2).flatten(2)


class ViTLayer(nn.Module):
    """One pre-norm layer, [batch, tokens, width] → the same: x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, width: int, heads: int, head_width: int, mlp_width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, head_width, output_bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(tokens)


def default_patch_frames(frequencies: int) -> int:
    """Frames a patch spans in the study: 9 for a spectrogram of 257 frequencies, 3 for mel bands."""
    return 9 if frequencies == _SPECTROGRAM_FREQUENCIES else 3


def sine_cosine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed two-dimensional positions, float32 [rows · columns, width], row by row.

    With `width` / 4 frequencies that fall geometrically from 1 to 1 / 10,000 (Vaswani et al. 2017, for two
    directions as in Beyer et al. 2022), the four quarters of a position's vector are sine and cosine of its
    column, then sine and cosine of its row.

    Raises ValueError for a width that is not a multiple of 4, or below 8.
    """
    if width % 4 or width < 8:
        raise ValueError(f"sine-cosine positions need a width of 8, 12, 16, ..., got {width}")
    frequencies = torch.logspace(0, -4, width // 4, dtype=torch.float64)
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    across, down = (place.reshape(-1, 1) * frequencies for place in (column, row))
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=1).float()
