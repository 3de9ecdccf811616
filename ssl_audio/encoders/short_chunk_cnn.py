"""Short-chunk CNN with residual connections on mel images (Won et al., 2020, https://arxiv.org/abs/2006.00751)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

from ssl_audio.encoders.base import Encoder


class ShortChunkCNN(Encoder):
    """Seven residual 3x3 blocks, each halving bands and frames; the maximum over time makes the vector.

    With 128 mel bands one band is left at the end, as in the original; with more, the maximum is taken over them too.

    Args:
        channels: output channels of the blocks.
        embedding_dim: size of the dense layer (with batch norm and ReLU) after the pooling; None: as the last block.
        dropout: of the output while training; the original has .5 before its classifier.
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
        """(batch, bands, frames) -> (batch, frames / 2^blocks, frame_dim)."""
        return self.blocks(self.norm(features.unsqueeze(1))).amax(dim=2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> (batch, dim)."""
        return self.dense(self.frames(features).amax(dim=1))


class ResidualBlock(nn.Module):
    """conv3x3/2 - BN - ReLU - conv3x3 - BN plus conv3x3/2 - BN, then ReLU."""

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
        """(batch, size_in, bands, frames) -> (batch, size_out, bands / stride, frames / stride)."""
        return relu(self.body(x) + self.shortcut(x))
