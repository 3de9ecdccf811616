"""The music taggers of the package musicnn 0.1.0. Only their weights are read; the package is never imported.

The network has convolutions with tall (timbral) and long (temporal) kernels, then three layers over time. It was
trained to predict 50 tags of MagnaTagATune (MTT) or of the Million Song Dataset (MSD); Pons and Serra, 2019,
https://arxiv.org/abs/1909.06654. Licence of package and weights: ISC.
"""

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.clips import ClipEncoder, at_least
from ssl_audio.errors import InputError
from ssl_audio.frontends import MelSpectrogram
from ssl_audio.utils.tensorflow_files import read_checkpoint

SAMPLE_RATE, BANDS, PATCH = 16000, 96, 187  # Hz, mel bands, frames (3 s)
VECTORS = {"penultimate": 200, "pooled": 1506}
TRAINED_ON = ("MTT", "MSD")
_FRONT = ((7, 38, 204), (7, 67, 204), (128, 1, 51), (64, 1, 51), (32, 1, 51))  # frames, bands, channels
_MIDDLE = 64


class Musicnn(ClipEncoder):
    """Waveforms at 16 kHz -> `(batch, 200)` or `(batch, 1506)`: the mean over patches of 3 s.

    The embedding depends on the level of the clip, which is not normalised. Patches do not overlap, and an incomplete
    last patch is dropped, as in the package. A clip shorter than a patch is one patch.

    Args:
        vector: `penultimate` (200 numbers) is the layer before the tags. `pooled` (1,506 numbers) is the maximum and
            the mean over time of all layers below it.
        short, batched: see `ClipEncoder`.
    """

    shortest = 512  # one window of the mel spectrum

    def __init__(self, vector: str = "penultimate", short: str = "refuse", batched: bool = True) -> None:
        super().__init__(short, batched)
        if vector not in VECTORS:
            raise InputError(f"vector is {vector!r}; it must be one of {', '.join(VECTORS)}")
        self.vector = vector
        self.dim = VECTORS[vector]
        self.mel = MelSpectrogram(SAMPLE_RATE, 512, 256, BANDS, edges="zeros")
        self.input_norm = nn.BatchNorm2d(1, eps=1e-3)
        self.front = nn.ModuleList(_Front(*shape) for shape in _FRONT)
        width = sum(channels for _, _, channels in _FRONT)
        self.middle = nn.ModuleList(_Middle(size, _MIDDLE) for size in (width, _MIDDLE, _MIDDLE))
        pooled = 2 * (width + len(self.middle) * _MIDDLE)
        self.pooled_norm = nn.BatchNorm1d(pooled, eps=1e-3)
        self.dense = nn.Linear(pooled, VECTORS["penultimate"])
        self.dense_norm = nn.BatchNorm1d(VECTORS["penultimate"], eps=1e-3)

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        mel = self.log_mel(clips)
        size = PATCH - at_least(PATCH - mel.shape[1], 0)
        count = mel.shape[1] // size
        patches = mel[:, : count * size].unflatten(1, (count, size)).flatten(0, 1)
        vectors = self.pooled(patches)
        if self.vector == "penultimate":
            vectors = self.dense_norm(self.penultimate(vectors))
        return vectors.unflatten(0, (-1, count)).mean(dim=1)

    def log_mel(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, 96)`."""
        return torch.log10(10000 * self.mel(clips) + 1).transpose(1, 2)

    def pooled(self, patches: Tensor) -> Tensor:
        """`(patches, frames, 96)` -> `(patches, 1506)`: for each channel, the maximum and the mean over time."""
        image = self.input_norm(patches.unsqueeze(1))
        layers = [torch.cat([front(image) for front in self.front], dim=1)]  # (patches, channels, frames)
        for i, middle in enumerate(self.middle):
            above = middle(layers[-1])
            layers.append(above + layers[-1] if i else above)
        everything = torch.cat(layers, dim=1)
        return torch.stack([everything.amax(dim=2), everything.mean(dim=2)], dim=2).flatten(1)

    def penultimate(self, pooled: Tensor) -> Tensor:
        """`(patches, 1506)` -> `(patches, 200)`, before the batch normalisation."""
        return torch.relu(self.dense(self.pooled_norm(pooled)))


class _Front(nn.Module):
    """A convolution, then the maximum over bands: `(batch, 1, frames, bands)` -> `(batch, channels, frames)`."""

    def __init__(self, frames: int, bands: int, channels: int) -> None:
        super().__init__()
        self.around = (0, 0, (frames - 1) // 2, frames // 2)
        self.conv = nn.Conv2d(1, channels, (frames, bands))
        self.norm = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(F.pad(image, self.around)))).amax(dim=3)


class _Middle(nn.Module):
    """A convolution over time: `(batch, size, frames)` -> `(batch, channels, frames)`."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(size, channels, 7, padding=3)
        self.norm = nn.BatchNorm1d(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x)))


def package_weights(prefix: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict of a `Musicnn` from a checkpoint of the package, such as `musicnn/MTT_musicnn/`.

    Raises:
        InputError: the file is damaged, or it is another file.
    """
    found = {name: torch.from_numpy(value) for name, value in read_checkpoint(prefix).items()}
    norms = ["input_norm", *(f"front.{i}.norm" for i in range(5)), *(f"middle.{i}.norm" for i in range(3))]
    norms += ["pooled_norm", "dense_norm"]
    convolutions = [*(f"front.{i}.conv" for i in range(5)), *(f"middle.{i}.conv" for i in range(3))]
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    try:
        state = {
            f"{ours}.{name}": found[f"{_numbered('batch_normalization', i)}/{theirs}"]
            for i, ours in enumerate(norms)
            for name, theirs in parts.items()
        }
        for i, ours in enumerate(convolutions):
            kernel = found[f"{_numbered('conv2d', i)}/kernel"].permute(3, 2, 0, 1)
            if ours.startswith("middle"):  # (out, 1, frames, size): the size is a picture's width there
                kernel = kernel.squeeze(1).transpose(1, 2)
            state |= {f"{ours}.weight": kernel.contiguous(), f"{ours}.bias": found[f"{_numbered('conv2d', i)}/bias"]}
        state |= {"dense.weight": found["dense/kernel"].T.contiguous(), "dense.bias": found["dense/bias"]}
    except KeyError as error:
        raise InputError(f"{prefix}: has no {error.args[0]}; is it a musicnn of the package 0.1.0?") from error
    return state | {f"{name}.num_batches_tracked": torch.tensor(0) for name in norms}


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name
