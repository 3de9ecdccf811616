"""`hf:<id or folder>`: audio models of Hugging Face transformers.

    hf:microsoft/wavlm-base-plus?layer=6&pool=mean
    hf:microsoft/wavlm-base-plus-sv                 the x-vector head, because its config names the class of it
    hf:openai/whisper-base?layer=mean
    hf:m-a-p/MERT-v1-95M?layer=7                    its code is on the Hub, so it needs `trusted`

`encoders.huggingface.EXTRACTORS` lists the families. Such a model can be saved, pushed and trained like any other.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ssl_audio.encoders.huggingface import (
    EXTRACTORS,
    HuggingFace,
    check_family,
    cleaned,
    layers,
    library,
    net_class,
    trimmed,
)
from ssl_audio.encoders.huggingface import settings as config_object
from ssl_audio.errors import InputError, first_line
from ssl_audio.frontends import Waveform
from ssl_audio.hub.address import Address, Option
from ssl_audio.hub.card import card_licence
from ssl_audio.hub.download import NotThere, fetch, hub_errors
from ssl_audio.hub.foreign._external import independent, needs_trust, noise, shortest_clip
from ssl_audio.hub.foreign._options import LAYER, POOL, RATE, SHORT_CLIPS, truth
from ssl_audio.model import EmbeddingModel

OPTIONS = {
    "layer": LAYER,
    "pool": POOL,
    "masking": Option(
        truth, "yes keeps the random masking and layer dropping of the model in training; no is the default"
    ),
    "rate": RATE,
    "revision": Option(str, "a branch, tag or commit of the repository on the Hub"),
    "short": SHORT_CLIPS,
}
_CONFIG, _EXTRACTOR, _CARD = "config.json", "preprocessor_config.json", "README.md"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", _INDEX, "pytorch_model.bin")
_OWN_VECTOR = ("audio-spectrogram-transformer", "clap_audio_model")  # families whose default is pool=model
_UNUSED = (
    "masked_spec_embed",
    "classifier.",
    "objective.",
)  # prefixes of weights that no embedding needs

logger = logging.getLogger("ssl_audio.hub.foreign")


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The model with its weights: the body alone, or with pool `model` the body and the head that makes the vector.

    Raises:
        InputError: transformers is not installed, there is no such model, files are missing, the family is unknown, its
            code is not trusted, or options do not fit the model.
    """
    library()
    if options.get("layer") == "sweep":
        raise InputError(
            f"{address.text}: layer=sweep stands for one model per layer; give one layer, or use ssl-audio evaluate"
        )
    folder = Path(address.rest).expanduser()
    if folder.is_dir():
        source, revision = str(folder.resolve()), None
    else:
        source, revision = address.rest, options.get("revision", address.hub.get("revision"))
        folder = _downloaded(address, revision, trusted)
    config = _read(address, folder / _CONFIG)
    extractor = _read(address, folder / _EXTRACTOR) if (folder / _EXTRACTOR).is_file() else None
    code = _code(address, config, source, revision, trusted)
    arguments = _arguments(address, config, options, code)
    extractor = _with_rate(address, extractor, arguments["config"], options.get("rate"))
    try:
        encoder = HuggingFace(extractor=extractor, **arguments)
        encoder.net.load_state_dict(_weights(address, folder, encoder))
    except InputError as error:
        raise error if address.text in str(error) else InputError(f"{address.text}: {error}") from error
    _try(address, encoder.eval())
    model = EmbeddingModel(Waveform(), encoder, encoder.sample_rate).eval()
    model.licence = card_licence(folder / _CARD)
    return model


def sweep(address: Address) -> list[str]:
    """The addresses that `layer=sweep` stands for: one for each layer."""
    folder = Path(address.rest).expanduser()
    if not folder.is_dir():
        repo, revision = address.rest, address.options.get("revision")
        with hub_errors(repo, repo, revision):
            folder = fetch(repo, repo, [(_CONFIG,)], **{**address.hub, "revision": revision})
    count = layers(cleaned(_read(address, folder / _CONFIG)))
    if count is None:
        raise InputError(
            f"{address.text}: its config does not state the number of layers; give one layer, such as layer=1"
        )
    return [address.text.replace("layer=sweep", f"layer={number}") for number in range(count + 1)]


def _downloaded(address: Address, revision: str | None, trusted: bool) -> Path:
    repo, options = address.rest, {**address.hub, "revision": revision}
    optional = (_EXTRACTOR, _CARD)
    try:
        folder = fetch(repo, repo, [(_CONFIG, weights) for weights in _WEIGHTS], optional, **options)
    except NotThere as absent:
        if absent.offline:
            raise
        raise InputError(f"{repo} has no {_CONFIG} with {', '.join(_WEIGHTS[:1] + _WEIGHTS[2:])}") from absent
    if (folder / _INDEX).is_file() and not (folder / _WEIGHTS[0]).is_file():
        parts = sorted(set(_read(address, folder / _INDEX).get("weight_map", {}).values()))
        fetch(repo, repo, [parts], **options)
    if trusted and "auto_map" in _read(address, folder / _CONFIG):
        _fetch_code(repo, options)
    return folder


