"""`package:resemblyzer`, `package:aisfx`, `package:musicnn`: models whose weights are part of a package on PyPI.

Only the weights are read. The network is an encoder of this package, so the foreign package is never imported and its
dependencies are not needed: `pip install --no-deps resemblyzer`. Such a model can be saved, exported, pushed and
trained like any other.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from torch import Tensor

from ssl_audio.encoders import AISFX, Musicnn, Resemblyzer, aisfx, musicnn, resemblyzer
from ssl_audio.encoders.clips import ClipEncoder
from ssl_audio.errors import InputError, suggest
from ssl_audio.frontends import Waveform
from ssl_audio.hub.address import Address, Option
from ssl_audio.hub.foreign._options import SHORT_CLIPS, number_or_none, one_of
from ssl_audio.model import EmbeddingModel
from ssl_audio.weights import load_strict


@dataclass(frozen=True)
class Package:
    """A package with weights.

    Attributes:
        version: supported version of the package.
        file: path of the weights, relative to the folder of installed packages.
        encoder: class of the network.
        read: function from the path of the weights to the state dict of the network.
        sample_rate: sample rate in Hz.
        licence: licence of the weights, as the package states it.
    """

    version: str
    file: str
    encoder: type[ClipEncoder]
    read: Callable[[str], dict[str, Tensor]]
    sample_rate: int
    licence: str


PACKAGES = {
    "resemblyzer": Package(
        "0.1.4", "resemblyzer/pretrained.pt", Resemblyzer, resemblyzer.package_weights, 16000, "apache-2.0"
    ),
    "aisfx": Package("0.1.2", "aisfx/models/checkpoint.pth", AISFX, aisfx.package_weights, 44100, "cc-by-4.0"),
    "musicnn": Package("0.1.0", "musicnn/{weights}_musicnn/.index", Musicnn, musicnn.package_weights, 16000, "isc"),
}
OPTIONS = {
    "short": SHORT_CLIPS,
    "level": Option(
        number_or_none,
        "resemblyzer: level in dBFS to which softer clips are raised (-30 in the package), or none (the default)",
    ),
    "trim": Option(
        one_of(*resemblyzer.TRIMS),
        "resemblyzer: webrtc, which removes silence (as the package does), or none (the default)",
    ),
    "weights": Option(
        one_of(*musicnn.TRAINED_ON), "musicnn: MTT (MagnaTagATune, the default) or MSD (Million Song Dataset)"
    ),
    "vector": Option(
        one_of(*musicnn.VECTORS), "musicnn: penultimate (200 numbers, the default) or pooled (1,506 numbers)"
    ),
}


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The model with the weights of a package.

    Raises:
        InputError: the package is unknown or not installed, or an option belongs to another package.
    """
    name = address.rest
    if name not in PACKAGES:
        raise InputError(f"{address.text}: the package {name!r} is not supported{suggest(name, PACKAGES)}")
    package = PACKAGES[name]
    known = {*inspect.signature(package.encoder).parameters} - {"batched"} | ({"weights"} & {*_placeholders(package)})
    wrong = next((option for option in options if option not in known), None)
    if wrong is not None:
        raise InputError(f"{address.text}: {name} has no option {wrong!r}{suggest(wrong, sorted(known))}")
    weights = options.get("weights", musicnn.TRAINED_ON[0])
    file = _located(name, package, package.file.format(weights=weights))
    encoder = package.encoder(**{key: value for key, value in options.items() if key != "weights"})
    load_strict(encoder, package.read(file.removesuffix(".index")), file)
    model = EmbeddingModel(Waveform(), encoder, package.sample_rate).eval()
    model.licence = package.licence
    return model


def _placeholders(package: Package) -> list[str]:
    return ["weights"] if "{weights}" in package.file else []


def _located(name: str, package: Package, file: str) -> str:
    """The path of a file of an installed package.

    Raises:
        InputError: the package is not installed, or lacks the file.
    """
    install = f"pip install --no-deps {name}=={package.version}"
    try:
        found = distribution(name)
    except PackageNotFoundError as error:
        raise InputError(f"package:{name} needs the package {name}; install it with: {install}") from error
    path = found.locate_file(file)
    if not path.is_file():  # type: ignore[attr-defined]
        raise InputError(f"{name} {found.version} has no {file}; install the supported version: {install}")
    return str(path)
