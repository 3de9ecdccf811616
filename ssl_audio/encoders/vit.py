"""Vision Transformer for one-channel mel spectrograms (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.resnet import square
from ssl_audio.errors import InputError


class VisionTransformer(Encoder):
    """A pre-norm transformer on square patches of the mel spectrogram. The vector is the class token.

    The position embeddings are learned for a square image of `image_size` and interpolated (bicubic) to the patches of
    the actual image. So any number of bands and frames is accepted without resizing; zeros complete the last patches.
    Sizes and defaults are those of wav2rec, which has no normalisation after the last layer.

    Args:
        image_size: number of bands and of frames for which positions are learned.
        patch_size: number of bands and of frames of a patch.
        embedding_dim: size of the tokens.
        depth: number of layers.
        heads, head_dim: number and size of the attention heads.
        mlp_dim: hidden size of the MLP.
        dropout: probability for attention output, MLP and embeddings, in training.
        resize: resize the image to a square of this size by nearest neighbour; wav2rec uses 256. None keeps the image.

    Raises:
        InputError: `image_size` is not a multiple of `patch_size`.
    """

    def __init__(
        self,
        image_size: int = 256,
        patch_size: int = 32,
        embedding_dim: int = 1024,
        depth: int = 6,
        heads: int = 8,
        head_dim: int = 64,
        mlp_dim: int = 2048,
        dropout: float = 0.0,
        resize: int | None = None,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise InputError(f"image_size {image_size} must be a multiple of patch_size {patch_size}")
        self.image_size, self.patch_size, self.embedding_dim = image_size, patch_size, embedding_dim
        self.depth, self.heads, self.head_dim, self.mlp_dim = depth, heads, head_dim, mlp_dim
        self.dropout, self.resize = dropout, resize
        self.grid = image_size // patch_size
        self.norm = nn.BatchNorm2d(1)
        self.patches = nn.Conv2d(1, embedding_dim, patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.randn(1, self.grid**2 + 1, embedding_dim))
        self.class_token = nn.Parameter(torch.randn(1, 1, embedding_dim))
        self.drop = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            *(TransformerLayer(embedding_dim, heads, head_dim, mlp_dim, dropout) for _ in range(depth))
        )
        self.dim = self.frame_dim = embedding_dim
        self.minimum_frames = 1

    def tokens(self, features: Tensor) -> tuple[Tensor, int, int]:
        """`(batch, bands, frames)` -> tokens `(batch, 1 + rows * columns, dim)`, rows, columns.

        The first token is the class token; then come the patches, row by row.
        """
        image = self.norm(square(features.unsqueeze(1), self.resize))
        image = pad(
            image, (0, _missing(image.shape[-1], self.patch_size), 0, _missing(image.shape[-2], self.patch_size))
        )
        patches = self.patches(image)
        rows, columns = patches.shape[-2:]
        x = torch.cat([self.class_token.expand(image.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return self.layers(self.drop(x + self._positions(rows, columns))), rows, columns

    def _positions(self, rows: int, columns: int) -> Tensor:
        # Under export, the branch below would fix the number of columns.
        exporting = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if not exporting and rows == columns == self.grid:
            return self.positions
        down, across = (_resampling(self.grid, size).to(self.positions) for size in (rows, columns))
        grid = self.positions[0, 1:].unflatten(0, (self.grid, self.grid))
        grid = torch.einsum("rg,ch,ghd->rcd", down, across, grid)
        return torch.cat([self.positions[:, :1], grid.flatten(0, 1).unsqueeze(0)], dim=1)

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, ceil(frames / patch_size), frame_dim)`: the mean over each column."""
        x, rows, columns = self.tokens(features)
        return x[:, 1:].unflatten(1, (rows, columns)).mean(dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`, the class token."""
        return self.tokens(features)[0][:, 0]


def _resampling(size: int, new: int) -> Tensor:
    """`(new, size)` weights of bicubic interpolation.

    Interpolation by a matrix product has a deterministic gradient on every device.
    """
    rows = torch.eye(size).view(1, 1, size, size)
    return interpolate(rows, size=(new, size), mode="bicubic", align_corners=False)[0, 0]


def _missing(size: int, patch: int) -> int:
    """Zeros that complete the last patch. (torch's exporter cannot find a bound for `-size % patch`.)"""
    return (size + patch - 1) // patch * patch - size


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and GELU MLP, each with a residual connection."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)
        self.drop = nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, tokens, dim)` -> the same shape."""
        query, key, value = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = x + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.mlp(x)
