"""SampleCNN: stacked small convolutions on the raw waveform (Lee et al., 2017, https://arxiv.org/abs/1703.01789).

Each layer is as in CLMR (Spijkervet and Burgoyne, 2021, https://arxiv.org/abs/2103.09410).
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.scaling import check_scaling, scaled

SAMPLE_CNN_CHANNELS = (128, 128, 128, 256, 256, 256, 256, 256, 256, 512)
SAMPLE_CNN_XL_CHANNELS = (128, 128, 128, 256, 256, 512, 512, 1024, 1024, 2048)


class SampleCNN(Encoder):
    """Blocks of convolution (kernel 3), batch norm, ReLU and max pooling by 3. A frame covers 3^blocks samples.

    The original flattens its output and therefore accepts exactly 59,049 = 3^10 samples. Here the frames of a longer
    clip are averaged. At 59,049 samples there is one frame, and the result equals the original's.

    Args:
        channels: output channels of the blocks. The first block has stride 3, the others pool by 3, and a last
            convolution keeps the size. With fewer blocks the network is smaller and accepts shorter clips.
        input_norm: scaling of the waveform. "none": as the original. "rms": unit root mean square, so that quiet
            recordings are embedded like loud ones (training clips are peak-normalised, recordings are not).

    Raises:
        InputError: the normalisation is unknown.
    """

    def __init__(self, channels: Sequence[int] = SAMPLE_CNN_CHANNELS, input_norm: str = "none") -> None:
        super().__init__()
        check_scaling("input_norm", input_norm)
        self.channels, self.input_norm = list(channels), input_norm
        first, last = self.channels[0], self.channels[-1]
        blocks = [_block(1, first, stride=3, padding=0)]
        for size_in, size_out in pairwise(self.channels):
            blocks.append(_block(size_in, size_out).append(nn.MaxPool1d(3, stride=3)))
        self.blocks = nn.Sequential(*blocks, _block(last, last))
        self.dim = self.frame_dim = last
        self.minimum_frames = 3 ** len(self.channels)

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, samples // 3^blocks, dim)`."""
        return self.blocks(scaled(features, self.input_norm).unsqueeze(1)).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`, the mean over the frames."""
        return self.frames(features).mean(dim=1)


class SampleCNNXL(SampleCNN):
    """SampleCNN with up to 2,048 channels and 25.2 million parameters; SampleCNN has 2.4 million."""

    def __init__(self, channels: Sequence[int] = SAMPLE_CNN_XL_CHANNELS, input_norm: str = "none") -> None:
        super().__init__(channels, input_norm)


def _block(size_in: int, size_out: int, stride: int = 1, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(size_in, size_out, 3, stride=stride, padding=padding), nn.BatchNorm1d(size_out), nn.ReLU(inplace=True)
    )
