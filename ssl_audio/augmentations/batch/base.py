"""What every batched transform shares: its probability per clip, its random numbers, and chains of transforms.

A transform is a module `forward(clips (batch, samples), sample_rate, generator) -> (batch, samples)`. It works on the
device that holds the clips, draws per clip from a generator of that device, never waits for the device, and never
changes its input in place.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ssl_audio.augmentations.base import check_probability
from ssl_audio.errors import InputError

# Samples that are worked on at once, by type of device (see `in_pieces`).
PIECE = defaultdict(lambda: 2**25, cpu=2**19)


class BatchTransform(nn.Module):
    """A transform that touches each clip with probability `p`, independently of the others.

    Subclasses write `transform`, which is given clips to change and draws its parameters for them.

    Attributes:
        whole: on the CPU, `transform` is better called once with all chosen clips than in pieces.
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
            clips: (batch, samples) float32 in [-1, 1], on any device.
            sample_rate: Hz.
            generator: on the device of the clips; torch's global one if None.

        Returns:
            (batch, samples), with the clips that were not drawn as they were.
        """
        if self.p == 0 or clips.numel() == 0:
            return clips
        device = "cpu" if clips.is_meta else clips.device.type  # (meta tensors prove that nothing waits for the device)
        with torch.autocast(device, enabled=False):
            return self.update(clips.to(torch.float32, copy=True), sample_rate, generator)

    def update(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        """As `forward`, but the clips may be changed in place; chains call this."""
        if self.p == 0:
            return clips
        return self.where((uniform(clips, 0, 1, generator) < self.p).squeeze(1), clips, sample_rate, generator)

    def where(self, chosen: Tensor, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        """Transform the chosen (batch,) clips and keep the others; may change the clips in place.

        On the CPU the others cost nothing. Elsewhere every clip is transformed and the result is picked, because
        counting the chosen ones would make the host wait for the device.
        """
        if clips.device.type != "cpu":
            return torch.where(chosen[:, None], self.transform(clips, sample_rate, generator), clips)
        for piece in split_evenly(chosen.nonzero().squeeze(1), len(clips) if self.whole else rows_in_a_piece(clips)):
            clips[piece] = self.transform(clips.index_select(0, piece), sample_rate, generator)
        return clips

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        """The transform itself, on every clip that it is given: (batch, samples) -> (batch, samples)."""
        raise NotImplementedError


class Chain(BatchTransform):
    """What holds other transforms; its own `transform` may change the clips in place."""

    whole = True

    def __init__(self, transforms: list[BatchTransform], p: float) -> None:
        super().__init__(p)
        self.transforms = nn.ModuleList(transforms)

    def update(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        if self.p == 1:  # no copy of the chosen ones
            return self.transform(clips, sample_rate, generator)
        return super().update(clips, sample_rate, generator)


class Compose(Chain):
    """One transform after the other, each with its own probability.

    Args:
        transforms: applied in this order.
        p: probability per clip that the chain runs at all.
    """

    def __init__(self, transforms: list[BatchTransform], p: float = 1.0) -> None:
        super().__init__(transforms, p)

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        for transform in self.transforms:
            clips = transform.update(clips, sample_rate, generator)  # type: ignore[operator]
        return clips


class OneOf(Chain):
    """Exactly one of the transforms for each clip, all equally likely (high *or* low pass, say).

    Args:
        transforms: what is drawn from. Their own `p` is not drawn.
        p: probability per clip that one is applied.
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
    """For each clip its own number of distinct transforms, in its own random order, and then those that come last.

    Args:
        transforms: what is drawn from. Their own `p` is not drawn: being in the subset decides.
        minimum, maximum: how many, uniform; at most as many as there are transforms.
        last: applied after the subset to every clip, with their own `p` (additive noise, say).
        p: probability per clip that anything happens.
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
        """Which transform is next, and for which (batch,) clips, by each clip's own (batch, transforms) order.

        On the CPU the one that most clips wait for, because few large groups cost less than many small ones. Elsewhere
        place by place, because looking at the order would make the host wait for the device.
        """
        if order.device.type != "cpu":
            for place in range(self.maximum):
                yield from ((i, order[:, place] == i) for i in range(len(self.transforms)))
            return
        # transforms that are better called once with all their clips come when no clip waits for another
        late = torch.tensor([getattr(transform, "whole", False) for transform in self.transforms] + [False])
        order = F.pad(order, (0, 1), value=len(self.transforms))  # what stands for "no more"
        done = torch.zeros(len(order), 1, dtype=torch.long)
        while len(waiting := (upcoming := order.gather(1, done))[upcoming < len(self.transforms)]):
            early = waiting[~late[waiting]]
            i = int((early if len(early) else waiting).bincount().argmax())
            yield i, (upcoming == i).squeeze(1)
            done += upcoming == i


def uniform(clips: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    """One number a clip, uniform in [low, high): (batch, 1) on the clips' device."""
    return low + (high - low) * torch.rand(len(clips), 1, device=clips.device, generator=generator)


