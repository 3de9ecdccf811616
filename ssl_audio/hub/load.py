"""Loading models by name: a path, a published name or a Hugging Face Hub id."""

import os
import re
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

from ssl_audio.errors import InputError
from ssl_audio.hub import singer_identity
from ssl_audio.hub.place import Options
from ssl_audio.hub.readers import load_path
from ssl_audio.hub.saved import CONFIG, WEIGHTS
from ssl_audio.hub.torchscript import load_torchscript
from ssl_audio.model import EmbeddingModel

PUBLISHED_SOURCE = "BernardoTorres/singer-identity"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_model(
    name: str | os.PathLike,
    source: str | os.PathLike = PUBLISHED_SOURCE,
    torchscript: bool = False,
    input_sr: int | None = None,
    savedir: str | os.PathLike | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    projection: bool = False,
    trusted: bool = False,
) -> EmbeddingModel:
    """Load a model with its weights, on the CPU and in evaluation mode.

        load_model("byol")                              a published model
        load_model("runs/mine")                         a run folder (its best checkpoint, else its last)
        load_model("runs/mine/checkpoints/last.ckpt")   one checkpoint
        load_model("exported")                          a folder that `save_model` wrote
        load_model("somebody/their-model")              such a folder on the Hub
        load_model("byol", source="folder")             folder/byol, in any of these layouts

    Args:
        name: a path, a Hub id, or a name in `source`.
        source: a folder or a Hub id.
        torchscript: load `model.ts` instead of code and weights.
        input_sr: sample rate of the audio that the model will get, in Hz. If it is not the rate of the model, a
            differentiable resampler is put before the model. None: the rate of the model (44,100 Hz for the published
            models).
        savedir: folder to download to; default: the cache.
        revision, token, cache_dir, local_files_only: see `huggingface_hub.hf_hub_download`.
        projection: whether to include the projection head (run folders and checkpoints only).
        trusted: allow the description of the model to name classes outside of `ssl_audio`, which are then imported.

    Raises:
        InputError: there is no such model, files are missing or damaged, weights do not fit, or a file contains code.
    """
    if input_sr is not None and (not isinstance(input_sr, Integral) or input_sr < 1):
        raise InputError(f"input_sr is {input_sr!r}; it must be a whole number in Hz, such as 16000")
    if not os.fspath(name):
        raise InputError("the name of the model is empty; give a path, a Hub id, or a name such as 'byol'")
    folder = _find(name, source)
    if folder is None:
        options = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        folder = _download(str(name), str(source), torchscript, local_dir=savedir, **options)
    if torchscript:
        return load_torchscript(folder, input_sr)
    model = load_path(folder, Options(projection, trusted))
    if input_sr is not None and input_sr != model.sample_rate:
        from ssl_audio.resampling import ResampledFrontend

        frontend = ResampledFrontend(model.frontend, input_sr, model.sample_rate)
        model = EmbeddingModel(frontend, model.encoder, input_sr, model.head)
    return model.eval()


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
    if isinstance(name, os.PathLike) or path.suffix == ".ckpt" or path.is_absolute() or str(name).count("/") > 1:
        raise InputError(f"{path}: no such file or folder")
    return None


def _download(name: str, source: str, torchscript: bool, **options: Any) -> Path:
    """Download the files of a model, unless they are in the cache, and return their folder."""
    from huggingface_hub import errors, hf_hub_download

    whole_repository = source == PUBLISHED_SOURCE and _HUB_ID.fullmatch(name)
    repo, subfolder = (name, None) if whole_repository else (source, name)
    layouts: list[tuple[str, ...]] = [(CONFIG, WEIGHTS), (singer_identity.HYPERPARAMS, singer_identity.WEIGHTS)]
    if torchscript:
        layouts = [(CONFIG, singer_identity.TORCHSCRIPT), (singer_identity.HYPERPARAMS, singer_identity.TORCHSCRIPT)]
    elif source == PUBLISHED_SOURCE and not whole_repository:
        layouts.reverse()  # avoids a request for a file that does not exist
    absent: Exception | None = None
    try:
        for files in layouts:
            try:
                paths = [hf_hub_download(repo, file, subfolder=subfolder, **options) for file in files]
                return Path(paths[0]).parent
            except errors.EntryNotFoundError as error:  # its subclass means "offline and not in the cache"
                absent = error
                if isinstance(error, errors.LocalEntryNotFoundError):
                    options["local_files_only"] = True  # it has tried five times to connect
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"the Hub has no repository {repo!r}, or it is private; check the name, or pass token=..."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{repo} has no revision {options.get('revision')!r}") from error
    except errors.HFValidationError as error:
        raise InputError(f"{repo!r} is not a Hub id: {error}") from error
    except (getattr(errors, "HTTPError", OSError), OSError) as error:  # HTTPError: the connection broke
        raise InputError(
            f"the download of {name!r} from {repo} failed ({str(error).splitlines()[0]}); run it again"
        ) from error
    raise _absent(absent, name, repo, options)


def _absent(error: Exception | None, name: str, repo: str, options: dict[str, Any]) -> InputError:
    """The error for a model that was not found: the Hub is out of reach, or it has only other names."""
    from huggingface_hub import HfApi, errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        return InputError(
            f"{name!r} from {repo} is not in the cache, and the Hub cannot be reached or local_files_only is set; "
            "load it once with a connection"
        )
    try:
        files = HfApi().list_repo_files(repo, revision=options.get("revision"), token=options.get("token"))
        there = _model_names(files)
    except (errors.HfHubHTTPError, OSError):
        there = "names that could not be listed"
    return InputError(f"{repo} has no model {name!r}; it has {there}")


def _model_names(files: Iterable[str]) -> str:
    names = sorted(
        {file.rpartition("/")[0] for file in files if file.rpartition("/")[2] in (CONFIG, singer_identity.HYPERPARAMS)}
    )
    return ", ".join(names) or "none"
