"""ECAPA-TDNN, a common network for voices (Desplanques et al., 2020, https://arxiv.org/abs/2005.07143)."""

import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder, check_bands
from ssl_audio.errors import InputError
from ssl_audio.pooling import ECAPA_FORMS, ECAPAPooling

DILATIONS = (2, 3, 4)


class ECAPATDNN(Encoder):
    """Dilated 1-D convolutions with squeeze and excitation, then attentive statistics pooling.

    Two published implementations differ:

    | | wespeaker | speechbrain (also sslsv) |
    |---|---|---|
    | padding of convolutions | zeros | reflection |
    | group of a block that is not convolved | the last of eight | the first |
    | layer over all blocks | 1,536 channels, no batch norm | three times the channels of a block, batch norm |
    | pooling | `ECAPAPooling(form="wespeaker")` | `ECAPAPooling(form="speechbrain")` |

    | network | | parameters |
    |---|---|---|
    | wespeaker's c512 with context | `ECAPATDNN()` | 6.19 million |
    | wespeaker's c1024 with context | `ECAPATDNN(1024)` | 14.66 million |
    | sslsv's | `ECAPATDNN(1024, 512, form="speechbrain")` | 22.73 million |
    | enough for a test | `ECAPATDNN(16, 8, mfa_channels=24)` | |

    Args:
        channels: channels of the blocks, a multiple of 8; 512 and 1,024 are published.
        embedding_dim: size of the linear layer after the pooling.
        n_mels: number of mel bands.
        form: wespeaker or speechbrain.
        context: give the unweighted statistics of the clip to the attention of the pooling.
        mfa_channels: channels of the layer over all blocks (multi-layer feature aggregation). None: those of the form.
        normalize: apply batch normalisation to the embedding, as wespeaker does in self-supervised training.

    Raises:
        InputError: the form is unknown, or `channels` is not a multiple of 8.
    """

    def __init__(
        self,
        channels: int = 512,
        embedding_dim: int = 192,
        n_mels: int = 80,
        form: str = ECAPA_FORMS[0],
        context: bool = True,
        mfa_channels: int | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if form not in ECAPA_FORMS:
            raise InputError(f"ECAPATDNN.form is {form!r}; it must be one of {', '.join(ECAPA_FORMS)}")
        if channels < 8 or channels % 8:
            raise InputError(f"ECAPATDNN.channels is {channels}; it must be a multiple of 8, as a block has 8 groups")
        self.channels, self.embedding_dim, self.n_mels = channels, embedding_dim, n_mels
        self.form, self.context, self.mfa_channels, self.normalize = form, context, mfa_channels, normalize
        self.reflects = form == "speechbrain"
        self.stem = ConvUnit(n_mels, channels, 5, reflect=self.reflects)
        self.blocks = nn.ModuleList(SERes2Block(channels, dilation, self.reflects) for dilation in DILATIONS)
        joined = len(DILATIONS) * channels
        aggregated = mfa_channels or (joined if self.reflects else 1536)
        self.mfa: nn.Module
        if self.reflects:
            self.mfa = ConvUnit(joined, aggregated)
        else:
            self.mfa = nn.Sequential(nn.Conv1d(joined, aggregated, 1), nn.ReLU())
        self.pooling = ECAPAPooling(aggregated, context=context, form=form)
        self.pooled_norm = nn.BatchNorm1d(self.pooling.dim)
        self.projection = nn.Linear(self.pooling.dim, embedding_dim)
        self.norm = nn.BatchNorm1d(embedding_dim) if normalize else nn.Identity()
        self.dim, self.frame_dim = embedding_dim, aggregated
        # Reflection needs one frame more than it adds at each end.
        self.minimum_frames = max(DILATIONS) + 1 if self.reflects else 1

    def frames(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, frames, frame_dim)`; for `mask` see `forward`.

        Raises:
            InputError: the number of bands is not `n_mels`, or a mask is given and the form is speechbrain.
        """
        check_bands(self, features, self.n_mels)
        if mask is not None and self.reflects:
            raise InputError(
                "ECAPATDNN of form speechbrain takes no mask, because it reflects the clip's end; embed equal lengths"
            )
        x = self.stem(features, mask)
        outputs = []
        for block in self.blocks:
            x = block(x, mask)
            outputs.append(x)
        return self.mfa(torch.cat(outputs, dim=1)).transpose(1, 2)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`.

        Args:
            features: features of clips, of equal length or padded.
            mask: `(batch, frames)`, true for frames of the clip and false for padding. In evaluation mode, the
                embedding is then the same as without the padding.
        """
        return self.norm(self.projection(self.pooled_norm(self.pooling(self.frames(features, mask), mask))))


class ConvUnit(nn.Module):
    """Convolution that keeps the length, ReLU, then batch normalisation, in the published order."""

    def __init__(self, size_in: int, size_out: int, kernel: int = 1, dilation: int = 1, reflect: bool = False) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(
            size_in,
            size_out,
            kernel,
            dilation=dilation,
            padding=padding,
            padding_mode="reflect" if reflect else "zeros",
        )
        self.norm = nn.BatchNorm1d(size_out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, size_in, frames)` -> `(batch, size_out, frames)`. Frames outside the mask count as zeros."""
        if mask is not None:
            x = x * mask.unsqueeze(1)
        return self.norm(self.conv(x).relu())


class Res2(nn.Module):
    """Convolutions on groups of channels. The input of each is its group plus the output of the previous group.

    Gao et al., 2019, https://arxiv.org/abs/1904.01169. One group, the first or the last, is not convolved.
    """

    def __init__(self, channels: int, dilation: int, reflect: bool, first_passes: bool, groups: int = 8) -> None:
        super().__init__()
        self.groups = groups
        self.first_passes = first_passes
        width = channels // groups
        self.units = nn.ModuleList(ConvUnit(width, width, 3, dilation, reflect) for _ in range(groups - 1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, channels, frames) -> the same shape."""
        groups = x.chunk(self.groups, dim=1)
        passes, convolved = (groups[0], groups[1:]) if self.first_passes else (groups[-1], groups[:-1])
        outputs: list[Tensor] = []
        for unit, group in zip(self.units, convolved, strict=True):
            outputs.append(unit(group + outputs[-1] if outputs else group, mask))
        return torch.cat([passes, *outputs] if self.first_passes else [*outputs, passes], dim=1)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a factor that depends on the mean of all channels over time.

    Hu et al., 2017, https://arxiv.org/abs/1709.01507.
    """

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, channels, frames) -> the same shape."""
        valid = x if mask is None else x * mask.unsqueeze(1)
        frames = x.shape[2] if mask is None else mask.sum(dim=1, keepdim=True)
        return x * self.gate(valid.sum(dim=2) / frames).unsqueeze(2)


class SERes2Block(nn.Module):
    """1x1 unit, `Res2`, 1x1 unit, squeeze and excitation, and a shortcut around them."""

    def __init__(self, channels: int, dilation: int, speechbrain: bool) -> None:
        super().__init__()
        self.before = ConvUnit(channels, channels)
        self.res2 = Res2(channels, dilation, reflect=speechbrain, first_passes=speechbrain)
        self.after = ConvUnit(channels, channels)
        self.excitation = SqueezeExcitation(channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, channels, frames) -> the same shape."""
        return x + self.excitation(self.after(self.res2(self.before(x), mask)), mask)
