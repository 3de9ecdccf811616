"""Reader and writer of the layout in which the singer-identity models were published. No other module knows it.

<name>/hyperparams.yaml    {feature_extractor: {spec_layer, n_fft, hop_length, [n_mels]},
                            encoder: {backbone, pretrained, embedding_dim}}
<name>/model.pt            feature_extractor.spec_layer.* (nnAudio's buffers), encoder.net.2.* (torchvision's names)
<name>/model.ts            the same as TorchScript
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from torch import Tensor

from ssl_audio.encoders.efficientnet import EfficientNet, from_torchvision, to_torchvision
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.levels import as_tested
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.weights import load_strict, read_weights

LAYOUT = "hyperparams.yaml and model.pt"
SAMPLE_RATE = 44100  # of the audio, although the mel bank is designed for 22,050 Hz
HYPERPARAMS, WEIGHTS, TORCHSCRIPT = "hyperparams.yaml", "model.pt", "model.ts"
SPEC_LAYERS = ("melspectogram", "melspectrogram")  # the first is the spelling of the published files
BACKBONES = ("efficientnet_b0", "efficientnet_b4", "efficientnet_b0_att")
FRONTEND_PREFIX, ENCODER_PREFIX = "feature_extractor.spec_layer.", "encoder.net.2."


def recognises(place: Place) -> bool:
    """Whether the place is a folder with one of the two files, or a file of weights beside `hyperparams.yaml`."""
    if place.path.is_file():
        return place.path.suffix in (".pt", ".pth") and (place.path.parent / HYPERPARAMS).is_file()
    return place.has(HYPERPARAMS, WEIGHTS)


def read(place: Place, options: Options) -> EmbeddingModel:
    """Read the model; for errors see `load_published`."""
    if options.projection:
        raise InputError(f"{place.path}: published models have no projection head; load it without projection=True")
    if place.path.is_dir():
        return load_published(place.path)
    return load_published(place.path.parent, place.path.name)


def load_published(folder: str | os.PathLike, weights: str = WEIGHTS) -> EmbeddingModel:
    """Load a model from a folder of the published layout; `weights` is the name of its file.


    Raises:
        InputError: a file is missing or damaged, a layer, backbone or key is unknown, or weights do not fit.
    """
    folder = Path(folder)
    model = model_from_hyperparams(read_hyperparams(folder / HYPERPARAMS), folder / HYPERPARAMS)
    put_published_weights(model, read_weights(folder / weights), folder / weights)
    return as_tested(model, folder)


def save_published(model: EmbeddingModel, folder: str | os.PathLike) -> None:
    """Write a model as `hyperparams.yaml` and `model.pt`.

    Raises:
        InputError: the layout cannot describe this model.
    """
    folder = Path(folder)
    hyperparams, weights = published_hyperparams(model), published_weights(model)
    with write_atomically(folder / WEIGHTS) as temporary:
        content = io.BytesIO()  # torch does not say why a disk cannot be written; the system does
        torch.save(weights, content)
        temporary.write_bytes(content.getbuffer())
    write_text(folder / HYPERPARAMS, yaml.safe_dump(hyperparams, sort_keys=False))


def read_hyperparams(path: Path) -> dict[str, Any]:
    """Read `hyperparams.yaml`. Raises InputError if it is missing or lacks one of its two sections."""
    hyperparams = read_yaml(path)
    for section in ("feature_extractor", "encoder"):
        if not isinstance(hyperparams.get(section), Mapping):
            raise InputError(f"{path}: the section {section!r} is missing")
    return hyperparams


def model_from_hyperparams(hyperparams: Mapping[str, Any], source: str | os.PathLike) -> EmbeddingModel:
    """The model that `hyperparams.yaml` describes, with random weights.

    Args:
        hyperparams: content of the file.
        source: the file, for messages.

    Raises:
        InputError: a layer, backbone or key is unknown, or a value is invalid.
    """
    features, encoder = dict(hyperparams["feature_extractor"]), dict(hyperparams["encoder"])
    _only_keys(features, ("spec_layer", "n_fft", "hop_length", "n_mels"), f"{source}: feature_extractor")
    _only_keys(encoder, ("backbone", "pretrained", "embedding_dim"), f"{source}: encoder")
    spec_layer = features.pop("spec_layer", SPEC_LAYERS[0])
    if spec_layer not in SPEC_LAYERS:
        raise InputError(f"{source}: unknown spec_layer {spec_layer!r}; this release supports {SPEC_LAYERS[0]!r}")
    backbone = encoder.get("backbone", "efficientnet_b0")
    if not isinstance(backbone, str) or backbone not in BACKBONES:
        raise InputError(f"{source}: unknown backbone {backbone!r}; the published layout has {', '.join(BACKBONES)}")
    encoder["pretrained"] = False  # the weights come from model.pt
    for key, value in {**features, "embedding_dim": encoder.get("embedding_dim", 1000)}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{source}: {key} is {value!r}; it must be a positive whole number")
    return EmbeddingModel(LogMelSpectrogram(**features), EfficientNet(**encoder), sample_rate=SAMPLE_RATE)


def put_published_weights(model: EmbeddingModel, weights: Mapping[str, Any], source: str | os.PathLike) -> None:
    """Load a published state dict into a model from `model_from_hyperparams`.

    Args:
        model: changed in place.
        weights: the state dict.
        source: the file, for messages.

    Raises:
        InputError: the weights do not fit, or the mel bank is another one than the model computes.
    """
    bank = weights.get(f"{FRONTEND_PREFIX}mel_basis")
    if bank is not None and not isinstance(bank, Tensor):
        raise InputError(f"{source}: the mel bank is a {type(bank).__name__}, not a tensor; fetch the file again")
    own = cast(LogMelSpectrogram, model.frontend).mel_basis
    rounding = 1e-4 if bank is None or bank.dtype in (torch.float32, torch.float64) else 1e-2  # for half precision
    if bank is not None and (
        bank.shape != own.shape or not torch.allclose(bank.float(), own, rtol=rounding, atol=1e-7)
    ):
        raise InputError(
            f"{source}: the mel bank {tuple(bank.shape)} is not nnAudio's for 22,050 Hz with the n_fft and n_mels of "
            f"{HYPERPARAMS}, so the embeddings would differ; correct {HYPERPARAMS}"
        )
    encoder = {
        str(key).removeprefix(ENCODER_PREFIX): value
        for key, value in weights.items()
        if not str(key).startswith(FRONTEND_PREFIX)  # the frontend is computed from the hyperparameters
    }
    load_strict(model.encoder, from_torchvision(encoder, cast(EfficientNet, model.encoder)), source)


def published_hyperparams(model: EmbeddingModel) -> dict[str, Any]:
    """The content of `hyperparams.yaml` for a model.

    Raises:
        InputError: the layout cannot describe this model.
    """
    frontend, encoder = model.frontend, model.encoder
    if type(encoder) is not EfficientNet or encoder.backbone not in BACKBONES:
        kind = getattr(encoder, "backbone", type(encoder).__name__)
        raise InputError(f"the published layout holds {', '.join(BACKBONES)} only, not {kind}; use save_model")
    if type(frontend) is not LogMelSpectrogram:
        raise InputError(f"the published layout cannot describe {type(frontend).__name__}; use save_model")
    usual = LogMelSpectrogram()
    for name in ("sample_rate", "f_min", "f_max", "power", "log_offset", "normalize"):
        value, needed = getattr(frontend, name), getattr(usual, name)
        if value != needed:
            raise InputError(
                f"the published layout cannot describe frontend.{name} = {value!r}, only {needed!r}; use save_model"
            )
    if model.level != "peak":
        raise InputError("the published layout holds models of clips that are scaled to a peak of 1; use save_model")
    if model.sample_rate != SAMPLE_RATE or model.head is not None:
        raise InputError(f"the published layout holds models without a head at {SAMPLE_RATE} Hz only; use save_model")
    return {
        "feature_extractor": {
            "spec_layer": SPEC_LAYERS[0],
            "n_fft": frontend.n_fft,
            "hop_length": frontend.hop_length,
            "n_mels": frontend.n_mels,
        },
        "encoder": {
            "backbone": encoder.backbone,
            "pretrained": encoder.pretrained,
            "embedding_dim": encoder.embedding_dim,
        },
    }


def can_hold(model: EmbeddingModel) -> bool:
    """Whether the layout has words for this model, with or without its head."""
    try:
        published_hyperparams(model.with_parts(head=None))
    except InputError:
        return False
    return True


def published_weights(model: EmbeddingModel) -> dict[str, Tensor]:
    """The state dict of a model under the published names, with nnAudio's buffers."""
    from nnAudio.features import MelSpectrogram

    frontend = model.frontend
    layer = MelSpectrogram(n_fft=frontend.n_fft, hop_length=frontend.hop_length, n_mels=frontend.n_mels, verbose=False)
    state = {f"{FRONTEND_PREFIX}{key}": value for key, value in layer.state_dict().items()}
    encoder = cast(EfficientNet, model.encoder)
    weights = {key: value.detach().cpu() for key, value in encoder.state_dict().items()}
    state.update({f"{ENCODER_PREFIX}{key}": value for key, value in to_torchvision(weights, encoder).items()})
    return state


def _only_keys(section: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(map(str, section.keys() - set(known)))
    if unknown:
        raise InputError(f"{where} has the unknown key {unknown[0]!r}; this release supports {', '.join(known)}")
