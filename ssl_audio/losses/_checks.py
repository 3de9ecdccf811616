"""Checks of the arguments that the objectives share."""

from torch import Tensor


def check_views(z1: Tensor, z2: Tensor, minimum: int = 1) -> None:
    """Raise ValueError unless both are `(batch, dim)` tensors of the same shape with at least `minimum` rows."""
    if z1.shape != z2.shape or z1.ndim != 2:
        raise ValueError(f"expected two (batch, dim) tensors of one shape, got {tuple(z1.shape)} and {tuple(z2.shape)}")
    check_rows(z1, minimum)


def check_view(z: Tensor, minimum: int) -> None:
    """Raise ValueError unless it is a `(batch, dim)` tensor with at least `minimum` rows."""
    if z.ndim != 2:
        raise ValueError(f"expected a (batch, dim) tensor, got {tuple(z.shape)}")
    check_rows(z, minimum)


def check_rows(z: Tensor, minimum: int) -> None:
    """Raise ValueError if there are fewer than `minimum` rows."""
    if len(z) < minimum:
        raise ValueError(f"this loss needs at least {minimum} clips in a batch, got {len(z)}; raise data.batch_size")


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is above 0."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
