"""A transformer on a random subset of the patches of a mel spectrogram: masking in place of augmentation.

Yonay and others, "Myna: masking-based contrastive learning of musical representations", 2025,
https://arxiv.org/abs/2502.12511; the network is the small vision transformer of Dosovitskiy et al., 2021,
https://arxiv.org/abs/2010.11929.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder, check_bands
from ssl_audio.encoders.vit import TransformerLayer
from ssl_audio.errors import InputError


class PatchTransformer(Encoder):
    """Patches, fixed sine positions, transformer layers, and the mean over the patches; no class token.

    In training, each clip keeps a random part of its patches and the layers see no others, so that a step costs a
    fraction. Two crops of a recording, masked apart, are the views of a contrastive method. In evaluation mode nothing
    is masked. Frames that do not fill a patch at the end of a clip are left out.

    With several sizes of patches, one transformer sees the clip once for each, and the vectors lie side by side;
    `methods.NTXent(parts=2)` with `heads.MLP(parts=2)` takes the mean of their losses.

    Args:
        n_mels: number of mel bands.
        patches: (bands, frames) of each size of patch; bands must divide `n_mels`. (n_mels, 2) is a vertical stripe.
        mask: fraction of the patches that is dropped in training, in [0, 1).
        embedding_dim: size of the tokens, a multiple of 4.
        depth: number of layers.
        heads: number of attention heads, of `embedding_dim / heads` numbers.
        mlp_dim: hidden size of the MLP.
        dropout: probability for attention output and MLP, in training.

    Raises:
        InputError: a patch does not divide the bands, or a number is out of its range.

    Example:
        >>> encoder = PatchTransformer(128, embedding_dim=32, depth=2, heads=2, mlp_dim=64).eval()
        >>> encoder(torch.randn(3, 128, 96)).shape
        torch.Size([3, 32])
    """

    def __init__(
        self,
        n_mels: int = 128,
        patches: Sequence[Sequence[int]] = ((16, 16),),
        mask: float = 0.9,
        embedding_dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_dim: int = 1536,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for size in patches:
            if len(size) != 2 or min(size) < 1 or n_mels % size[0]:
                raise InputError(f"PatchTransformer.patches has {list(size)}; give bands that divide {n_mels}, frames")
        if not patches or not 0 <= mask < 1:
            raise InputError(f"PatchTransformer has {len(patches)} patches and mask {mask}; give a patch, and 0 to 1")
        if embedding_dim % 4 or embedding_dim % heads:
            raise InputError(f"PatchTransformer.embedding_dim is {embedding_dim}; take a multiple of 4 and of heads")
        self.n_mels, self.patches, self.mask = n_mels, [list(size) for size in patches], mask
        self.embedding_dim, self.depth, self.heads = embedding_dim, depth, heads
        self.mlp_dim, self.dropout = mlp_dim, dropout
        self.embeddings = nn.ModuleList(
            nn.Conv2d(1, embedding_dim, (bands, frames), stride=(bands, frames)) for bands, frames in patches
        )
        self.layers = nn.Sequential(
            *(TransformerLayer(embedding_dim, heads, embedding_dim // heads, mlp_dim, dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(embedding_dim)
        self.minimum_frames = max(frames for _, frames in patches)
        self.dim = embedding_dim * len(patches)
        self.frame_dim = embedding_dim if len(patches) == 1 else None

    def tokens(self, features: Tensor, size: int = 0) -> tuple[Tensor, int]:
        """`(batch, bands, frames)` -> `(batch, rows * columns, embedding_dim)` without mask, before the layers; rows.

        The tokens come row by row, from the lowest bands.

        Raises:
            InputError: the number of bands is not `n_mels`.
        """
        check_bands(self, features, self.n_mels)
        x = self.embeddings[size](features.unsqueeze(1))
        rows, columns = x.shape[-2:]
        return x.flatten(2).transpose(1, 2) + sine_positions(rows, columns, self.embedding_dim).to(x), rows

    def kept(self, tokens: int) -> int:
        """How many of so many tokens a clip keeps in training, at least one."""
        return max(1, round(tokens * (1 - self.mask)))

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, frames // patch frames, frame_dim)`: the mean over each column.

        Raises:
            InputError: there are several sizes of patches, which have different frames.
        """
        if self.frame_dim is None:
            return super().frames(features)
        x, rows = self.tokens(features)
        return self.norm(self.layers(x)).unflatten(1, (rows, -1)).mean(dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        vectors = []
        for size in range(len(self.patches)):
            x, _ = self.tokens(features, size)
            if self.training and self.mask:
                x = random_subset(x, self.kept(x.shape[1]))
            vectors.append(self.norm(self.layers(x)).mean(dim=1))
        return torch.cat(vectors, dim=1)


def random_subset(tokens: Tensor, count: int) -> Tensor:
    """`count` tokens of each clip, drawn without replacement by sorting noise on the device, in their order.

    Args:
        tokens: `(batch, tokens, dim)`.
        count: from 1 to the number of tokens.

    Returns:
        `(batch, count, dim)`.
    """
    noise = torch.rand(tokens.shape[:2], device=tokens.device)
    places = noise.argsort(dim=1)[:, :count].sort(dim=1).values
    return tokens.gather(1, places.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def sine_positions(rows: int, columns: int, dim: int) -> Tensor:
    """`(rows * columns, dim)`: sines and cosines of the row in the first half, of the column in the second.

    The frequencies fall from 1 to 1 / 10,000 (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762).
    """
    quarter = dim // 4
    frequency = torch.exp(torch.arange(quarter) * (-math.log(10000) / max(quarter - 1, 1)))

    def encoded(count: int) -> Tensor:
        angle = torch.arange(count).unsqueeze(1) * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    down = encoded(rows).unsqueeze(1).expand(-1, columns, -1)
    across = encoded(columns).unsqueeze(0).expand(rows, -1, -1)
    return torch.cat([down, across], dim=2).flatten(0, 1)
