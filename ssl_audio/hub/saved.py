"""Models on disk: our own layout, the checkpoints of a training run, TorchScript. No Lightning, no unsafe pickles.

Our layout is a folder: `config.yaml` (what `config.describe` says of the model), `model.safetensors`, a model card.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ssl_audio.config import build, canonical, describe, without_pretrained
from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.whitened import Whitened
from ssl_audio.errors import InputError
from ssl_audio.frontends import Waveform
from ssl_audio.hub import singer_identity
from ssl_audio.hub.clmr import is_clmr, model_from_clmr
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.version import __version__
from ssl_audio.weights import UnsafeFileError, put_weights, read_inert, read_weights

FORMAT_VERSION = 1  # of config.yaml; raise it when an older release could no longer read it
CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"


def save_model(model: EmbeddingModel, folder: str | os.PathLike, card: str | None = None) -> None:
    """Write `config.yaml`, `model.safetensors` and a model card, each whole or not at all.

    Args:
        model: made of modules that store their constructor arguments.
        folder: made if it is not there; files of these names are replaced.
        card: text of `README.md`; None writes a short one.

    Raises:
        InputError: a module does not store its arguments, so that nothing could rebuild it.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    config = {
        "format_version": FORMAT_VERSION,
        "ssl_audio_version": __version__,
        "sample_rate": model.sample_rate,
        "dim": model.dim,
        "model": describe(model),
    }
    text = yaml.safe_dump(config, sort_keys=False)
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    with write_atomically(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    write_text(folder / CARD, model_card(model, folder.resolve().name) if card is None else card)
    write_text(folder / CONFIG, text)  # last: a folder with a config is complete


def model_card(model: EmbeddingModel, name: str) -> str:
    """A short model card in Markdown."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"""---
library_name: ssl-audio
tags: [audio, embedding, self-supervised]
---
# {name}

{type(model.encoder).__name__} on {type(model.frontend).__name__}, {parameters:,} parameters: a clip of audio in,
a vector of {model.dim} numbers out.

| | |
|---|---|
| sample rate | {model.sample_rate} Hz |
| shortest clip | {model.minimum_samples} samples ({model.minimum_samples / model.sample_rate:.3f} s) |
| embedding | {model.dim} |

```python
from ssl_audio import load_model

model = load_model("path/to/this/folder")
embedding = model.embed("clip.wav")  # ({model.dim},)
```
"""


def load_path(path: Path, projection: bool, trusted: bool) -> EmbeddingModel:
    if path.is_file():
        return load_checkpoint(path, projection=projection, trusted=trusted)
    if (path / WEIGHTS).is_file() or ((path / CONFIG).is_file() and not _checkpoints(path)):
        return _load_exported(path, trusted)
    if (path / singer_identity.HYPERPARAMS).is_file() or (path / singer_identity.WEIGHTS).is_file():
        if projection:
            raise InputError(f"{path}: published models come without their projection head")
        return singer_identity.load_published(path)
    checkpoints = _checkpoints(path)
    if checkpoints:
        return load_checkpoint(checkpoints[0], projection=projection, trusted=trusted)
    listing = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{path} holds no model: it needs {CONFIG} and {WEIGHTS}, or {singer_identity.HYPERPARAMS} and {singer_identity.WEIGHTS}, "
        f"or checkpoints/*.ckpt; it has {listing}"
    )


def load_checkpoint(
    path: str | os.PathLike,
    config: str | os.PathLike | None = None,
    projection: bool = False,
    trusted: bool = False,
) -> EmbeddingModel:
    """The model inside a training checkpoint, without Lightning.

    Args:
        path: a Lightning checkpoint of one of our methods, or a checkpoint of the original CLMR.
        config: the run's `config.yaml`, for a checkpoint that does not describe its model; if it does, they must agree.
        projection: with the projection head on top.
        trusted: see `load_model`.

    Raises:
        InputError: damaged, not of ours, or not fitting its config.
    """
    path = Path(path)
    checkpoint = _read_checkpoint(path)
    if is_clmr(checkpoint):
        return model_from_clmr(checkpoint, path, projection)
    weights = checkpoint.get("state_dict")
    spec = checkpoint.get("model")
    if config is not None:
        written = _run_config(Path(config))
        spec = spec if isinstance(spec, Mapping) else written
        for key in ("frontend", "encoder", "sample_rate"):
            _agree(canonical(written.get(key)), canonical(spec.get(key)), key, f"{config} and {path}")
    if not isinstance(weights, Mapping) or not isinstance(spec, Mapping):
        raise InputError(
            f"{path} is not a checkpoint of an ssl_audio method; give the run's config if it is an old one"
        )
    parts = {"frontend": "frontend", "encoder": "encoder"} | ({"head": "projection"} if projection else {})
    built: dict[str, Any] = {}
    for part, key in parts.items():
        if key not in spec:
            raise InputError(f"{config or path}: the model has no {key!r}")
        positional = (built["encoder"].dim,) if part == "head" and not _has_in_dim(spec[key]) else ()
        built[part] = build(without_pretrained(spec[key]), *positional, trusted=trusted)
    prefixes = {f"{key}.": f"{part}." for part, key in parts.items()}
    if "whitening" in spec and not projection:  # heads were trained on embeddings as they are
        built["encoder"] = Whitened(built["encoder"], build(spec["whitening"], trusted=trusted))
        prefixes |= {"encoder.": "encoder.encoder.", "whitening.": "encoder.whitening."}
    model = EmbeddingModel(**built, sample_rate=spec.get("sample_rate", 44100))
    put_weights(model, _select(weights, prefixes), path)
    return model.eval()


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """The content; of CLMR's old Lightning checkpoints, which name classes, with empty stand-ins for those."""
    try:
        return read_weights(path)
    except UnsafeFileError as refusal:
        try:
            content = read_inert(path)
        except InputError:
            raise refusal from None
        if not is_clmr(content):
            raise
        return content


def _run_config(path: Path) -> Mapping[str, Any]:
    """The part of a run's config that describes the model."""
    section = read_yaml(path).get("model")
    if not isinstance(section, Mapping):
        raise InputError(f"{path}: no section 'model'; give the config.yaml of the run")
    return section.get("init_args", section)


def _agree(written: Any, described: Any, key: str, where: str) -> None:
    """Refuse a config that names another value than the checkpoint; what it leaves open agrees."""
    if isinstance(written, Mapping) and isinstance(described, Mapping):
        for name in written.keys() & described.keys():
            _agree(written[name], described[name], key if name == "init_args" else f"{key}.{name}", where)
    elif written is not None and written != described:
        raise InputError(f"{where} do not belong together: {key} is {written!r} and {described!r}")


def _load_exported(folder: Path, trusted: bool) -> EmbeddingModel:
    config = read_yaml(folder / CONFIG)
    version = config.get("format_version")
    if not isinstance(version, int) or "model" not in config:
        raise InputError(
            f"{folder / CONFIG} is not a model's config (no format_version); was it written by save_model?"
        )
    if version > FORMAT_VERSION:
        raise InputError(
            f"{folder} has format {version} and this release reads up to {FORMAT_VERSION}; pip install -U ssl-audio"
        )
    model = build(without_pretrained(config["model"]), trusted=trusted)
    if not isinstance(model, EmbeddingModel):
        raise InputError(f"{folder / CONFIG}: its key 'model' describes no EmbeddingModel; write it with save_model")
    put_weights(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return model


def load_torchscript(folder: Path, input_sr: int | None) -> EmbeddingModel:
    path = folder / singer_identity.TORCHSCRIPT
    if not path.is_file():
        raise InputError(f"{path}: no such file; load without torchscript=True, or write it with ssl-audio export")
    if (folder / CONFIG).is_file():
        config = read_yaml(folder / CONFIG)
        sample_rate, dim = config.get("sample_rate"), config.get("dim")
    else:
        encoder = singer_identity.read_hyperparams(folder / singer_identity.HYPERPARAMS)["encoder"]
        sample_rate, dim = singer_identity.SAMPLE_RATE, encoder.get("embedding_dim", 1000)
    if not isinstance(sample_rate, int) or not isinstance(dim, int):
        raise InputError(f"{folder / CONFIG} gives no sample_rate and dim; was it written by save_model?")
    if input_sr not in (None, sample_rate):
        raise InputError(
            f"a TorchScript model takes audio at {sample_rate} Hz only, not {input_sr}; load without torchscript=True"
        )
    try:
        script = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a TorchScript file, or damaged; fetch or write it again") from error
    return EmbeddingModel(Waveform(), _Scripted(script, dim), sample_rate).eval()


class _Scripted(Encoder):
    """A TorchScript model as an encoder of raw waveforms."""

    def __init__(self, script: torch.jit.ScriptModule, dim: int) -> None:
        super().__init__()
        self.script = script.eval()
        self.dim = dim

    def forward(self, features: Tensor) -> Tensor:
        return self.script(features)


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint itself, or that of a run folder: the best one, else the last.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint or run folder")
    found = _checkpoints(path)
    if not found:
        raise InputError(f"{path} holds no checkpoints/*.ckpt; has the run saved one yet?")
    return found[0]


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run: what run.json calls best, then the last, then others, the newest first."""
    found = [*folder.glob("checkpoints/*.ckpt"), *folder.glob("*.ckpt")]
    best = None
    if (folder / "run.json").is_file():
        try:
            best = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("best_checkpoint")
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{folder / 'run.json'}: damaged; name a checkpoint itself, or delete this file"
            ) from error
    rank = {"best": 1, "last": 2}

    def order(path: Path) -> tuple[int, float]:
        is_best = best is not None and path == folder / best
        return 0 if is_best else rank.get(path.stem.split("-")[0], 3), -path.stat().st_mtime

    return sorted(found, key=order)


def _has_in_dim(spec: Mapping[str, Any]) -> bool:
    return "in_dim" in (spec.get("init_args") or {})


def _select(weights: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        new + key.removeprefix(old): value
        for key, value in weights.items()
        for old, new in prefixes.items()
        if key.startswith(old)
    }
