"""Training checkpoints of ssl-singer-identity, by their key names.

https://github.com/SonyCSLParis/ssl-singer-identity

SSLTrainer    feature_extractor.*, encoder.net.2.*, projection.net.1.*; the same once more under net.*
BYOL          student_network.encoder.{feature_extractor,encoder}.*, student_network.projector.net.1.*; the same once
              more under module.*, and the target under teacher_network.*

What the network looks like is in the checkpoint's hyper-parameters; where they are not plain data, it is in the run's
config.yaml.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from ssl_audio.errors import InputError
from ssl_audio.heads import Projection
from ssl_audio.hub import singer_identity
from ssl_audio.hub.levels import as_tested
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.weights import load_strict

LAYOUT = "a training checkpoint of ssl-singer-identity"
CONFIG = "config.yaml"
# prefix of the frontend and the encoder, and of the projection head
LAYOUTS = (("", "projection."), ("student_network.encoder.", "student_network.projector."))


def recognises(place: Place) -> bool:
    """A checkpoint with one of the two sets of key names."""
    return place.checkpoint is not None and _layout(place) is not None


def read(place: Place, options: Options, config: Path | None = None) -> EmbeddingModel:
    """The encoder that was trained, in BYOL the student's, with its projection head on request.

    Args:
        place: the checkpoint, or the folder of its run.
        options: see `Options`.
        config: the run's config.yaml; None takes what the checkpoint says, or else the file in the run's folder.

    Raises:
        InputError: nothing says how the network is made, or the weights do not fit that.
    """
    path = cast(Path, place.checkpoint)
    (start, head_start), weights = cast(tuple[str, str], _layout(place)), place.content.weights
    settings, source = _settings(place, path, config)
    sections = {"feature_extractor": settings["feature_extractor"], "encoder": settings["backbone"]}
    model = singer_identity.model_from_hyperparams(sections, source)
    own = (f"{start}feature_extractor.", f"{start}encoder.")
    found = {str(key).removeprefix(start): value for key, value in weights.items() if str(key).startswith(own)}
    singer_identity.put_published_weights(model, found, path)
    head: nn.Module | None = None
    if options.projection:
        linear = f"{head_start}net.1."
        head_weights = {f"net.1.{key.removeprefix(linear)}": w for key, w in weights.items() if key.startswith(linear)}
        if "net.1.weight" not in head_weights:
            raise InputError(f"{path}: has no projection head of one linear layer; load it without the projection")
        unit = settings["projection"].get("l2_normalize", False) or settings["normalize_projections"]
        head = Projection(model.encoder.dim, len(head_weights["net.1.weight"]), normalize=bool(unit))
        load_strict(head, head_weights, path)
    return as_tested(model.with_parts(head=head), path).eval()


def _layout(place: Place) -> tuple[str, str] | None:
    keys = place.content.weights.keys()
    buffer = f"{singer_identity.FRONTEND_PREFIX}mel_basis"
    return next((layout for layout in LAYOUTS if f"{layout[0]}{buffer}" in keys), None)


def _settings(place: Place, path: Path, config: Path | None) -> tuple[dict[str, Any], Path]:
    """The sections feature_extractor, backbone and projection, and the file that has them."""
    stored = place.content.values.get("hyper_parameters")
    if config is None and isinstance(stored, Mapping) and all(_plain(stored.get(key)) for key in _NEEDED):
        return _complete(stored), path
    configs = [config] if config is not None else [path.parent / CONFIG, path.parent.parent / CONFIG]
    there = next((file for file in configs if file.is_file()), None)
    if config is None and there is None:
        raise InputError(
            f"{path}: does not say how its network is made; give the run's config: "
            f"ssl-audio convert --checkpoint {path} --config {CONFIG}, or put that file beside it"
        )
    there = cast(Path, there or config)
    section = read_yaml(there).get("model")
    arguments = section.get("init_args", section) if isinstance(section, Mapping) else None
    if not isinstance(arguments, Mapping) or not all(isinstance(arguments.get(key), Mapping) for key in _NEEDED):
        raise InputError(f"{there}: no {' and '.join(_NEEDED)} in its section 'model'; give the config of this run")
    return _complete(arguments), there


_NEEDED = ("feature_extractor", "backbone")


def _plain(value: Any) -> bool:
    """A dictionary as it was saved; an object of a class is read as an empty stand-in, which says nothing."""
    return type(value) is dict and bool(value)


def _complete(arguments: Mapping[str, Any]) -> dict[str, Any]:
    projection = arguments.get("projection")
    return {
        **{key: arguments[key] for key in _NEEDED},
        "projection": projection if isinstance(projection, Mapping) else {},
        "normalize_projections": arguments.get("normalize_projections", False) is True,
    }
