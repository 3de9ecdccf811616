"""What every objective asks of its input, said once."""

from torch import Tensor


def check_views(z1: Tensor, z2: Tensor, minimum: int = 1) -> None:
    """Two (batch, dim) tensors of one shape with at least `minimum` rows, or ValueError."""
    if z1.shape != z2.shape or z1.ndim != 2:
        raise ValueError(f"expected two (batch, dim) tensors of one shape, got {tuple(z1.shape)} and {tuple(z2.shape)}")
    check_rows(z1, minimum)


def check_view(z: Tensor, minimum: int) -> None:
    """One (batch, dim) tensor with at least `minimum` rows, or ValueError."""
    if z.ndim != 2:
        raise ValueError(f"expected a (batch, dim) tensor, got {tuple(z.shape)}")
    check_rows(z, minimum)


def check_rows(z: Tensor, minimum: int) -> None:
    if len(z) < minimum:
        raise ValueError(f"this loss needs at least {minimum} clips in a batch, got {len(z)}; raise data.batch_size")


def check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
