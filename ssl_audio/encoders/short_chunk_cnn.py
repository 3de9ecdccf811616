"""Short-chunk CNN with residual connections on mel spectrograms (Won et al., 2020, https://arxiv.org/abs/2006.00751)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

from ssl_audio.encoders.base import Encoder


class ShortChunkCNN(Encoder):
    """Seven residual 3x3 blocks. Each block halves bands and frames; the maximum over time gives the vector.

    With 128 mel bands, one band remains, as in the original. If more remain, the maximum is taken over them too.

    Args:
        channels: output channels of the blocks.
        embedding_dim: size of the dense layer after the pooling, which has batch norm and ReLU. None: the channels of
            the last block.
        dropout: probability for the output, in training. The original has 0.5 before its classifier.
    """

    def __init__(
        self,
        channels: Sequence[int] = (128, 128, 256, 256, 256, 256, 512),
        embedding_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.embedding_dim, self.dropout = list(channels), embedding_dim, dropout
        sizes = [1, *self.channels]
        self.norm = nn.BatchNorm2d(1)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(sizes)))
        self.frame_dim = sizes[-1]
        self.dim = embedding_dim or self.frame_dim
        self.dense = nn.Sequential(
            nn.Linear(self.frame_dim, self.dim), nn.BatchNorm1d(self.dim), nn.ReLU(), nn.Dropout(dropout)
        )
        self.minimum_frames = 1

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, frames / 2^blocks, frame_dim)`."""
        return self.blocks(self.norm(features.unsqueeze(1))).amax(dim=2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.dense(self.frames(features).amax(dim=1))


class ResidualBlock(nn.Module):
    """`relu(body(x) + shortcut(x))` with a stride in the first convolution of both.

    Body: 3x3 convolution, batch norm, ReLU, 3x3 convolution, batch norm. Shortcut: 3x3 convolution, batch norm.
    """

    def __init__(self, size_in: int, size_out: int, stride: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(size_in, size_out, 3, stride=stride, padding=1),
            nn.BatchNorm2d(size_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(size_out, size_out, 3, padding=1),
            nn.BatchNorm2d(size_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(size_in, size_out, 3, stride=stride, padding=1), nn.BatchNorm2d(size_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, size_in, bands, frames)` -> `(batch, size_out, bands / stride, frames / stride)`."""
        return relu(self.body(x) + self.shortcut(x))
