"""The base classes of batch transforms, chains of transforms, and what the transforms share.

A batch transform is a module with `forward(clips, sample_rate, generator)`: `(batch, samples)` -> the same shape. It

- works on the device of the clips;
- draws its parameters for each clip, from a generator on that device;
- never makes the host wait for the device;
- never changes its input in place.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ssl_audio.augmentations.base import check_probability
from ssl_audio.errors import InputError

# Number of samples that are processed at once, by type of device; see `in_pieces`.
PIECE = defaultdict(lambda: 2**25, cpu=2**19)


class BatchTransform(nn.Module):
    """A transform that is applied to each clip with probability `p`, independently of the others.

    A subclass defines `transform`, which draws the parameters and changes all clips that it gets.

    Args:
        p: probability, in [0, 1].

    Attributes:
        whole: on the CPU, `transform` is faster with all chosen clips at once than in pieces.
    """

    whole: bool = False

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_probability(type(self).__name__, p)
        self.p = p

    @torch.no_grad()
    def forward(self, clips: Tensor, sample_rate: int, generator: Generator | None = None) -> Tensor:
        """Transform a batch.

        Args:
            clips: `(batch, samples)` float32 in [-1, 1], on any device.
            sample_rate: in Hz.
            generator: source of every draw, on the device of the clips. None: torch's global generator.

        Returns:
            `(batch, samples)`. Clips that were not chosen are unchanged.
        """
        if self.p == 0 or clips.numel() == 0:
            return clips
        device = "cpu" if clips.is_meta else clips.device.type  # tests use meta tensors, which have no autocast
        with torch.autocast(device, enabled=False):
            return self.update(clips.to(torch.float32, copy=True), sample_rate, generator)

    def update(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        """As `forward`, but it may change the clips in place. Chains call this method."""
        if self.p == 0:
            return clips
        return self.where((uniform(clips, 0, 1, generator) < self.p).squeeze(1), clips, sample_rate, generator)

    def where(self, chosen: Tensor, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        """Transform the chosen `(batch,)` clips and keep the others. It may change the clips in place.

        On the CPU, the others are not computed. On other devices, every clip is transformed and `torch.where` selects,
        because to count the chosen clips would make the host wait for the device.
        """
        if clips.device.type != "cpu":
            return torch.where(chosen[:, None], self.transform(clips, sample_rate, generator), clips)
        for piece in split_evenly(chosen.nonzero().squeeze(1), len(clips) if self.whole else rows_in_a_piece(clips)):
            clips[piece] = self.transform(clips.index_select(0, piece), sample_rate, generator)
        return clips

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        """Transform every clip: `(batch, samples)` -> `(batch, samples)`."""
        raise NotImplementedError


class Chain(BatchTransform):
    """The base class of transforms that consist of others. Its `transform` may change the clips in place.

    Args:
        transforms: the other transforms.
        p: probability for each clip that the chain is applied at all.
    """

    whole = True

    def __init__(self, transforms: list[BatchTransform], p: float) -> None:
        super().__init__(p)
        self.transforms = nn.ModuleList(transforms)

    def update(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        if self.p == 1:  # all clips are chosen, so none needs to be copied
            return self.transform(clips, sample_rate, generator)
        return super().update(clips, sample_rate, generator)


class Compose(Chain):
    """Applies transforms in order, each with its own probability.

    Args:
        transforms: transforms in the order of their application.
        p: probability for each clip that the chain is applied at all.
    """

    def __init__(self, transforms: list[BatchTransform], p: float = 1.0) -> None:
        super().__init__(transforms, p)

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        for transform in self.transforms:
            clips = transform.update(clips, sample_rate, generator)  # type: ignore[operator]
        return clips


class OneOf(Chain):
    """Applies exactly one of the transforms to each clip, for example a high-pass or a low-pass filter.

    Args:
        transforms: transforms, all equally likely. Their own `p` is ignored.
        p: probability for each clip that one is applied.

    Raises:
        InputError: there are no transforms.
    """

    def __init__(self, transforms: list[BatchTransform], p: float = 1.0) -> None:
        super().__init__(transforms, p)
        if not transforms:
            raise InputError("OneOf needs at least one transform")

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        choice = randint(clips, 0, len(self.transforms) - 1, generator).squeeze(1)
        for i, transform in enumerate(self.transforms):
            clips = transform.where(choice == i, clips, sample_rate, generator)  # type: ignore[operator]
        return clips


class RandomSubset(Chain):
    """Applies to each clip a random number of different transforms, in random order, and then the transforms of `last`.

    Args:
        transforms: transforms to draw from. Their own `p` is ignored.
        minimum, maximum: the number of transforms is uniform between these. None: all transforms.
        last: transforms that are applied after the subset, with their own `p`; for example additive noise.
        p: probability for each clip that anything is applied.

    Raises:
        InputError: not `0 <= minimum <= maximum <= number of transforms`.
    """

    def __init__(
        self,
        transforms: list[BatchTransform],
        minimum: int = 1,
        maximum: int | None = None,
        last: list[BatchTransform] | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(transforms, p)
        self.minimum, self.maximum = minimum, len(transforms) if maximum is None else maximum
        if not 0 <= self.minimum <= self.maximum <= len(transforms):
            raise InputError(
                f"RandomSubset: minimum {minimum} and maximum {maximum} must satisfy 0 <= minimum <= maximum <= "
                f"{len(transforms)}, the number of transforms"
            )
        self.last = nn.ModuleList(last or [])

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        count = randint(clips, self.minimum, self.maximum, generator)
        keys = torch.rand(len(clips), len(self.transforms), device=clips.device, generator=generator)
        order = keys.argsort(dim=1).masked_fill(positions(keys) >= count, len(self.transforms))
        for i, chosen in self.turns(order):
            clips = self.transforms[i].where(chosen, clips, sample_rate, generator)  # type: ignore[operator]
        for transform in self.last:
            clips = transform.update(clips, sample_rate, generator)  # type: ignore[operator]
        return clips

    def turns(self, order: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the next transform and the `(batch,)` clips to which to apply it.

        On the CPU, the next transform is the one that most clips wait for, because few large groups cost less than many
        small ones. On other devices, every transform is tried at every position, because to look at the order would
        make the host wait for the device.

        Args:
            order: `(batch, transforms)`, the transforms of each clip in its order.
        """
        if order.device.type != "cpu":
            for place in range(self.maximum):
                yield from ((i, order[:, place] == i) for i in range(len(self.transforms)))
            return
        # Transforms that need all their clips at once come only when no clip waits for another transform.
        late = torch.tensor([getattr(transform, "whole", False) for transform in self.transforms] + [False])
        order = F.pad(order, (0, 1), value=len(self.transforms))  # this value means "no more transforms"
        done = torch.zeros(len(order), 1, dtype=torch.long)
        while len(waiting := (upcoming := order.gather(1, done))[upcoming < len(self.transforms)]):
            early = waiting[~late[waiting]]
            i = int((early if len(early) else waiting).bincount().argmax())
            yield i, (upcoming == i).squeeze(1)
            done += upcoming == i


