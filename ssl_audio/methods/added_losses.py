"""Losses of two views that a config adds to those of a method, with weights.

    model:
      init_args:
        losses:
          alignment: {weight: 0.5}
          covariance: {weight: 100.0}
          mine: {weight: 1.0, loss: my_losses.my_loss, margin: 0.2}

A name is that of a loss of `ssl_audio.losses` without `_loss`, or any name with `loss`, the import path of a function
of two views `(batch, dim)` that returns a scalar. Other keys are arguments of the function. `null` takes a loss away.

The losses are those of `VICReg`, `Contrastive` and `UniformityAlignment`, term by term: alignment and uniformity on the
unit sphere, uniformity and variance averaged over both views, covariance summed over both views.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from ssl_audio import losses as library
from ssl_audio.config import find
from ssl_audio.errors import InputError, suggest

Loss = Callable[..., Tensor]


def alignment(z1: Tensor, z2: Tensor, **options: Any) -> Tensor:
    """`alignment_loss` of (batch, dim) views on the unit sphere."""
    return library.alignment_loss(normalize(z1, dim=1), normalize(z2, dim=1), **options)


def uniformity(z1: Tensor, z2: Tensor, **options: Any) -> Tensor:
    """`uniformity_loss` on the unit sphere, averaged over both (batch, dim) views."""
    return sum(library.uniformity_loss(normalize(z, dim=1), **options) for z in (z1, z2)) / 2  # type: ignore[return-value]


def variance(z1: Tensor, z2: Tensor, gamma: float | None = None) -> Tensor:
    """`variance_loss` averaged over both (batch, dim) views; gamma None: 1/sqrt(dim), as of `VICReg`."""
    gamma = z1.shape[1] ** -0.5 if gamma is None else gamma
    return (library.variance_loss(z1, gamma) + library.variance_loss(z2, gamma)) / 2


def covariance(z1: Tensor, z2: Tensor) -> Tensor:
    """`covariance_loss` summed over both (batch, dim) views."""
    return library.covariance_loss(z1) + library.covariance_loss(z2)


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "alignment": (alignment, library.alignment_loss),
    "contrastive": (library.contrastive_loss, library.contrastive_loss),
    "covariance": (covariance, covariance),
    "invariance": (library.invariance_loss, library.invariance_loss),
    "nt_xent": (library.nt_xent_loss, library.nt_xent_loss),
    "uniformity": (uniformity, library.uniformity_loss),
    "variance": (variance, variance),
}
"""Name: the loss of two views, and the function whose arguments it takes."""


def added_losses(given: Mapping[str, Mapping[str, Any] | None] | None) -> dict[str, tuple[float, Loss]]:
    """name: (weight, loss of two views) of a config's `losses`.

    Raises:
        InputError: a name, a weight or an argument that does not exist.
    """
    found: dict[str, tuple[float, Loss]] = {}
    for name, options in (given or {}).items():
        if options is None:
            continue
        if not isinstance(options, Mapping):
            raise InputError(f"model.losses.{name} is {options!r}; write {{weight: 1.0}}")
        options = dict(options)
        weight, path = options.pop("weight", 1.0), options.pop("loss", None)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise InputError(f"model.losses.{name}.weight is {weight!r}; expected a number")
        if path is not None:
            loss = described = find(str(path))
        elif name in LOSSES:
            loss, described = LOSSES[name]
        else:
            raise InputError(
                f"model.losses.{name} is no loss{suggest(str(name), LOSSES)}; for your own, add its import path as loss"
            )
        known = [key for key in inspect.signature(described).parameters if key not in ("z", "z1", "z2", "v1", "v2")]
        for key in options:
            if key not in known:
                raise InputError(f"model.losses.{name}.{key} is not a key{suggest(str(key), ['weight', *known])}")
        found[str(name)] = (float(weight), partial(loss, **options))
    return found
