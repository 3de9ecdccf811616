"""Audio models of Hugging Face transformers as encoders: chosen layers, pooled over time.

https://huggingface.co/docs/transformers. An encoder is made from the model's configuration, a plain mapping, with
random weights; `load_model("hf:owner/name")` puts the published ones in. Saved, it needs neither the Hub nor the
model's name.
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

POOLS = ("mean", "mean+std", "cls", "model")
_WAVE = "Wav2Vec2FeatureExtractor"
EXTRACTORS = {  # what a model reads that comes without a preprocessor_config.json
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "sew"), _WAVE),
    **dict.fromkeys(("sew-d", "wav2vec2-conformer"), _WAVE),
    "wav2vec2-bert": "SeamlessM4TFeatureExtractor",
    "whisper": "WhisperFeatureExtractor",
    "audio-spectrogram-transformer": "ASTFeatureExtractor",
    "clap_audio_model": "ClapFeatureExtractor",
}
_AST_TOKENS = 2  # before the patches
# Keys that say where a model came from or how it ran there. Those that begin with an underscore or name an
# implementation could fetch code.
_DROPPED = {
    *("transformers_version", "auto_map", "quantization_config", "torch_dtype", "dtype", "id2label", "label2id"),
    *("task_specific_params", "num_labels", "use_kernels", "kernel_config"),
}


class HuggingFace(ClipEncoder):
    """Waveforms -> a vector of a transformers model: `(batch, dim)`; differentiable, and trainable.

    Args:
        config: the model's `config.json`, of one of the families in `EXTRACTORS` (or any, with `code`). Keys that would
            fetch code are ignored.
        extractor: its `preprocessor_config.json`; None takes the family's usual settings.
        layer: a number from 0, what enters the first layer, to the number of layers; `mean` over all of these; several
            numbers, side by side. None is the model's output.
        pool: over time `mean`, or `mean+std`, mean and deviation side by side; `cls`, the first token of models that
            have one; `model`, the vector that the model itself makes (the x-vector heads, AST, CLAP).
        masking: keep the model's own random masking and dropping of layers in training.
        minimum: samples that the model needs, where the extractor does not tell.
        short, batched: see `ClipEncoder`.
        code: folder or Hub id (`owner/name`, or `owner/name@revision`) of the Python files of a model that is not part
            of transformers. They are run.

    Attributes:
        sample_rate: of the waveforms, in Hz.
        frame_dim: size of the frames; None for pool `model` and `cls`.
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
            raise InputError("pool=model is the vector that the model makes of its last layer; leave layer out")
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
        """`(batch, samples)` -> `(batch, frames, frame_dim)`; clips longer than the window piece by piece."""
        if self.frame_dim is None:
            raise InputError(f"{self.config['model_type']} with pool={self.pool} has no frames; take pool=mean")
        pieces = features.split(self.window or features.shape[1], dim=1)
        pieces = [piece for i, piece in enumerate(pieces) if not i or piece.shape[1] >= self.shortest]
        return torch.cat([self._of_the_clip(self._hidden(piece), piece.shape[1]) for piece in pieces], dim=1)

    def _hidden(self, clips: Tensor) -> Tensor:
        """`(batch, tokens, size)` of the chosen layers."""
        inputs = self.input(clips)
        if self.layer is None:
            return _frames_of(self.net(**inputs))
        states = self.net(**inputs, output_hidden_states=True).hidden_states
        if self.layer == "mean":
            return torch.stack(tuple(states)).mean(dim=0)
        numbers = [self.layer] if isinstance(self.layer, int) else self.layer
        return torch.cat([states[number] for number in numbers], dim=2)

    def _of_the_clip(self, hidden: Tensor, samples: int) -> Tensor:
        """Without the tokens in front and without what was padded."""
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
        """Size of the vector and of a frame, by the config where it tells, else by a pass."""
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
    """A `config.json` without what says where the model came from; CLAP's is cut down to its audio tower."""
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
    """How many layers a model has; None where the config does not say."""
    count = config.get("encoder_layers") or config.get("num_hidden_layers")
    return count if isinstance(count, int) else None