def uniform(clips: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    """`(batch, 1)` numbers, one per clip, uniform in [low, high), on the device of the clips."""
    return low + (high - low) * torch.rand(len(clips), 1, device=clips.device, generator=generator)


def randint(clips: Tensor, low: int, high: int, generator: Generator | None) -> Tensor:
    """`(batch, 1)` int64 numbers, one per clip, uniform in [low, high] with both ends."""
    return torch.randint(low, high + 1, (len(clips), 1), device=clips.device, generator=generator)


def ratio(clips: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    """`(batch, 1)` ratios, one per clip, uniform in [low, high] and inverted with probability one half."""
    value = uniform(clips, low, high, generator)
    return torch.where(uniform(clips, 0, 1, generator) < 0.5, 1 / value, value)


def running_sum(values: Tensor, scale: int) -> Tensor:
    """The sum of the columns before each column, `(batch, n)` -> `(batch, n + 1)`, as int64 multiples of `1 / scale`.

    Sums of integers do not depend on the order. (In deterministic runs, torch refuses floating-point `cumsum` on CUDA.)
    """
    return F.pad((values * scale).round().long().cumsum(1), (1, 0))


def positions(clips: Tensor) -> Tensor:
    """The indices of the samples, `(samples,)` int64, on the device of the clips."""
    return torch.arange(clips.shape[1], device=clips.device)


def rows_in_a_piece(clips: Tensor) -> int:
    """The number of clips that are processed at once."""
    return max(1, PIECE[clips.device.type] // max(1, clips.shape[1]))


def split_evenly(rows: Tensor, most: int) -> tuple[Tensor, ...]:
    """Split `(n, ...)` into the smallest number of parts of at most `most` rows, all of about the same length.

    (A single leftover row would be slow: its Fourier transform takes three times as long per row.)
    """
    return tuple(rows.tensor_split(-(-len(rows) // most))) if len(rows) else ()


def in_pieces(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """Apply a function of `(batch, ...)` tensors to a few rows at a time, and concatenate the results.

    On the CPU, a piece fits into the cache. On other devices, pieces limit the memory for intermediate results.
    """
    rows = rows_in_a_piece(parts[0])
    if rows >= len(parts[0]):
        return function(*parts)
    pieces = zip(*(split_evenly(part, rows) for part in parts), strict=True)
    return torch.cat([function(*piece) for piece in pieces])


def excerpts(clips: Tensor, starts: Tensor, samples: int) -> Tensor:
    """Copy spans out of clips: `(batch, n)` clips, `(batch, k)` int64 starts within them -> `(batch, k, samples)`.

    Whole spans are copied, so that no tensor of indices is needed.
    """
    first = torch.arange(0, clips.numel(), clips.shape[1], device=clips.device)[:, None]
    runs = clips.reshape(-1).unfold(0, samples, 1).index_select(0, (first + starts).view(-1))
    return runs.view(*starts.shape, samples)


def interpolate(clips: Tensor, index: Tensor, fraction: Tensor) -> Tensor:
    """Interpolate clips between their samples by a cubic through four neighbours (Catmull and Rom, 1974).

    Between the samples b and c, at the fraction f of the way, the cubic is the sum of two terms: the linear
    interpolation of b and c; and `f (1 - f)` times the linear interpolation of the distances of b and of c from the
    mean of their own neighbours.

    Args:
        clips: `(batch, samples)`, fewer than 2^31 values.
        index: `(batch, ...)` int32, the sample at or before each position, in [0, samples - 2]. It is changed in place.
        fraction: in [0, 1), the way to the next sample; of the shape of `index`, or broadcast to it.

    Returns:
        `(batch, ...)`, of the shape of `index`.
    """
    rows, samples = clips.shape
    bend = F.pad(torch.add(clips[:, :-2], clips[:, 2:]).mul_(-0.5).add_(clips[:, 1:-1]), (1, 1)).view(-1)
    first = torch.arange(0, rows * samples, samples, device=clips.device, dtype=torch.int32)
    place = index.add_(first.view(-1, *(1,) * (index.ndim - 1))).view(-1)

    def line(values: Tensor) -> Tensor:
        here, after = values.index_select(0, place), values[1:].index_select(0, place)
        return here.view(index.shape).lerp_(after.view(index.shape), fraction)

    return line(clips.reshape(-1)).addcmul_(line(bend), torch.addcmul(fraction, fraction, fraction, value=-1))


def read_faster(clips: Tensor, rate: Tensor, first: Tensor, samples: int) -> Tensor:
    """Read each clip at its own rate, which also changes the pitch: `y(t) = x(first + rate t)`.

    Frequencies that would alias must have been removed before.

    Args:
        clips: `(batch, input samples)`.
        rate: `(batch, 1)`, the step from one position to the next.
        first: `(batch, 1)`, the position of the first sample.
        samples: length of the result.

    Returns:
        `(batch, samples)`; 0 at positions outside the clip.
    """
    place = torch.arange(samples, device=clips.device, dtype=torch.int32)
    time, last = place.to(clips.dtype), clips.shape[1] + 4

    def read(clips: Tensor, rate: Tensor, start: Tensor) -> Tensor:
        # the distance from the position at rate 1, which is precise in long clips too
        further = torch.addcmul(start.frac(), time, rate - 1)
        whole = further.floor()
        index = whole.int().add_(place).add_(start.int() + 3).clamp_(0, last)
        return interpolate(F.pad(clips, (3, 3)), index, further.sub_(whole))

    return in_pieces(read, clips, rate, first)


@lru_cache(maxsize=256)
def fast_length(samples: int) -> int:
    """The smallest even length of at least `samples` with a fast Fourier transform: a product of 2, 3, 5 and 7.

    It has at most nine factors 2 and four factors 3 and, from 4,096 on, at least four factors 2. (A transform of 61,440
    = 2^12 3 5 or of 62,208 = 2^8 3^5 points takes one and a half times as long as one of 62,720 = 2^8 5 7^2.)
    """
    twos = [2**k for k in range(4 if samples >= 4096 else 1, 10)]
    best = 2**63
    for small in [two * 3**k for two in twos for k in range(5)]:
        five = small
        while five < best:
            seven = five
            while seven < samples:
                seven *= 7
            best = min(best, seven)
            five *= 5
            if five >= 5 * max(samples, 1):
                break
    return best
