"""Heads: `(batch, in_dim)` -> `(batch, dim)`.

The first argument of a head is the size of its input, so that every head fits every encoder. A method takes
`projection: Callable[[int], nn.Module]` and calls it with the size of the embedding. In YAML:

    projection: {class_path: ssl_audio.heads.MLP, init_args: {dims: [2048, 2048]}}
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError
from ssl_audio.losses import aam_cosines, am_cosines, inter_top_k_cosines

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
MARGINS = ("aam", "am", "none")


class Identity(nn.Module):
    """No head: returns the embedding unchanged."""

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = in_dim

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> the same."""
        return x


class Projection(nn.Module):
    """SiLU, linear layer, L2 normalisation: the projection of the singer models.

    Args:
        in_dim: size of the embedding.
        dim: size of the projection.
        normalize: scale the projection to unit length.

    Example:
        >>> head = Projection(1000, 128)
        >>> head(torch.randn(4, 1000)).shape
        torch.Size([4, 128])
    """

    def __init__(self, in_dim: int, dim: int = 128, normalize: bool = True) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = dim
        self.normalize = normalize
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(in_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> `(batch, dim)`; with `normalize`, float32 and of unit length."""
        x = self.net(x)
        return F.normalize(x.float(), dim=-1) if self.normalize else x


class MLP(nn.Module):
    """Linear layers with an activation and optional batch normalisation between them.

    | head | |
    |---|---|
    | BYOL predictor of the singer models | `MLP(128, [1024, 128], batch_norm=True, normalize=True)` |
    | CLMR projector | `MLP(512, [512, 64], bias=False)` |
    | SimSiam projector | `MLP(2048, [2048, 2048, 2048], batch_norm=True, output_batch_norm=True)` |
    | wav2rec projector | `MLP(2048, [4096, 256], batch_norm=True, bias=True)` |

    Args:
        in_dim: size of the input.
        dims: output size of each linear layer; the last one is the size of the output.
        batch_norm: apply batch normalisation before each activation.
        bias: whether linear layers have a bias. None: only those that no batch normalisation follows.
        activation: relu, silu or gelu.
        output_batch_norm: also apply batch normalisation to the output, without scale and shift (SimSiam).
        normalize: scale the output to unit length, in float32.
        parts: number of vectors that lie side by side in the input. The layers see one of them at a time, and `dim` is
            `parts` times the last of `dims`.

    Raises:
        InputError: `dims` is empty, the activation is unknown, or `parts` does not divide `in_dim`.

    Example:
        >>> head = MLP(512, [512, 64], bias=False)
        >>> head(torch.randn(4, 512)).shape
        torch.Size([4, 64])
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
        parts: int = 1,
    ) -> None:
        super().__init__()
        if not dims:
            raise InputError("dims is empty; give the size of at least one layer, or take ssl_audio.heads.Identity")
        if activation not in ACTIVATIONS:
            raise InputError(f"activation is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}")
        if parts < 1 or in_dim % parts:
            raise InputError(f"MLP.parts is {parts}, which does not divide the size of the input, {in_dim}")
        self.in_dim = in_dim
        self.parts = parts
        self.dims = list(dims)
        self.batch_norm = batch_norm
        self.bias = bias
        self.activation = activation
        self.output_batch_norm = output_batch_norm
        self.normalize = normalize
        self.dim = self.dims[-1] * parts

        layers: list[nn.Module] = []
        for i, (size_in, size_out) in enumerate(zip([in_dim // parts, *self.dims], self.dims, strict=False)):
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
        if self.parts > 1:
            x = x.unflatten(-1, (self.parts, -1)).flatten(0, 1)
        x = self.net(x)
        if self.parts > 1:
            x = x.unflatten(0, (-1, self.parts)).flatten(1)
        return F.normalize(x.float(), dim=-1) if self.normalize else x


class TeacherHead(nn.Module):
    """An embedding -> the space of the teacher whose embeddings it was trained to predict.

    With the head, the student takes the teacher's place beside embeddings that the teacher made. The network predicts
    the difference from the teacher's mean, in units of `length`; `fit` sets both.

    Args:
        in_dim: size of the student's embedding.
        dim: size of the teacher's embedding.
        hidden: size of a hidden layer with SiLU; None for one linear layer.
        normalize: give every output the distance `length` from the mean, as losses on directions leave it open.

    Example:
        >>> head = TeacherHead(128, 256)
        >>> head(torch.randn(4, 128)).shape
        torch.Size([4, 256])
    """

    mean: Tensor
    length: Tensor

    def __init__(self, in_dim: int, dim: int, hidden: int | None = None, normalize: bool = True) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = dim
        self.hidden = hidden
        self.normalize = normalize
        self.net = MLP(in_dim, [dim] if hidden is None else [hidden, dim], bias=True, activation="silu")
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("length", torch.ones(()))

    @torch.no_grad()
    def fit(self, mean: Tensor, length: float) -> None:
        """Set the point `(dim,)` from which the teacher's embeddings are seen, and their root mean square distance."""
        self.mean.copy_(mean)
        self.length.fill_(length)

    def units(self, embeddings: Tensor) -> Tensor:
        """The teacher's embeddings `(batch, dim)` as the network should predict them, float32."""
        return (embeddings.float() - self.mean) / self.length

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> `(batch, dim)`, float32."""
        return self.in_space(self.net(x))

    def in_space(self, predicted: Tensor) -> Tensor:
        """Predictions of the network `(batch, dim)` -> the teacher's space, float32."""
        predicted = predicted.float()
        return self.mean + self.length * (F.normalize(predicted, dim=-1) if self.normalize else predicted)


class DINOHead(nn.Module):
    """The head of DINO: an MLP to a bottleneck of unit length, and its cosines with learned prototypes.

    Caron et al., 2021, https://arxiv.org/abs/2104.14294. The paper's last layer has weight normalisation with a fixed
    gain of 1. That is a product with normalised rows, so `prototypes` is a plain parameter whose length does not
    matter. The bottleneck and the cosines are float32, also under autocast, because half precision has a resolution of
    0.004 for cosines near 1.

    `DINOHead(192)` has 5.1 million parameters and 16.8 million in the prototypes. `DINOHead(512, 1024, [256, 256], 64)`
    suits hundreds, not millions, of recordings.

    Args:
        in_dim: size of the embedding.
        dim: number of prototypes: 65,536 for VoxCeleb2; for little data, 4 to 16 times the number of groups.
        hidden: sizes of the layers before the bottleneck.
        bottleneck_dim: size of the vectors that are compared with the prototypes.
        batch_norm: apply batch normalisation before each activation: on for voices, off in the paper's vision
            transformers.

    Example:
        >>> head = DINOHead(192, dim=1024, hidden=[256, 256], bottleneck_dim=64)
        >>> head(torch.randn(4, 192)).shape
        torch.Size([4, 1024])
    """

    def __init__(
        self,
        in_dim: int,
        dim: int = 65536,
        hidden: Sequence[int] = (2048, 2048),
        bottleneck_dim: int = 256,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = dim
        self.hidden = list(hidden)
        self.bottleneck_dim = bottleneck_dim
        self.batch_norm = batch_norm
        self.mlp = MLP(in_dim, [*self.hidden, bottleneck_dim], batch_norm, bias=True, activation="gelu", normalize=True)
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        bound = bottleneck_dim**-0.5  # as torch initialises a linear layer
        self.prototypes = nn.Parameter(torch.empty(dim, bottleneck_dim).uniform_(-bound, bound))

    def bottleneck(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> `(batch, bottleneck_dim)`, float32 and of unit length. A memory should store these."""
        return self.mlp(x)

    def cosines(self, z: Tensor) -> Tensor:
        """`(batch, bottleneck_dim)` of unit length -> `(batch, dim)` cosines with the prototypes, float32."""
        with torch.autocast(z.device.type, enabled=False):
            return z.float() @ F.normalize(self.prototypes.float(), dim=1).T

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> `(batch, dim)` in [-1, 1], float32."""
        return self.cosines(self.bottleneck(x))


class MarginHead(nn.Module):
    """A classifier by cosines, trained with a margin. For the margins and their papers see `ssl_audio.losses.margin`.

    AAM is `MarginHead(192, num_classes=7500)`. wespeaker has `MarginHead(192, num_classes=7500, centers=3, top_k=5,
    scale=32.0)` for noisy labels.

    Args:
        in_dim: size of the embedding.
        num_classes: number of classes (speakers, pseudo-labels).
        margin_type: aam (additive angular), am (additive), or none.
        margin: the margin; in radians for aam. `logits` accepts another one for a step.
        scale: factor for the cosines.
        centers: number of weights per class, of which the nearest counts; 2 or 3 for noisy labels.
        top_k: number of nearest wrong classes that are made harder; 0: none.
        penalty: penalty of these classes in radians, for a margin of 0.2. It is proportional to the margin.
        continuous: see `ssl_audio.losses.aam_cosines`.

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> head = MarginHead(192, num_classes=10)
        >>> x, labels = torch.randn(4, 192), torch.tensor([0, 3, 3, 9])
        >>> loss = F.cross_entropy(head.logits(x, labels), labels)  # head(x) gives logits without the margin
        >>> loss.shape
        torch.Size([])
    """

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        margin_type: str = "aam",
        margin: float = 0.2,
        scale: float = 30.0,
        centers: int = 1,
        top_k: int = 0,
        penalty: float = 0.06,
        continuous: bool = True,
    ) -> None:
        super().__init__()
        if margin_type not in MARGINS:
            raise InputError(f"margin_type is {margin_type!r}; it must be one of {', '.join(MARGINS)}")
        if num_classes < 2:
            raise InputError(f"num_classes is {num_classes}; a classifier needs at least 2")
        if centers < 1 or top_k < 0:
            raise InputError(f"centers {centers} must be at least 1 and top_k {top_k} at least 0")
        if scale <= 0 or margin < 0:
            raise InputError(f"scale {scale} must be above 0 and margin {margin} not negative")
        self.in_dim = in_dim
        self.num_classes = num_classes
        self.margin_type = margin_type
        self.margin = margin
        self.scale = scale
        self.centers = centers
        self.top_k = top_k
        self.penalty = penalty
        self.continuous = continuous
        self.dim = num_classes
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes * centers, in_dim)))

    def cosines(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> `(batch, classes)` cosines with the nearest weight of each class, float32."""
        with torch.autocast(x.device.type, enabled=False):
            cosines = F.normalize(x.float(), dim=1) @ F.normalize(self.weight.float(), dim=1).T
            return cosines.unflatten(1, (self.num_classes, self.centers)).amax(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_dim)` -> logits `(batch, classes)` without a margin."""
        return self.scale * self.cosines(x)

    def logits(self, x: Tensor, labels: Tensor, margin: float | None = None) -> Tensor:
        """Logits with the margin, for the cross-entropy with `labels`.

        Args:
            x: `(batch, in_dim)`.
            labels: `(batch,)` true classes.
            margin: margin of this step, for example from `schedules.margin_ramp`. None: that of the head.

        Returns:
            `(batch, classes)`, float32.
        """
        margin = self.margin if margin is None else margin
        plain = self.cosines(x)
        cosines = plain
        if self.top_k and margin > 0:
            cosines = inter_top_k_cosines(plain, labels, self.top_k, self.penalty * margin / 0.2)
        if self.margin_type == "am":
            cosines = am_cosines(cosines, labels, margin)
        elif self.margin_type == "aam":
            cosines = aam_cosines(cosines, labels, margin, self.continuous)
        return self.scale * cosines


class ProbeHead(nn.Module):
    """The classifier that a probe fits: standardisation, then one linear layer, or two with a ReLU between them.

    As the head of an `EmbeddingModel` it is saved with its encoder and the names of its classes, so none of the three
    can be mixed up.

    Args:
        in_dim: size of the embedding.
        classes: names of the outputs, in order.
        hidden: size of the hidden layer. None: one linear layer.
        multi_label: a clip has any number of classes (sigmoid); otherwise exactly one (softmax).
        clip_seconds: length in seconds of the clips on which it was fitted; None if unknown.

    Raises:
        InputError: there are no classes, or two have the same name.
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
            raise InputError(f"a head needs classes with different names, got {', '.join(classes) or 'none'}")
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
        """Logits `(batch, classes)` -> probabilities, by a sigmoid for each class or by one softmax."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)

    @torch.no_grad()
    def standardize(self, x: Tensor) -> None:
        """Set mean and deviation from features `(items, in_dim)`. Constant dimensions are mapped to 0."""
        x = x.double()
        mean, deviation = x.mean(dim=0), x.std(dim=0, unbiased=False)
        varies = deviation > 1e-8 * mean.abs() + 1e-12
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / deviation, 0.0))
