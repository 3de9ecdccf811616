"""How waveform encoders scale what they are given, so that loudness does not matter."""

from torch import Tensor

from ssl_audio.errors import InputError

NORMALIZATIONS = ("rms", "l2", "none")


def check_scaling(name: str, kind: str) -> None:
    """Raise InputError, naming the argument, if there is no such normalisation."""
    if kind not in NORMALIZATIONS:
        raise InputError(f"{name} is {kind!r}; it must be one of {', '.join(NORMALIZATIONS)}")


def scaled(x: Tensor, kind: str) -> Tensor:
    """Scale the last dimension to unit root mean square ("rms") or Euclidean length ("l2").

    In float32: a sum over a clip's samples overflows or loses digits in half precision.
    """
    if kind == "none":
        return x
    x = x.float()
    power = x.square()
    scale = power.sum(-1, keepdim=True) if kind == "l2" else power.mean(-1, keepdim=True)
    # Silence stays silence: the floor is far below a 16-bit step and keeps the root's gradient finite.
    return x * (scale + 1e-12).rsqrt()
