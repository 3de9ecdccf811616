"""Loading models by name: a path, a published name or a Hugging Face Hub id."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from typing import Any

from ssl_audio.errors import InputError
from ssl_audio.hub import singer_identity
from ssl_audio.hub.address import load_address, parse_address
from ssl_audio.hub.calibration_files import ARRAYS, CALIBRATION
from ssl_audio.hub.download import NotThere, fetch
from ssl_audio.hub.place import Options
from ssl_audio.hub.readers import load_path
from ssl_audio.hub.saved import CARD, CONFIG, WEIGHTS
from ssl_audio.hub.torchscript import load_torchscript
from ssl_audio.model import EmbeddingModel
from ssl_audio.weights import refuse_not_finite

PUBLISHED_SOURCE = "BernardoTorres/singer-identity"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_model(
    model: str | os.PathLike,
    source: str | os.PathLike = PUBLISHED_SOURCE,
    torchscript: bool = False,
    savedir: str | os.PathLike | None = None,
    input_sr: int | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    projection: bool = False,
    trusted: bool = False,
    calibration: bool = True,
) -> EmbeddingModel:
    """Load a model with its weights, on the CPU and in evaluation mode.

        load_model("byol")                              a published model
        load_model("runs/mine/0")                       a run folder (its best checkpoint, else its last)
        load_model("runs/mine")                         the newest run of this name
        load_model("runs/mine/checkpoints/last.ckpt")   one checkpoint
        load_model("exported")                          a folder that `save_model` wrote
        load_model("somebody/their-model")              such a folder on the Hub
        load_model("byol", source="folder")             folder/byol, in any of these layouts
        load_model("mine.pt", source="folder")          weights, with their hyperparams.yaml in the same folder
        load_model("hf:microsoft/wavlm-base-plus")      a foreign model by its address; see docs/foreign-models.md

    Args:
        model: a path, a Hub id, a name in `source`, or an address.
        source: a folder or a Hub id.
        torchscript: load `model.ts` instead of code and weights.
        savedir: folder to download to; default: the cache.
        input_sr: sample rate of the audio that the model will get, in Hz. If it is not the rate of the model, a
            differentiable resampler is put before the model. None: the rate of the model (44,100 Hz for the published
            models). For models that fit the published layout, the resampler is that of ssl-singer-identity
            (`PUBLISHED_FILTER`); for others, its filter is sharper.
        revision, token, cache_dir, local_files_only: see `huggingface_hub.hf_hub_download`.
        projection: whether to include the projection head (run folders and checkpoints only).
        trusted: allow the description of the model to name classes outside of `ssl_audio`, such as your own encoder,
            and an address to name code. Their modules are imported, which runs code; pass True only for models whose
            origin you know.
        calibration: whether to load the calibration in the folder, too; False for one that the weights have outdated.

    Returns:
        The model. Its attribute `licence` is the licence of the weights that the card or the package names, else
        "unknown".

    Raises:
        InputError: there is no such model, files are missing or damaged, weights do not fit or are not finite, a file
            contains code, or the calibration is of another model.
    """
    if input_sr is not None and (not isinstance(input_sr, Integral) or input_sr < 1):
        raise InputError(f"input_sr is {input_sr!r}; it must be a whole number in Hz, such as 16000")
    if savedir is not None and not isinstance(savedir, (str, os.PathLike)):
        raise InputError(f"savedir is {savedir!r}; it must be a folder (a sample rate is input_sr={savedir!r})")
    if not os.fspath(model):
        raise InputError("the name of the model is empty; give a path, a Hub id, or a name such as 'byol'")
    hub = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    inside = isinstance(model, str) and (Path(source) / model).exists()
    address = parse_address(model, **hub) if isinstance(model, str) and not inside else None
    if address is not None:
        if projection or torchscript:
            raise InputError(f"{model}: a foreign model has neither a projection head nor a model.ts of ours")
        loaded = load_address(address, trusted)
    else:
        folder = _find(model, source)
        if folder is None:
            folder = _download(str(model), str(source), torchscript, local_dir=savedir, **hub)
        if torchscript:
            return load_torchscript(folder, input_sr)
        loaded = load_path(folder, Options(projection, trusted, calibration))
    refuse_not_finite(loaded, model)
    if input_sr is not None and input_sr != loaded.sample_rate:
        loaded = _resampled(loaded, input_sr)
    return loaded.eval()


def _resampled(model: EmbeddingModel, input_sr: int) -> EmbeddingModel:
    """The model with a resampler in front."""
    from ssl_audio.resampling import PUBLISHED_FILTER, ResampledFrontend

    options = PUBLISHED_FILTER if singer_identity.can_hold(model) else {}
    frontend = ResampledFrontend(model.frontend, input_sr, model.sample_rate, **options)
    return model.with_parts(frontend=frontend, sample_rate=input_sr)


def _find(name: str | os.PathLike, source: str | os.PathLike) -> Path | None:
    """The local path of the model; None if it is on the Hub."""
    if str(source) != PUBLISHED_SOURCE:
        folder = Path(source)
        if folder.is_dir():
            if not (folder / name).exists():
                names = _model_names(p.relative_to(folder).as_posix() for p in folder.rglob("*.yaml"))
                raise InputError(f"{folder} has no model {str(name)!r}; it has {names}")
            return folder / name
        if not _HUB_ID.fullmatch(str(source)):
            raise InputError(f"source {str(source)!r} is neither a folder nor a Hub id (owner/name)")
        return None
    path = Path(name)
    if path.exists():
        return path
    written = str(name)
    first = written.partition("/")[0]
    if (
        isinstance(name, os.PathLike)
        or path.suffix in (".ckpt", ".ts", ".safetensors", ".yaml")
        or path.is_absolute()
        or written.count("/") > 1
        or written.endswith("/")
        or ("/" in written and (first == "runs" or Path(first).is_dir()))  # a mistyped run, not an owner on the Hub
    ):
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, there, n=1)
        raise InputError(f"{path}: no such file or folder" + (f"; did you mean {near[0]!r}?" if near else ""))
    return None


def _download(name: str, source: str, torchscript: bool, **options: Any) -> Path:
    """Download the files of a model, unless they are in the cache, and return their folder."""
    whole_repository = source == PUBLISHED_SOURCE and _HUB_ID.fullmatch(name)
    repo, subfolder = (name, None) if whole_repository else (source, name)
    layouts: list[tuple[str, ...]] = [(CONFIG, WEIGHTS), (singer_identity.HYPERPARAMS, singer_identity.WEIGHTS)]
    if torchscript:
        layouts = [(CONFIG, singer_identity.TORCHSCRIPT), (singer_identity.HYPERPARAMS, singer_identity.TORCHSCRIPT)]
    elif source == PUBLISHED_SOURCE and not whole_repository:
        layouts.reverse()  # avoids a request for a file that does not exist
    try:
        return fetch(name, repo, layouts, (CARD, CALIBRATION, ARRAYS) if whole_repository else (), subfolder, **options)
    except NotThere as absent:
        if absent.offline:
            raise
        there = f"{repo} has no model {name!r}; it has {_names_there(repo, options)}"
        raise InputError(there + ("" if whole_repository else "; and there is no such file or folder")) from absent


def _names_there(repo: str, options: dict[str, Any]) -> str:
    from huggingface_hub import HfApi, errors

    try:
        files = HfApi().list_repo_files(repo, revision=options.get("revision"), token=options.get("token"))
        return _model_names(files)
    except (errors.HfHubHTTPError, OSError):
        return "names that could not be listed"


def _model_names(files: Iterable[str]) -> str:
    names = sorted(
        {file.rpartition("/")[0] for file in files if file.rpartition("/")[2] in (CONFIG, singer_identity.HYPERPARAMS)}
    )
    return ", ".join(names) or "none"
