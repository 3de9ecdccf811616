"""Heads: `(batch, in_dim)` -> `(batch, dim)`. Each is made with its input size first, so that any fits any encoder:

    projection: Callable[[int], nn.Module]

In YAML: `projection: {class_path: ssl_audio.heads.MLP, init_args: {dims: [2048, 2048]}}`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class Identity(nn.Module):
    """No head: the embedding itself."""

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = in_dim

    def forward(self, x: Tensor) -> Tensor:
        return x


class Projection(nn.Module):
    """SiLU, Linear, L2 normalisation: the projection of the singer models.

    Args:
        in_dim: size of the embedding.
        dim: size of the projection.
        normalize: scale the projection to unit length.
    """

    def __init__(self, in_dim: int, dim: int = 128, normalize: bool = True) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = dim
        self.normalize = normalize
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(in_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> `(batch, dim)`; float32 and of unit length when normalised."""
        x = self.net(x)
        return F.normalize(x.float(), dim=-1) if self.normalize else x


class MLP(nn.Module):
    """Linear layers with an activation, and optionally batch normalisation, between them.

        MLP(128, [1024, 128], batch_norm=True, normalize=True)                     BYOL predictor of the singer models
        MLP(512, [512, 64], bias=False)                                            CLMR projector
        MLP(2048, [2048, 2048, 2048], batch_norm=True, output_batch_norm=True)     SimSiam projector
        MLP(2048, [4096, 256], batch_norm=True, bias=True)                         wav2rec projector

    Args:
        in_dim: size of the input.
        dims: sizes after each Linear; the last one is the output.
        batch_norm: normalise before each activation.
        bias: of the Linear layers. None: wherever no batch normalisation follows, which has its own.
        activation: relu, silu or gelu.
        output_batch_norm: normalise the output by batch as well, without scale and shift (SimSiam).
        normalize: scale the output to unit length, in float32.
    """

    def __init__(
        self,
        in_dim: int,
        dims: Sequence[int],
        batch_norm: bool = False,
        bias: bool | None = None,
        activation: str = "relu",
        output_batch_norm: bool = False,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if not dims:
            raise InputError("dims is empty; give the size of at least one layer, or use ssl_audio.heads.Identity")
        if activation not in ACTIVATIONS:
            raise InputError(f"activation is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}")
        self.in_dim = in_dim
        self.dims = list(dims)
        self.batch_norm = batch_norm
        self.bias = bias
        self.activation = activation
        self.output_batch_norm = output_batch_norm
        self.normalize = normalize
        self.dim = self.dims[-1]

        layers: list[nn.Module] = []
        for i, (size_in, size_out) in enumerate(zip([in_dim, *self.dims], self.dims, strict=False)):
            is_last = i == len(self.dims) - 1
            has_norm = output_batch_norm if is_last else batch_norm
            layers.append(nn.Linear(size_in, size_out, bias=not has_norm if bias is None else bias))
            if has_norm:
                layers.append(nn.BatchNorm1d(size_out, affine=not is_last))
            if not is_last:
                layers.append(ACTIVATIONS[activation]())
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> `(batch, dim)`."""
        x = self.net(x)
        return F.normalize(x.float(), dim=-1) if self.normalize else x


class ProbeHead(nn.Module):
    """Standardise, then one Linear, or two with a ReLU between them: what a probe fits, and what names the tags.

    As the head of an `EmbeddingModel` it travels with its encoder, so that neither the order of the classes nor the
    encoder can be mispaired.

    Args:
        in_dim: size of the embedding.
        classes: names of the outputs, in order.
        hidden: size of the hidden layer; None for a linear head.
        multi_label: any number of classes a clip (sigmoid) or exactly one (softmax).
        clip_seconds: length of the clips that it was fitted on, for those who apply it; None if unknown.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        in_dim: int,
        classes: Sequence[str],
        hidden: int | None = None,
        multi_label: bool = False,
        clip_seconds: float | None = None,
    ) -> None:
        super().__init__()
        if len(set(classes)) != len(classes) or not classes:
            raise InputError(f"the classes of a head must have different names, got {', '.join(classes) or 'none'}")
        self.in_dim = in_dim
        self.classes = list(classes)
        self.hidden = hidden
        self.multi_label = multi_label
        self.clip_seconds = clip_seconds
        self.dim = len(self.classes)
        self.register_buffer("mean", torch.zeros(in_dim))
        self.register_buffer("scale", torch.ones(in_dim))  # one over the deviation; 0 for a constant dimension
        sizes = [in_dim, self.dim] if hidden is None else [in_dim, hidden, self.dim]
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        if hidden is not None:
            layers += [nn.ReLU(), nn.Linear(sizes[1], sizes[2])]
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> logits `(batch, classes)`."""
        return self.net((x - self.mean) * self.scale)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits `(batch, classes)` -> probabilities: a sigmoid a class, or one softmax."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)

    @torch.no_grad()
    def standardize(self, x: Tensor) -> None:
        """Take mean and deviation from features `(items, in_dim)`; a constant dimension says nothing and becomes 0."""
        x = x.double()
        mean, deviation = x.mean(dim=0), x.std(dim=0, unbiased=False)
        varies = deviation > 1e-8 * mean.abs() + 1e-12
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / deviation, 0.0))