def settings(config: Mapping[str, Any], masking: bool = False, code: str | None = None) -> Any:
    """The configuration object of transformers."""
    transformers = library()
    kind = config.get("model_type")
    reference = (config.get("auto_map") or {}).get("AutoConfig")
    if code and reference:
        made = _remote_class(reference, code).from_dict({k: v for k, v in config.items() if k != "quantization_config"})
    elif kind not in transformers.CONFIG_MAPPING:
        raise InputError(f"transformers {transformers.__version__} has no model_type {kind!r}; a newer one may have it")
    else:
        made = transformers.CONFIG_MAPPING[kind].from_dict(dict(config))
    if not masking:
        off = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
        for name, value in {**off, "layerdrop": 0.0, "encoder_layerdrop": 0.0}.items():
            if hasattr(made, name):
                setattr(made, name, value)
    return made


def check_family(config: Mapping[str, Any]) -> None:
    """Raise InputError for a model of a family that is not known here."""
    kind = config.get("model_type")
    if kind not in EXTRACTORS:
        raise InputError(f"model_type {kind!r} is no audio model that is known here{suggest(str(kind), EXTRACTORS)}")


def net_class(config: Mapping[str, Any], pool: str, code: str | None = None) -> Any:
    """The class of the network: the model's own with pool `model`, else its body.

    Raises:
        InputError: a family that gives no embedding of audio, or one without such a vector.
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
            raise InputError(f"CLAP gives one vector a clip; take pool=model instead of pool={pool}")
        return transformers.ClapAudioModelWithProjection
    if kind == "whisper" and pool != "model":
        return import_module("transformers.models.whisper.modeling_whisper").WhisperEncoder
    heads = [name for name in config.get("architectures") or () if name.endswith("ForXVector")]
    if pool == "model" and heads and hasattr(transformers, heads[0]):
        return getattr(transformers, heads[0])
    if pool == "model" and kind != "audio-spectrogram-transformer":
        raise InputError(f"{kind} makes no vector of its own for pool=model; take pool=mean")
    return transformers.MODEL_MAPPING[transformers.CONFIG_MAPPING[kind]]


def trimmed(net: nn.Module) -> nn.Module:
    """A network without what no embedding needs: a decoder, classifiers, and tricks that gradients do not need."""
    net = getattr(net, "encoder", net) if type(net).__name__ == "WhisperModel" else net
    for name in ("classifier", "objective"):  # of the x-vector heads
        if type(net).__name__.endswith("ForXVector"):
            setattr(net, name, nn.Identity())
    for part in net.modules():
        if hasattr(part, "_requires_grad"):  # it would ask for gradients of a waveform that has a history
            part._requires_grad = False
    return net


def library() -> Any:
    """The module transformers.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise InputError("this needs transformers; install it with: pip install 'ssl-audio[hf]'") from error


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
        raise InputError(f"the feature extractor {name!r} is not known here{suggest(str(name), INPUTS)}")
    return INPUTS[name](found)


def _remote_class(reference: str, code: str) -> Any:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    repository, _, revision = code.partition("@")
    try:
        return get_class_from_dynamic_module(reference, repository, revision=revision or None)
    except Exception as error:  # whatever somebody's module does when it is imported
        raise InputError(f"{code}: its code {reference} cannot be imported ({first_line(error)})") from error


def _frames_of(output: Any) -> Tensor:
    found = getattr(output, "last_hidden_state", None)
    if found is None:
        found = getattr(output, "hidden_states", output)  # a tensor in Dasheng
    if not isinstance(found, Tensor) or found.ndim != 3:
        raise InputError("the model gives no frames (batch, time, size); take pool=model")
    return found


def _own_vector(output: Any) -> Tensor:
    if getattr(output, "audio_embeds", None) is not None:
        return nn.functional.normalize(output.audio_embeds, dim=-1)
    for name in ("embeddings", "pooler_output"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    raise InputError("the model makes no vector of its own for pool=model; take pool=mean")
