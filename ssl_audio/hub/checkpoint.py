"""Reader of the checkpoints of a training run, or of its run folder. It does not need Lightning."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ssl_audio.config import build, canonical, without_pretrained
from ssl_audio.encoders.whitened import Whitened
from ssl_audio.errors import InputError
from ssl_audio.hub import clmr, singer_identity_training
from ssl_audio.hub.levels import as_tested
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.checkpoints import origin
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.weights import load_strict, refuse_not_finite

LAYOUT = "checkpoints/*.ckpt"


def recognises(place: Place) -> bool:
    """Whether the place is a file, or a folder with checkpoints."""
    return place.checkpoint is not None


def read(place: Place, options: Options) -> EmbeddingModel:
    """Read the model; for errors see `load_checkpoint`."""
    return _model(place, options)


def load_checkpoint(
    path: str | os.PathLike,
    config: str | os.PathLike | None = None,
    projection: bool = False,
    trusted: bool = False,
) -> EmbeddingModel:
    """Load the model of a training checkpoint, without Lightning.

    Args:
        path: a Lightning checkpoint of a method of this package, or one of the original CLMR or ssl-singer-identity.
        config: `config.yaml` of the run, for a checkpoint without a description of its model. A description in the
            checkpoint must agree with it.
        projection: whether to include the projection head.
        trusted: see `load_model`.

    Raises:
        InputError: the checkpoint is damaged or of another kind, does not agree with the config, or has weights that
            are not finite.
    """
    place, options = Place(Path(path)), Options(projection, trusted)
    if singer_identity_training.recognises(place):
        model = singer_identity_training.read(place, options, None if config is None else Path(config))
    else:
        model = clmr.read(place, options) if clmr.recognises(place) else _model(place, options, config)
    refuse_not_finite(model, path)
    return model


def _model(place: Place, options: Options, config: str | os.PathLike | None = None) -> EmbeddingModel:
    path = cast(Path, place.checkpoint)
    if place.content.refusal is not None:
        raise place.content.refusal
    checkpoint, projection, trusted = place.content.values, options.projection, options.trusted
    weights = checkpoint.get("state_dict")
    spec = checkpoint.get("model")
    if config is not None:
        written = _run_config(Path(config))
        spec = spec if isinstance(spec, Mapping) else written
        for key in ("frontend", "encoder", "sample_rate"):
            _agree(canonical(written.get(key)), canonical(spec.get(key)), key, f"{config} and {path}")
    if not isinstance(weights, Mapping) or not isinstance(spec, Mapping):
        raise InputError(
            f"{path} is not a checkpoint of an ssl_audio method; if it is an old one, give the config of its run"
        )
    parts = {"frontend": "frontend", "encoder": "encoder"} | ({"head": "projection"} if projection else {})
    built: dict[str, Any] = {}
    for part, key in parts.items():
        if key not in spec:
            raise InputError(f"{config or path}: the model has no {key!r}")
        positional = (built["encoder"].dim,) if part == "head" and not _has_in_dim(spec[key]) else ()
        built[part] = build(without_pretrained(spec[key]), *positional, trusted=trusted)
    prefixes = {f"{key}.": f"{part}." for part, key in parts.items()}
    if "whitening" in spec and not projection:  # heads were trained on embeddings without whitening
        built["encoder"] = Whitened(built["encoder"], build(spec["whitening"], trusted=trusted))
        prefixes |= {"encoder.": "encoder.encoder.", "whitening.": "encoder.whitening."}
    level = build(spec.get("level", "none"), trusted=trusted)
    model = EmbeddingModel(**built, sample_rate=spec.get("sample_rate", 44100), level=level)
    load_strict(model, _select(weights, prefixes), path)
    if "level" not in spec:
        as_tested(model, path, spec)
    model.checkpoint = origin(path, checkpoint)
    return model.eval()


def _run_config(path: Path) -> Mapping[str, Any]:
    """The section of the config of a run that describes the model."""
    section = read_yaml(path).get("model")
    if not isinstance(section, Mapping):
        raise InputError(f"{path}: no section 'model'; give the config.yaml of the run")
    return section.get("init_args", section)


def _agree(written: Any, described: Any, key: str, where: str) -> None:
    """Raise InputError if the config and the checkpoint have different values; values that one lacks are ignored."""
    if isinstance(written, Mapping) and isinstance(described, Mapping):
        for name in written.keys() & described.keys():
            _agree(written[name], described[name], key if name == "init_args" else f"{key}.{name}", where)
    elif written is not None and written != described:
        raise InputError(f"{where} do not belong together: {key} is {written!r} and {described!r}")


def _has_in_dim(spec: Mapping[str, Any]) -> bool:
    return "in_dim" in (spec.get("init_args") or {})


def _select(weights: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        new + key.removeprefix(old): value
        for key, value in weights.items()
        for old, new in prefixes.items()
        if key.startswith(old)
    }
