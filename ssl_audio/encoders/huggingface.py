"""Audio models of Hugging Face transformers (https://huggingface.co/docs/transformers) as encoders.

An encoder is made from the configuration of the model, a plain mapping, and has random weights.
`load_model("hf:owner/name")` loads the published ones. A saved encoder loads without the Hub.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ssl_audio.encoders.clips import ClipEncoder
from ssl_audio.encoders.huggingface_inputs import INPUTS, ExtractorInput, ModelInput
from ssl_audio.errors import InputError, first_line, suggest
from ssl_audio.pooling import MeanPooling, StatisticsPooling
from ssl_audio.utils.extras import install_command

POOLS = ("mean", "mean+std", "cls", "model")
_WAVE = "Wav2Vec2FeatureExtractor"
EXTRACTORS = {  # model family: its feature extractor, for models without preprocessor_config.json
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "sew"), _WAVE),
    **dict.fromkeys(("sew-d", "wav2vec2-conformer"), _WAVE),
    "wav2vec2-bert": "SeamlessM4TFeatureExtractor",
    "whisper": "WhisperFeatureExtractor",
    "audio-spectrogram-transformer": "ASTFeatureExtractor",
    "clap_audio_model": "ClapFeatureExtractor",
}
_AST_TOKENS = 2  # class and distillation token, before the patches
# Keys of a config that do not change the network. Other keys that are dropped start with an underscore or end in
# "_implementation"; some of them can make transformers download code.
_DROPPED = {
    *("transformers_version", "auto_map", "quantization_config", "torch_dtype", "dtype", "id2label", "label2id"),
    *("task_specific_params", "num_labels", "use_kernels", "kernel_config"),
}


class HuggingFace(ClipEncoder):
    """Waveforms -> `(batch, dim)`, by a model of transformers. It is differentiable and can be trained.

    Args:
        config: content of the `config.json` of a model. Its family must be in `EXTRACTORS`, unless `code` is given.
            Keys that could make transformers download code are ignored.
        extractor: content of its `preprocessor_config.json`; None: the default settings of the family.
        layer: number of the layer, from 0 (the input of the first layer) to the number of layers; a list of numbers,
            which are concatenated; or `mean` for the mean over all layers. None: the output of the model.
        pool: how frames become a vector:
            `mean`: the mean over time;
            `mean+std`: mean and standard deviation over time, concatenated;
            `cls`: the first token, for models that have a class token;
            `model`: the vector that the model itself computes (x-vector heads, AST, CLAP).
        masking: keep the random masking and layer dropping of the model in training.
        minimum: samples of the shortest clip, if the extractor does not state it.
        short, batched: see `ClipEncoder`.
        code: folder or Hub id (`owner/name`, or `owner/name@revision`) of the Python files of a model that is not part
            of transformers. This code is run.

    Attributes:
        sample_rate: sample rate of the waveforms in Hz.
        frame_dim: size of a frame; None for pool `model` and `cls`.
    """

    runs_code = ("code",)

    def __init__(
        self,
        config: Mapping[str, Any],
        extractor: Mapping[str, Any] | None = None,
        layer: int | str | Sequence[int] | None = None,
        pool: str = "mean",
        masking: bool = False,
        minimum: int = 1,
        short: str = "refuse",
        batched: bool = True,
        code: str | None = None,
    ) -> None:
        super().__init__(short, batched)
        if pool not in POOLS:
            raise InputError(f"pool is {pool!r}; it must be one of {', '.join(POOLS)}")
        if pool == "model" and layer is not None:
            raise InputError("pool=model uses the last layer; leave layer out")
        self.config = dict(config) if code else cleaned(config)
        self.extractor = None if extractor is None else dict(extractor)
        self.layer = list(layer) if isinstance(layer, (list, tuple)) else layer
        self.pool = pool
        self.masking = masking
        self.minimum = minimum
        self.code = code
        self.input = _input(self.config, self.extractor, code)
        self.net = trimmed(net_class(self.config, pool, code)(settings(self.config, masking, code)))
        self.sample_rate, self.window = self.input.sample_rate, self.input.window
        self.shortest = max(minimum, self.input.shortest)
        self._check_layers()
        self.dim, self.frame_dim = self._sizes()

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        if self.pool == "model":
            return _own_vector(self.net(**self.input(clips)))
        hidden = self._hidden(clips)
        if self.pool == "cls":
            return hidden[:, 0]
        pooling = MeanPooling if self.pool == "mean" else StatisticsPooling
        return pooling(hidden.shape[2])(self._of_the_clip(hidden, clips.shape[1]))

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, frame_dim)`. Clips longer than the window are cut into pieces."""
        if self.frame_dim is None:
            raise InputError(f"{self.config['model_type']} with pool={self.pool} has no frames; take pool=mean")
        pieces = features.split(self.window or features.shape[1], dim=1)
        pieces = [piece for i, piece in enumerate(pieces) if not i or piece.shape[1] >= self.shortest]
        return torch.cat([self._of_the_clip(self._hidden(piece), piece.shape[1]) for piece in pieces], dim=1)

    def _hidden(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, tokens, size)`: the output of the chosen layers."""
        inputs = self.input(clips)
        if self.layer is None:
            return _frames_of(self.net(**inputs))
        states = self.net(**inputs, output_hidden_states=True).hidden_states
        if self.layer == "mean":
            return torch.stack(tuple(states)).mean(dim=0)
        numbers = [self.layer] if isinstance(self.layer, int) else self.layer
        return torch.cat([states[number] for number in numbers], dim=2)

    def _of_the_clip(self, hidden: Tensor, samples: int) -> Tensor:
        """The frames of the clip: `hidden` without class tokens and without padding."""
        count = self.input.frames(samples)
        if self.config["model_type"] == "audio-spectrogram-transformer":
            size, stride = self.config.get("patch_size", 16), self.config.get("time_stride", 10)
            bands, step = self.config.get("num_mel_bins", 128), self.config.get("frequency_stride", 10)
            patches = hidden[:, _AST_TOKENS:].unflatten(1, ((bands - size) // step + 1, -1)).mean(dim=1)
            return patches[:, : max(1, (count - size) // stride + 1)]
        return hidden if count is None else hidden[:, :count]

    def _check_layers(self) -> None:
        if self.layer is None or self.layer == "mean":
            return
        numbers: list[Any] = self.layer if isinstance(self.layer, list) else [self.layer]
        if not numbers or any(type(number) is not int for number in numbers):
            raise InputError(f"layer is {self.layer!r}; it must be a number, several numbers, or mean")
        there = layers(self.config)
        if there is not None and not all(0 <= number <= there for number in numbers):
            raise InputError(f"layer is {self.layer}; this model has the layers 0 to {there}")

    def _sizes(self) -> tuple[int, int | None]:
        """Sizes of the vector and of a frame, from the config if it states them, otherwise from a forward pass."""
        size = self.config.get("hidden_size") or self.config.get("d_model")
        if self.pool == "model" or not isinstance(size, int) or self.code:
            return self._measured_sizes()
        frame = size * (len(self.layer) if isinstance(self.layer, list) else 1)
        return frame * (2 if self.pool == "mean+std" else 1), None if self.pool == "cls" else frame

    @torch.no_grad()
    def _measured_sizes(self) -> tuple[int, int | None]:
        before, noise = self.training, torch.randn(1, min(self.window or 2**30, max(self.shortest, self.sample_rate)))
        self.eval()
        try:
            dim = self.vectors(noise).shape[1]
            has_frames = self.pool in ("mean", "mean+std")
            return dim, self._hidden(noise).shape[2] if has_frames else None
        finally:
            self.train(before)


def cleaned(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a `config.json` that the network depends on; of CLAP, those of the audio tower."""
    found: dict[str, Any] = dict(config)
    if found.get("model_type") == "clap":
        tower: dict[str, Any] = {key: found[key] for key in ("projection_dim", "projection_hidden_act") if key in found}
        found = {**found.get("audio_config", {}), **tower, "model_type": "clap_audio_model"}
    return {
        key: value
        for key, value in found.items()
        if key not in _DROPPED and not key.startswith("_") and not key.endswith("_implementation")
    }


def layers(config: Mapping[str, Any]) -> int | None:
    """The number of layers of a model; None if the config does not state it."""
    count = config.get("encoder_layers") or config.get("num_hidden_layers")
    return count if isinstance(count, int) else None


def settings(config: Mapping[str, Any], masking: bool = False, code: str | None = None) -> Any:
    """The configuration object of transformers.

    Args:
        config: see `HuggingFace`.
        masking: see `HuggingFace`.
        code: see `HuggingFace`.

    Raises:
        InputError: the installed transformers does not have this kind of model.
    """
    transformers = library()
    kind = config.get("model_type")
    reference = (config.get("auto_map") or {}).get("AutoConfig")
    if code and reference:
        made = _remote_class(reference, code).from_dict({k: v for k, v in config.items() if k != "quantization_config"})
    elif kind not in transformers.CONFIG_MAPPING:
        raise InputError(f"transformers {transformers.__version__} has no model_type {kind!r}; install a newer version")
    else:
        made = transformers.CONFIG_MAPPING[kind].from_dict(dict(config))
    if not masking:
        off = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
        for name, value in {**off, "layerdrop": 0.0, "encoder_layerdrop": 0.0}.items():
            if hasattr(made, name):
                setattr(made, name, value)
    return made


def check_family(config: Mapping[str, Any]) -> None:
    """Raise InputError if the family of a model is not supported."""
    kind = config.get("model_type")
    if kind not in EXTRACTORS:
        raise InputError(f"the model_type {kind!r} is not supported{suggest(str(kind), EXTRACTORS)}")


def net_class(config: Mapping[str, Any], pool: str, code: str | None = None) -> Any:
    """The class of the network: with pool `model` the whole model, otherwise its body.

    Raises:
        InputError: the family is not supported, or it does not have this kind of pooling.
    """
    transformers = library()
    kind = config.get("model_type")
    reference = (config.get("auto_map") or {}).get("AutoModel")
    if code and reference:
        return _remote_class(reference, code)
    check_family(config)
    if pool == "cls" and kind != "audio-spectrogram-transformer":
        raise InputError(f"{kind} has no class token for pool=cls; take pool=mean")
    if kind == "clap_audio_model":
        if pool != "model":
            raise InputError(f"CLAP computes one vector per clip; take pool=model instead of pool={pool}")
        return transformers.ClapAudioModelWithProjection
    if kind == "whisper" and pool != "model":
        return import_module("transformers.models.whisper.modeling_whisper").WhisperEncoder
    heads = [name for name in config.get("architectures") or () if name.endswith("ForXVector")]
    if pool == "model" and heads and hasattr(transformers, heads[0]):
        return getattr(transformers, heads[0])
    if pool == "model" and kind != "audio-spectrogram-transformer":
        raise InputError(f"{kind} computes no vector of its own for pool=model; take pool=mean")
    return transformers.MODEL_MAPPING[transformers.CONFIG_MAPPING[kind]]


def trimmed(net: nn.Module) -> nn.Module:
    """Remove the parts of a network that no embedding needs: decoder and classifiers."""
    net = getattr(net, "encoder", net) if type(net).__name__ == "WhisperModel" else net
    for name in ("classifier", "objective"):  # of the x-vector heads
        if type(net).__name__.endswith("ForXVector"):
            setattr(net, name, nn.Identity())
    for part in net.modules():
        if hasattr(
            part, "_requires_grad"
        ):  # transformers would set requires_grad of the waveform, which fails for a non-leaf
            part._requires_grad = False
    return net


def library() -> Any:
    """The module `transformers`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise InputError(f"this model needs transformers; install it with: {install_command('hf')}") from error


def _input(config: Mapping[str, Any], extractor: Mapping[str, Any] | None, code: str | None) -> ModelInput:
    found = dict(extractor or {})
    reference = (found.get("auto_map") or {}).get("AutoFeatureExtractor")
    if code and reference:
        kind = _remote_class(reference, code)
        return ExtractorInput(found, kind(**{key: value for key, value in found.items() if key != "auto_map"}))
    name = found.get("feature_extractor_type") or EXTRACTORS.get(str(config.get("model_type")))
    if name is None and code:
        name, found = _WAVE, {"do_normalize": False, **found}
    if name not in INPUTS:
        raise InputError(f"the feature extractor {name!r} is not supported{suggest(str(name), INPUTS)}")
    return INPUTS[name](found)


def _remote_class(reference: str, code: str) -> Any:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    repository, _, revision = code.partition("@")
    try:
        return get_class_from_dynamic_module(reference, repository, revision=revision or None)
    except Exception as error:  # the code of a module can raise anything
        raise InputError(f"{code}: its code {reference} cannot be imported ({first_line(error)})") from error


def _frames_of(output: Any) -> Tensor:
    found = getattr(output, "last_hidden_state", None)
    if found is None:
        found = getattr(output, "hidden_states", output)  # Dasheng returns a tensor
    if not isinstance(found, Tensor) or found.ndim != 3:
        raise InputError("the model returns no frames (batch, time, size); take pool=model")
    return found


def _own_vector(output: Any) -> Tensor:
    if getattr(output, "audio_embeds", None) is not None:
        return nn.functional.normalize(output.audio_embeds, dim=-1)
    for name in ("embeddings", "pooler_output"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    raise InputError("the model computes no vector of its own for pool=model; take pool=mean")
