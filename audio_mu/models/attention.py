"""Multi-head self-attention as the two transformers of the study define it."""

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Scaled dot-product self-attention (Vaswani et al. 2017), [batch, tokens, width] → the same shape.

    Per head: softmax(Q Kᵀ / √head_width) V; the heads side by side are projected back to `width`.
    Torch's `nn.MultiheadAttention` does not fit: CCT has a bias on the output projection alone, and the
    heads of ViT (6 x 64 = 384) do not add up to its width (512).

    `dropout` drops attention weights, in train mode only.
    """

    def __init__(self, width: int, heads: int, head_width: int, *, dropout: float = 0.0, output_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=output_bias)

    def forward(self, tokens: Tensor) -> Tensor:
        # Parts side by side: their gradients are joined without the copies that a stacked split asks for.
        parts = self.query_key_value(tokens).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))
