"""EfficientNet on spectrogram images (Tan and Le, 2019, https://arxiv.org/abs/1905.11946), as torchvision computes it.

The network comes from `efficientnet_pytorch`, but the published singer models and the ImageNet weights are those of
torchvision. This module changes the settings that differ and translates the names of the weights.

| | `efficientnet_pytorch` (as TensorFlow) | torchvision |
|---|---|---|
| padding | asymmetric "same" | symmetric, `(kernel - 1) // 2` |
| batch-norm epsilon | 1e-3 | 1e-5 |
| batch-norm momentum | 0.01 | 0.1 |
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.pooling import AttentiveStatisticsPooling, MeanPooling
from ssl_audio.weights import load_strict

BACKBONES = ("efficientnet_b0", "efficientnet_b4", "efficientnet_b0_att")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_URLS = {
    "efficientnet_b0": "https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth",
    "efficientnet_b4": "https://download.pytorch.org/models/efficientnet_b4_rwightman-23ab8bcd.pth",
}


class EfficientNet(Encoder):
    """`(batch, bands, frames)` -> `(batch, embedding_dim)`, for any number of bands and frames.

    The spectrogram is copied to three channels and normalised with ImageNet's mean and deviation. The feature map is
    averaged over frequency (`frames`) and over time, and a linear layer gives the embedding.

    Args:
        backbone: `efficientnet_b0`, `efficientnet_b4` or `efficientnet_b0_att`. The last one, of the code of the singer
            models, replaces the mean over time and the linear layer by a 1x1 convolution in two groups to
            `embedding_dim / 2` channels, attentive statistics pooling over time, and batch normalisation.
        embedding_dim: size of the embedding.
        pretrained: start from torchvision's ImageNet weights. The last layer is included only if `embedding_dim` is
            1000. The weights are downloaded once and cached; see `load_imagenet_weights`.
        dropout: probability for the features before the linear layer, in training.
        stochastic_depth: probability to skip the last residual block, in training. For earlier blocks it falls linearly
            to zero at the first one. It is drawn for each clip (torchvision's "row" mode, with its default).
        batch_norm_momentum: weight of the new batch in the running statistics. With the 0.01 of `efficientnet_pytorch`
            they stay wrong for hundreds of steps.

    Raises:
        InputError: the backbone is unknown, or `embedding_dim` is no multiple of 4 with attention.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_b0",
        embedding_dim: int = 1000,
        pretrained: bool = False,
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,
        batch_norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise InputError(f"backbone is {backbone!r}; it must be one of {', '.join(BACKBONES)}")
        self.backbone = backbone
        self.embedding_dim = embedding_dim
        self.pretrained = pretrained
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.batch_norm_momentum = batch_norm_momentum

        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.net = _network(backbone.removesuffix("_att"), stochastic_depth, batch_norm_momentum)
        channels = self.net._conv_head.out_channels
        self.frame_dim = channels
        self.dim = embedding_dim
        if backbone.endswith("_att"):
            self.pooling: nn.Module = _grouped_attention(channels, embedding_dim)
            self.classifier: nn.Module = nn.BatchNorm1d(embedding_dim, momentum=batch_norm_momentum)
        else:
            self.pooling = MeanPooling(channels)
            self.classifier = nn.Sequential(nn.Dropout(dropout), _linear(channels, embedding_dim))
        if pretrained:
            load_imagenet_weights(self)

    def before_loading(self, weights: Mapping[str, Tensor]) -> None:
        """Take the form of weights that 0.1 saved: its attention had more groups and saw the clip's statistics."""
        convolution, attention = (weights.get(f"pooling.{key}.weight") for key in ("0.layer", "1.attention.0"))
        if convolution is not None and attention is not None and attention.shape[-1] == 3 * len(convolution):
            channels = cast(int, self.frame_dim)
            groups = channels // convolution.shape[1]
            self.pooling = _grouped_attention(channels, self.embedding_dim, groups, AttentiveStatisticsPooling)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, embedding_dim)`."""
        return self.classifier(self.pooling(self.frames(features)))

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, ceil(frames / 32), frame_dim)`: the map's mean over frequency."""
        image = ((features.unsqueeze(1) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.net.extract_features(image).mean(dim=2).transpose(1, 2)


def torchvision_names(encoder: EfficientNet) -> dict[str, str]:
    """{our name: torchvision's name} of every layer with weights; the layers of the attention as the singer models'."""
    from efficientnet_pytorch.utils import round_repeats

    net: Any = encoder.net
    names = {"net._conv_stem": "features.0.0", "net._bn0": "features.0.1"}
    index = 0
    for stage, arguments in enumerate(net._blocks_args, start=1):
        for repeat in range(round_repeats(arguments.num_repeat, net._global_params)):
            ours, theirs = f"net._blocks.{index}", f"features.{stage}.{repeat}.block"
            layer = 0
            if hasattr(net._blocks[index], "_expand_conv"):
                names |= {f"{ours}._expand_conv": f"{theirs}.0.0", f"{ours}._bn0": f"{theirs}.0.1"}
                layer = 1
            names |= {
                f"{ours}._depthwise_conv": f"{theirs}.{layer}.0",
                f"{ours}._bn1": f"{theirs}.{layer}.1",
                f"{ours}._se_reduce": f"{theirs}.{layer + 1}.fc1",
                f"{ours}._se_expand": f"{theirs}.{layer + 1}.fc2",
                f"{ours}._project_conv": f"{theirs}.{layer + 2}.0",
                f"{ours}._bn2": f"{theirs}.{layer + 2}.1",
            }
            index += 1
    head = f"features.{len(net._blocks_args) + 1}"
    names |= {"net._conv_head": f"{head}.0", "net._bn1": f"{head}.1"}
    if not encoder.backbone.endswith("_att"):
        return names | {"classifier.1": "classifier.1"}
    names = {ours: theirs.replace("features.", "vision.", 1) for ours, theirs in names.items()}
    return names | {
        "pooling.0.layer": "att.0",
        "pooling.1.attention.0": "att.1.network.0",
        "pooling.1.attention.2": "att.1.network.2",
        "classifier": "bn1",
    }


def to_torchvision(weights: Mapping[str, Tensor], encoder: EfficientNet) -> dict[str, Tensor]:
    """Rename the keys of the encoder's state dict to torchvision's."""
    renamed = _rename(weights, torchvision_names(encoder))
    return {
        key: value[..., None] if ".network." in key and value.ndim == 2 else value for key, value in renamed.items()
    }


def from_torchvision(weights: Mapping[str, Tensor], encoder: EfficientNet) -> dict[str, Tensor]:
    """Rename the keys of a torchvision state dict to the encoder's. Keys that torchvision does not have are kept."""
    renamed = _rename(weights, {theirs: ours for ours, theirs in torchvision_names(encoder).items()})
    # the singer models' attention has convolutions of length 1 where ours has linear layers
    return {key: value[..., 0] if ".attention." in key and value.ndim == 3 else value for key, value in renamed.items()}


def load_imagenet_weights(encoder: EfficientNet) -> None:
    """Load torchvision's ImageNet weights into the encoder. The last layer is included if it has 1000 outputs.

    The file is downloaded once to torch's hub folder (`TORCH_HOME`) and checked by the hash in its name.

    Raises:
        InputError: no connection, a file with the wrong checksum, or weights that do not fit.
    """
    url = IMAGENET_URLS[encoder.backbone.removesuffix("_att")]
    try:
        weights = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"cannot fetch the ImageNet weights from {url} ({reason}); put that file into "
            f"{torch.hub.get_dir()}/checkpoints, or set pretrained: false"
        ) from error
    except RuntimeError as error:  # raised by torch for a wrong hash and for a damaged file
        raise InputError(f"the ImageNet weights from {url} are damaged ({error}); try again") from error
    if encoder.backbone.endswith("_att"):
        weights = {key.replace("features.", "vision.", 1): value for key, value in weights.items()}
    weights = from_torchvision(weights, encoder)
    if encoder.backbone.endswith("_att") or encoder.embedding_dim != len(weights["classifier.1.bias"]):
        weights = {key: value for key, value in weights.items() if key.startswith("net.")}
    kept = {key: value for key, value in encoder.state_dict().items() if not key.startswith("net.")}
    load_strict(encoder, {**kept, **weights}, url)


def _rename(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in weights.items():
        layer, _, leaf = key.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{leaf}"] = value
    return renamed


def _linear(in_dim: int, out_dim: int) -> nn.Linear:
    """A linear layer, initialised as in torchvision's EfficientNet."""
    linear = nn.Linear(in_dim, out_dim)
    nn.init.uniform_(linear.weight, -1 / math.sqrt(out_dim), 1 / math.sqrt(out_dim))
    nn.init.zeros_(linear.bias)
    return linear


class _PlainAttention(AttentiveStatisticsPooling):
    """Attention that sees the frames alone, with the singer models' lower limit of the variance."""

    def __init__(self, in_dim: int) -> None:
        super().__init__(in_dim, context=False)

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, 2 * in_dim)`: means, then deviations."""
        weights = self.attention(frames).softmax(dim=1)
        mean = (frames * weights).sum(dim=1)
        variance = ((frames - mean.unsqueeze(1)).square() * weights).sum(dim=1)
        return torch.cat([mean, variance.clamp_min(1e-9).sqrt()], dim=-1)


def _grouped_attention(
    in_channels: int, embedding_dim: int, groups: int = 2, pooling: Callable[[int], nn.Module] = _PlainAttention
) -> nn.Module:
    if embedding_dim % 4:
        raise InputError(f"embedding_dim is {embedding_dim}; with attention it must be a multiple of 4")
    channels = embedding_dim // 2
    convolution = nn.Conv1d(in_channels, channels, 1, groups=groups)
    return nn.Sequential(_Channels(convolution), pooling(channels))


class _Channels(nn.Module):
    """Applies a layer for `(batch, channels, frames)` to `(batch, frames, channels)`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, frames: Tensor) -> Tensor:
        return self.layer(frames.transpose(1, 2)).transpose(1, 2)


def _network(name: str, stochastic_depth: float, batch_norm_momentum: float) -> Any:
    """`efficientnet_pytorch`'s network without its last layer, with torchvision's padding and batch-norm settings."""
    from efficientnet_pytorch import EfficientNet as Network

    net = Network.from_name(
        name.replace("_", "-"),
        include_top=False,
        drop_connect_rate=stochastic_depth,
        batch_norm_momentum=1 - batch_norm_momentum,  # TensorFlow's momentum is the weight of the old statistics
        batch_norm_epsilon=1e-5,
    )
    for module in list(net.modules()):
        for child_name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(module, child_name, _torchvision_convolution(child))
        if hasattr(module, "_swish"):
            module._swish = nn.SiLU()  # needs as little memory, is faster, and can be exported
    return net


class _DepthwiseConv2d(nn.Conv2d):
    """Trains in float32 even under bfloat16 autocast on a CPU, where its backward pass is up to five times as fast."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


def _torchvision_convolution(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with torchvision's padding and new weights."""
    size, stride, bias = conv.kernel_size[0], conv.stride[0], conv.bias is not None
    kind = nn.Conv2d if conv.groups == 1 else _DepthwiseConv2d
    new = kind(
        conv.in_channels, conv.out_channels, size, stride, padding=(size - 1) // 2, groups=conv.groups, bias=bias
    )
    # The fan-out counts the filters of one group, as in the original. torchvision counts all filters; depthwise weights
    # become so small that an untrained network in evaluation mode gives vectors of length 1e-12.
    nn.init.normal_(new.weight, std=math.sqrt(2 * conv.groups / (size * size * conv.out_channels)))
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new
