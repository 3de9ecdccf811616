"""Reader of checkpoints of the original CLMR (https://github.com/Spijkervet/CLMR), recognised by their key names."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from ssl_audio.encoders import SampleCNN
from ssl_audio.errors import InputError
from ssl_audio.frontends import Waveform
from ssl_audio.heads import MLP, ProbeHead
from ssl_audio.hub.place import Content, Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.packaged import packaged_names
from ssl_audio.weights import load_strict, read_weights

LAYOUT = "a checkpoint of CLMR"
SAMPLE_RATE, CLIP_SAMPLES = 22050, 59049
PREFIXES = ("model.", "")  # of keys in a Lightning checkpoint, and in a plain one ("clmr_checkpoint_10000.pt")
_CLASSIFIER = re.compile(r"(?:model\.)?([02]\.(?:weight|bias))")


def recognises(place: Place) -> bool:
    """Whether the place has a checkpoint with the key names of CLMR."""
    return place.checkpoint is not None and _prefix(place.content.weights) is not None


def read(place: Place, options: Options) -> EmbeddingModel:
    """Read a SampleCNN. The classifier of the checkpoint is left out, because it was never trained.

    Raises:
        InputError: keys are missing, shapes are not those of SampleCNN, or there is no projector.
    """
    weights, source, projection = place.content.weights, cast(Path, place.checkpoint), options.projection
    prefix = _prefix(weights)
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key.startswith(f"{prefix}encoder.sequential."):
            renamed[key.replace(f"{prefix}encoder.sequential.", "encoder.blocks.", 1)] = value
        elif projection and key.startswith(f"{prefix}projector."):
            renamed[key.replace(f"{prefix}projector.", "head.net.", 1)] = value
    convolutions = [key for key in renamed if key.startswith("encoder.blocks.") and key.endswith(".0.weight")]
    encoder = SampleCNN([len(renamed[f"encoder.blocks.{i}.0.weight"]) for i in range(len(convolutions) - 1)])
    head: nn.Module | None = None
    if projection:
        layers = [f"head.net.{i}.weight" for i in (0, 2)]
        if not all(layer in renamed for layer in layers):
            raise InputError(f"{source} has no projector; load it without projection=True")
        head = MLP(encoder.dim, [len(renamed[layer]) for layer in layers], bias=False)
    model = EmbeddingModel(Waveform(), encoder, sample_rate=SAMPLE_RATE, head=head)
    load_strict(model, renamed, source)
    return model.eval()


def with_classifier(
    model: EmbeddingModel, path: str | os.PathLike, tags: Sequence[str] | None = None
) -> EmbeddingModel:
    """Add the classifier of CLMR's linear evaluation (`finetuner`) to its encoder, with the names of the tags.

    Args:
        model: from `read`, without a head.
        path: a Lightning checkpoint (`model.0.weight`, ...) or a plain one (`0.weight`, ...) of a Linear layer or of
            Linear-ReLU-Linear.
        tags: names of the outputs; default: the 50 tags of MagnaTagATune in the order of CLMR.

    Raises:
        InputError: the file has no classifier, the number of tags or the shapes are others, or the model has a head.
    """
    if model.head is not None:
        raise InputError("a model has one head only; give the classifier or the projection, not both")
    weights = Content(read_weights(path)).weights
    names = list(tags or packaged_names("metadata/labels/magnatagatune.txt"))
    found = {f"net.{m[1]}": v for key, v in weights.items() if (m := _CLASSIFIER.fullmatch(key))}
    last = found.get("net.2.bias", found.get("net.0.bias"))
    if last is None:
        raise InputError(f"{path}: has no model.0.weight and model.0.bias; give a checkpoint of CLMR's finetuner")
    if len(last) != len(names):
        raise InputError(f"{path}: has {len(last)} outputs but there are {len(names)} tags; give its tags in order")
    hidden = len(found["net.0.bias"]) if "net.2.bias" in found else None
    head = ProbeHead(model.dim, names, hidden, multi_label=True, clip_seconds=CLIP_SAMPLES / SAMPLE_RATE)
    load_strict(head, {**found, "mean": head.mean, "scale": head.scale}, path)
    return model.with_parts(head=head).eval()


def _prefix(weights: Mapping[str, Tensor]) -> str | None:
    return next((prefix for prefix in PREFIXES if f"{prefix}encoder.sequential.0.0.weight" in weights), None)
