"""CCT: the compact convolutional transformer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_mu.models.attention import SelfAttention
from audio_mu.models.base import AudioClassifier, require_shape

_KERNEL = 7


class CCT(AudioClassifier):
    """A convolutional tokenizer, a transformer with learnable positions, and attention pooling.

    After Hassani et al. (2021), "Escaping the big data paradigm with compact transformers"; called CTC in
    the study's keys. Each of the two tokenizer stages halves both directions twice, rounding up: 32 x 63
    gives 2 x 4 = 8 tokens, 257 x 63 gives 17 x 4 = 68.

    `tokenizer_channels` is the width of the first stage, `width` that of the second and of the tokens;
    `stochastic_depth` is the rate of the last layer, the others follow linearly from 0 at the first.
    Dropout and stochastic depth draw from torch's global generator, in train mode only.

    Raises ValueError for an input smaller than one 7 x 7 kernel.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, int],
        *,
        tokenizer_channels: int = 64,
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        mlp_width: int = 512,
        attention_dropout: float = 0.1,
        stochastic_depth: float = 0.1,
    ) -> None:
        super().__init__()
        require_shape("CCT", input_shape, (_KERNEL, _KERNEL))
        if width % heads:
            raise ValueError(f"CCT needs a width that its heads divide, got width {width}, heads {heads}")
        self.tokenizer = nn.Sequential(*_stage(1, tokenizer_channels), *_stage(tokenizer_channels, width))
        self.positions = nn.Parameter(torch.empty(1, _n_tokens(input_shape), width))
        rates = [stochastic_depth * layer / max(1, depth - 1) for layer in range(depth)]
        self.layers = nn.Sequential(*(CCTLayer(width, heads, mlp_width, attention_dropout, rate) for rate in rates))
        self.norm = nn.LayerNorm(width)
        self.pool = SequencePool(width)
        self.head = nn.Linear(width, n_classes)
        self._initialise()

    def penultimate(self, features: Tensor) -> Tensor:
        """[batch, 1, frequencies, frames] → [batch, width], the pooled tokens."""
        tokens = self.tokenizer(features).flatten(2).transpose(1, 2)
        return self.pool(self.norm(self.layers(tokens + self.positions)))

    def last_block(self) -> list[nn.Module]:
        """The last transformer layer, the final norm, the pooling and the head."""
        return [self.layers[-1], self.norm, self.pool, self.head]

    def _initialise(self) -> None:
        """Linear weights N(0, 0.02) cut at ±2 with zero biases, convolutions Kaiming, positions N(0, 0.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.trunc_normal_(self.positions, std=0.2)


class CCTLayer(nn.Module):
    """One transformer layer, [batch, tokens, width] → the same shape.

    x + drop(attention(norm x)), then with x = norm of that: x + drop(mlp(x)). The second residual branch
    starts from the normalised tokens, which is where CCT departs from a pre-norm transformer. `drop` is
    stochastic depth (Huang et al. 2016).
    """

    def __init__(self, width: int, heads: int, mlp_width: int, attention_dropout: float, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, width // heads, dropout=attention_dropout, output_bias=True)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._drop(self.attention(self.attention_norm(tokens)))
        tokens = self.mlp_norm(tokens)
        return tokens + self._drop(self.mlp(tokens))

    def _drop(self, branch: Tensor) -> Tensor:
        """Zero the branch for whole clips at `drop_rate`, scale the rest by 1 / (1 - drop_rate)."""
        if not self.training or self.drop_rate == 0:
            return branch
        return branch * F.dropout(branch.new_ones(len(branch), 1, 1), self.drop_rate)


class SequencePool(nn.Module):
    """Mean of the tokens, weighted by the softmax of a learned score.

    [batch, tokens, width] → [batch, width].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        weights = self.score(tokens).softmax(dim=1)
        return (weights.transpose(1, 2) @ tokens).squeeze(1)


def _stage(channels_in: int, channels_out: int) -> list[nn.Module]:
    """One tokenizer stage; ReLU after the pool, where it gives the same for a quarter of the work.

    The padding of a max-pool counts as minus infinity, never as the maximum, so the order is free here too.
    """
    return [
        nn.Conv2d(channels_in, channels_out, _KERNEL, stride=2, padding=3, bias=False),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    ]


def _n_tokens(input_shape: tuple[int, int]) -> int:
    """Tokens that the tokenizer gives: four halvings of each direction, each rounded up."""
    frequencies, frames = (-(-size // 16) for size in input_shape)
    return frequencies * frames
