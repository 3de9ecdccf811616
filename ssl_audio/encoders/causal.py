"""A causal transformer layer with relative positions (Shaw et al., 2018, https://arxiv.org/abs/1803.02155)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class CausalTransformerLayer(nn.Module):
    """Post-norm self-attention and a ReLU network. A frame attends to itself and to earlier frames.

    With `max_distance`, the score of query i and key j is `q_i (k_j + r_{i-j}) / sqrt(head dim)`. All heads share the
    table r. Distances from `max_distance - 1` up share its last entry.

    Args:
        dim: size of a frame.
        heads: number of attention heads; must divide `dim`.
        feedforward: hidden size of the ReLU network.
        dropout: probability for attention weights and for the hidden layer.
        max_distance: number of entries of the table r. None: no relative positions.
    """

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, max_distance: int | None) -> None:
        super().__init__()
        self.dim, self.heads, self.feedforward = dim, heads, feedforward
        self.dropout, self.max_distance = dropout, max_distance
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.attention_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, feedforward), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(feedforward, dim)
        )
        self.mlp_norm = nn.LayerNorm(dim)
        self.relative_keys: nn.Parameter | None = None
        if max_distance is not None:
            self.relative_keys = nn.Parameter(torch.randn(max_distance, dim // heads) / math.sqrt(dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, frames, dim)` -> the same shape."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        if self.relative_keys is None:
            attended = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        else:
            mask = self._relative_scores(query, self.relative_keys)
            attended = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        x = self.attention_norm(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.mlp_norm(x + self.mlp(x))

    @staticmethod
    def _relative_scores(query: Tensor, keys: Tensor) -> Tensor:
        """The part of the scores that depends on distance; -inf for later frames.

        `(batch, heads, frames, head dim)` and `(distances, head dim)` -> `(batch, heads, frames, frames)`.
        """
        frame = torch.arange(query.shape[2], device=query.device)
        distance = frame[:, None] - frame
        scores = query @ keys.T.to(query.dtype) / math.sqrt(query.shape[-1])
        index = distance.clamp(0, len(keys) - 1).expand(*scores.shape[:2], -1, -1)
        return scores.gather(3, index).masked_fill(distance < 0, -torch.inf)


def sinusoidal_positions(frames: int, dim: int, device: torch.device) -> Tensor:
    """`(frames, dim)` sines and cosines (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762)."""
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    angle = torch.arange(frames, device=device).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim]
