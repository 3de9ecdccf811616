"""SampleCNN: stacked small convolutions on the raw waveform (Lee et al., 2017, https://arxiv.org/abs/1703.01789).

The encoder of CLMR (Spijkervet & Burgoyne, 2021, https://arxiv.org/abs/2103.09410), layer for layer.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.scaling import check_scaling, scaled

SAMPLE_CNN_CHANNELS = (128, 128, 128, 256, 256, 256, 256, 256, 256, 512)
SAMPLE_CNN_XL_CHANNELS = (128, 128, 128, 256, 256, 512, 512, 1024, 1024, 2048)


class SampleCNN(Encoder):
    """Blocks of convolution (kernel 3), batch norm, ReLU and max pooling by 3; one frame every 3^blocks samples.

    The original flattens its output, so it accepts 59,049 = 3^10 samples and nothing else. Here the frames of a longer
    clip are averaged; at 59,049 samples there is one frame and the result is the original's.

    Args:
        channels: output channels of the blocks. The first block strides by 3, every other pools by 3; a last
            convolution keeps the size. Fewer blocks make a smaller network with a shorter minimum.
        input_norm: how a waveform is scaled: "none" as the original, or "rms" to unit root mean square, so that quiet
            recordings are embedded as loud ones are (training clips are peak-normalised, recordings are not).

    Raises:
        InputError: an unknown normalisation.
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
        """(batch, samples) -> (batch, samples // 3^blocks, dim)."""
        return self.blocks(scaled(features, self.input_norm).unsqueeze(1)).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, samples) -> (batch, dim), the mean over frames."""
        return self.frames(features).mean(dim=1)


class SampleCNNXL(SampleCNN):
    """SampleCNN with up to 2,048 channels: 25.2 instead of 2.4 million parameters."""

    def __init__(self, channels: Sequence[int] = SAMPLE_CNN_XL_CHANNELS, input_norm: str = "none") -> None:
        super().__init__(channels, input_norm)


def _block(size_in: int, size_out: int, stride: int = 1, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(size_in, size_out, 3, stride=stride, padding=padding), nn.BatchNorm1d(size_out), nn.ReLU(inplace=True)
    )
