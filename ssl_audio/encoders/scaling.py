"""Scaling of a waveform before an encoder, so that loudness does not matter."""

from torch import Tensor

from ssl_audio.errors import InputError

NORMALIZATIONS = ("rms", "l2", "none")


def check_scaling(name: str, kind: str) -> None:
    """Raise InputError, with the name of the argument, if the normalisation is unknown."""
    if kind not in NORMALIZATIONS:
        raise InputError(f"{name} is {kind!r}; it must be one of {', '.join(NORMALIZATIONS)}")


def scaled(x: Tensor, kind: str) -> Tensor:
    """Scale the last dimension to unit root mean square ("rms") or to unit Euclidean length ("l2").

    The result is float32: in half precision, the sum over the samples of a clip overflows or loses digits.
    """
    if kind == "none":
        return x
    x = x.float()
    power = x.square()
    scale = power.sum(-1, keepdim=True) if kind == "l2" else power.mean(-1, keepdim=True)
    # The added constant is far below a 16-bit step, so silence stays silence. It keeps the gradient finite.
    return x * (scale + 1e-12).rsqrt()
