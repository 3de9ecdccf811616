"""CLMR's published checkpoints (Spijkervet & Burgoyne, 2021), Lightning's and plain -> SampleCNN and its classifier.

    Lightning, pre-training     state_dict: model.encoder.sequential.<block>.<layer>.*, model.projector.{0,2}.weight
    plain                       encoder.sequential.<block>.<layer>.*, projector.{0,2}.weight
    Lightning, classifier       state_dict: model.{0,2}.{weight,bias} of Linear or Linear-ReLU-Linear
    plain, classifier           {0,2}.{weight,bias}

Blocks and layers are numbered as ours. This is the only module that knows these names.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssl_audio.data.corpora.magnatagatune import PONS_TAGS
from ssl_audio.encoders import SampleCNN
from ssl_audio.errors import InputError
from ssl_audio.frontends import Waveform
from ssl_audio.heads import MLP, ProbeHead
from ssl_audio.model import EmbeddingModel
from ssl_audio.weights import put_weights, read_inert, read_weights

SAMPLE_RATE, CLIP_SAMPLES = 22050, 59049
_ENCODER = re.compile(r"(?:model\.)?encoder\.sequential\.(.+)")
_PROJECTOR = re.compile(r"(?:model\.)?projector\.(.+)")
_CLASSIFIER = re.compile(r"(?:model\.)?([02]\.(?:weight|bias))")


def load_clmr(
    checkpoint: str | os.PathLike,
    classifier: str | os.PathLike | None = None,
    tags: Sequence[str] | None = None,
    projection: bool = False,
) -> EmbeddingModel:
    """The encoder of a CLMR checkpoint, alone or with a head on top.

    Args:
        checkpoint: of pre-training, Lightning's or plain.
        classifier: of the linear evaluation (`finetuner`); its outputs become named tags.
        tags: their names in order; default: the 50 of MagnaTagATune, in the order that CLMR used.
        projection: with the projection head of the pre-training.

    Raises:
        InputError: no such file, other keys, shapes that do not fit, another number of tags, two heads.
    """
    if classifier is not None and projection:
        raise InputError("a model has one head: give the classifier or the projection, not both")
    weights = _state(checkpoint)
    encoder = SampleCNN()
    found = {f"blocks.{m[1]}": v for key, v in weights.items() if (m := _ENCODER.fullmatch(key))}
    if not found:
        raise InputError(f"{checkpoint}: has no encoder.sequential.* keys, so it is no CLMR checkpoint")
    put_weights(encoder, found, checkpoint)
    head: nn.Module | None = None
    if projection:
        head = MLP(encoder.dim, [512, 64], bias=False)
        found = {f"net.{m[1]}": v for key, v in weights.items() if (m := _PROJECTOR.fullmatch(key))}
        put_weights(head, found, checkpoint)
    elif classifier is not None:
        head = _classifier(classifier, encoder.dim, list(tags or PONS_TAGS))
    return EmbeddingModel(Waveform(), encoder, SAMPLE_RATE, head).eval()


def _classifier(path: str | os.PathLike, dim: int, tags: list[str]) -> ProbeHead:
    found = {f"net.{m[1]}": v for key, v in _state(path).items() if (m := _CLASSIFIER.fullmatch(key))}
    last = found.get("net.2.bias", found.get("net.0.bias"))
    if last is None:
        raise InputError(f"{path}: has no model.0.weight and bias, so it is no classifier of CLMR")
    if len(last) != len(tags):
        raise InputError(f"{path}: has {len(last)} outputs and there are {len(tags)} tags; give its tags in order")
    hidden = len(found["net.0.bias"]) if "net.2.bias" in found else None
    head = ProbeHead(dim, tags, hidden, multi_label=True, clip_seconds=CLIP_SAMPLES / SAMPLE_RATE)
    put_weights(head, {**found, "mean": head.mean, "scale": head.scale}, path)
    return head


def _state(path: str | os.PathLike) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint; Lightning's old ones name classes, which are neither imported nor run."""
    try:
        content: dict[str, Any] = read_weights(path)
    except InputError as error:
        if "would run code" not in str(error):
            raise
        content = read_inert(path)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: its state_dict is no dictionary")
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}