def _fetch_code(repo: str, options: dict[str, Any]) -> None:
    """Download the Python files of a repository, or take them from the cache if there is no connection."""
    from huggingface_hub import snapshot_download

    with hub_errors(repo, repo, options.get("revision")):
        snapshot_download(repo, allow_patterns=["*.py"], **options)


def _read(address: Address, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        own = "; this is a model of ssl_audio, so leave hf: out" if path.with_name("config.yaml").is_file() else ""
        raise InputError(f"{address.text}: {path} cannot be read: {first_line(error)}{own}") from error
    if not isinstance(found, dict):
        raise InputError(f"{address.text}: {path} is not a mapping, as transformers writes it; download it again")
    return found


def _code(address: Address, config: Mapping[str, Any], source: str, revision: str | None, trusted: bool) -> str | None:
    """Folder or Hub id of the Python files of a model that is not part of transformers; None for any other model."""
    if "auto_map" not in config or config.get("model_type") in {*EXTRACTORS, "clap"}:
        return None
    needs_trust(address.text, trusted)
    return source if revision is None else f"{source}@{revision}"


def _arguments(
    address: Address, config: Mapping[str, Any], options: Mapping[str, Any], code: str | None
) -> dict[str, Any]:
    """Arguments of `HuggingFace`: defaults of the family are filled in, and layers are counted from the first."""
    known = dict(config) if code else cleaned(config)
    if not code:
        try:
            check_family(known)
        except InputError as error:
            raise InputError(f"{address.text}: {error}") from error
    heads = [name for name in known.get("architectures") or () if name.endswith("ForXVector")]
    own = known.get("model_type") in _OWN_VECTOR or (bool(heads) and "layer" not in options)
    layer, there = options.get("layer"), layers(known)
    if there is not None and layer is not None and layer != "mean":
        numbers = [layer] if isinstance(layer, int) else layer
        numbers = [number + there + 1 if number < 0 else number for number in numbers]
        if not all(0 <= number <= there for number in numbers):
            raise InputError(f"{address.text}: there is no such layer; the model has the layers 0 to {there}")
        layer = numbers[0] if isinstance(layer, int) else numbers
    return {
        "config": known,
        "layer": layer,
        "pool": options.get("pool", "model" if own and layer is None else "mean"),
        "masking": options.get("masking", False),
        "short": options.get("short", "refuse"),
        "code": code,
    }


def _with_rate(
    address: Address, extractor: dict[str, Any] | None, config: Mapping[str, Any], asked: int | None
) -> dict[str, Any] | None:
    """Settings of the feature extractor with the sample rate.

    Raises:
        InputError: the rate is unknown, or differs from that of the settings.
    """
    told = (extractor or {}).get("sampling_rate")
    if told is not None and asked is not None and told != asked:
        raise InputError(f"{address.text} takes {told} Hz, not {asked}; leave rate out, because audio is resampled")
    if extractor is None and config.get("model_type") in EXTRACTORS:
        logger.warning(f"{address.text}: has no {_EXTRACTOR}; the default settings of its family are used")
        return None if asked is None else {"sampling_rate": asked}
    if told is None and asked is None and config.get("model_type") not in EXTRACTORS:
        raise InputError(f"{address.text}: its sample rate is unknown; add it, such as ?rate=16000")
    return extractor if asked is None else {**(extractor or {}), "sampling_rate": asked}


def _weights(address: Address, folder: Path, encoder: HuggingFace) -> dict[str, torch.Tensor]:
    """Read the weights of the network of an encoder, in float32, with the names of the installed transformers.

    Raises:
        InputError: the files are damaged, or weights are missing.
    """
    config = encoder.config
    kind = net_class(config, encoder.pool, encoder.code)
    if config["model_type"] == "whisper":
        kind = library().WhisperModel
    made = config_object(config, encoder.masking, encoder.code)
    try:
        with _quiet():
            net, report = kind.from_pretrained(
                folder,
                config=made,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                local_files_only=True,
            )
    except Exception as error:  # transformers can raise anything for a damaged file
        raise InputError(f"{address.text}: its weights cannot be read: {first_line(error)}") from error
    needed = set(encoder.net.state_dict())
    absent = [key for key in report["missing_keys"] if _is_needed(key, needed)]
    absent += [key[0] for key in report["mismatched_keys"] if _is_needed(key[0], needed)]
    if absent:
        raise InputError(
            f"{address.text}: {len(absent)} weights are missing or have another shape, such as {absent[0]}"
        )
    return trimmed(net).state_dict()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars of transformers and its report of unused weights."""
    logs = library().utils.logging
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()


def _is_needed(key: str, needed: set[str]) -> bool:
    return not key.startswith(_UNUSED) and (key in needed or key.removeprefix("encoder.") in needed)


def _try(address: Address, encoder: HuggingFace) -> None:
    """Measure by trial passes the shortest clip and whether clips may share a batch."""
    second = encoder.sample_rate
    encoder.minimum = encoder.input.shortest
    if encoder.window is None and encoder.input.shortest == 1:
        encoder.minimum = shortest_clip(lambda samples: encoder.vectors(noise(1, samples)), second)
    encoder.shortest = max(encoder.minimum, encoder.input.shortest)
    encoder.batched = independent(encoder, address.text, 2 * second)