def randint(clips: Tensor, low: int, high: int, generator: Generator | None) -> Tensor:
    """One integer a clip, uniform in [low, high], both included: (batch, 1) int64."""
    return torch.randint(low, high + 1, (len(clips), 1), device=clips.device, generator=generator)


def ratio(clips: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    """One ratio a clip, uniform in [low, high] and inverted half the time: (batch, 1)."""
    value = uniform(clips, low, high, generator)
    return torch.where(uniform(clips, 0, 1, generator) < 0.5, 1 / value, value)


def running_sum(values: Tensor, scale: int) -> Tensor:
    """The sum of what lies before each column, (batch, n) -> (batch, n + 1), in whole numbers of 1 / scale: int64.

    Whole numbers add up the same in any order, and torch refuses CUDA's floating-point sum in deterministic runs.
    """
    return F.pad((values * scale).round().long().cumsum(1), (1, 0))


def positions(clips: Tensor) -> Tensor:
    """Sample numbers: (samples,) int64 on the clips' device."""
    return torch.arange(clips.shape[1], device=clips.device)


def rows_in_a_piece(clips: Tensor) -> int:
    """How many (batch, samples) clips are worked on at once."""
    return max(1, PIECE[clips.device.type] // max(1, clips.shape[1]))


def split_evenly(rows: Tensor, most: int) -> tuple[Tensor, ...]:
    """Cut (n, ...) into as few parts as can be, none longer than `most` and none much shorter than another.

    (Fourier transforms of a single row take three times as long.)
    """
    return tuple(rows.tensor_split(-(-len(rows) // most))) if len(rows) else ()


def in_pieces(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """Apply a function of (batch, ...) tensors to a few rows at a time, as many as fit a piece, and join the results.

    A processor's cache is small; elsewhere pieces keep the memory needed in between from growing with the batch.
    """
    rows = rows_in_a_piece(parts[0])
    if rows >= len(parts[0]):
        return function(*parts)
    pieces = zip(*(split_evenly(part, rows) for part in parts), strict=True)
    return torch.cat([function(*piece) for piece in pieces])


def excerpts(clips: Tensor, starts: Tensor, samples: int) -> Tensor:
    """Runs of samples: (batch, n), (batch, k) int64 starts within the clips -> (batch, k, samples).

    Whole runs are copied, so that no table of positions has to be made.
    """
    first = torch.arange(0, clips.numel(), clips.shape[1], device=clips.device)[:, None]
    runs = clips.reshape(-1).unfold(0, samples, 1).index_select(0, (first + starts).view(-1))
    return runs.view(*starts.shape, samples)


def interpolate(clips: Tensor, index: Tensor, fraction: Tensor) -> Tensor:
    """Read clips between their samples, by a cubic through the four neighbours (Catmull and Rom, 1974).

    That cubic is the straight line from b to c and f (1 - f) times the line from b's to c's distance to the middle of
    its neighbours.

    Args:
        clips: (batch, samples), below 2^31 in all.
        index: (batch, ...) int32, the sample at or before each position, in [0, samples - 2]; changed in place.
        fraction: in [0, 1), the way to the next; of the index's shape or broadcast over it.

    Returns:
        (batch, ...) of the index's shape.
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
    """Read each clip at its own rate, pitch and all: y(t) = x(first + rate t).

    Args:
        clips: (batch, samples in).
        rate, first: (batch, 1), the position of the first sample that is read, and the step to the next.
        samples: length of the result.

    Returns:
        (batch, samples); zero outside the clip. What would alias must have been removed before.
    """
    place = torch.arange(samples, device=clips.device, dtype=torch.int32)
    time, last = place.to(clips.dtype), clips.shape[1] + 4

    def read(clips: Tensor, rate: Tensor, start: Tensor) -> Tensor:
        # as a distance from where rate 1 would be, so that long clips keep their precision
        further = torch.addcmul(start.frac(), time, rate - 1)
        whole = further.floor()
        index = whole.int().add_(place).add_(start.int() + 3).clamp_(0, last)
        return interpolate(F.pad(clips, (3, 3)), index, further.sub_(whole))

    return in_pieces(read, clips, rate, first)


@lru_cache(maxsize=256)
def fast_length(samples: int) -> int:
    """The smallest even length of at least `samples` that a Fourier transform likes: a product of 2, 3, 5 and 7.

    With at most nine twos and four threes, and from 4,096 on at least four twos: 61,440 (2^12) or 62,208 (3^5) points
    take one and a half times as long as 62,720 = 2^8 5 7^2.
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
