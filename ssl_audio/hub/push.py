"""Uploading a saved model to the Hugging Face Hub."""

import os
from pathlib import Path

from ssl_audio.errors import InputError, first_line
from ssl_audio.hub.calibration_files import ARRAYS, CALIBRATION
from ssl_audio.hub.card import Metrics, model_card
from ssl_audio.hub.place import Options
from ssl_audio.hub.readers import load_path
from ssl_audio.hub.saved import CARD, CONFIG, WEIGHTS

TRAINING = "training.yaml"  # a run's resolved config, where it lies beside the model


def push_to_hub(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    licence: str | None = None,
    data: str | None = None,
    training: str | os.PathLike | None = None,
    metrics: Metrics = None,
    message: str = "Upload model",
) -> str:
    """Upload a saved model with its card, in one commit; the repository is made if it is not there.

    Args:
        folder: what `save_model` or `ssl-audio convert` wrote: `config.yaml` and `model.safetensors`. A `model.ts`, a
            `training.yaml` and a calibration in it go along.
        repo_id: `owner/name` on the Hub; `load_model("owner/name")` then loads it.
        private: make a new repository private.
        token: of the Hub, with the right to write; by default the one of `hf auth login`.
        licence: of the weights, as the Hub names it ("mit", "cc-by-nc-4.0", ...).
        data: what the model was trained on, in a sentence or more.
        training: the run's `config.yaml`, shown in the card; by default `training.yaml` in the folder.
        metrics: results with intervals: the JSON record that `ssl-audio eval` writes, or its list of results,
            `{"dataset": ..., "eer": ..., "eer_interval": [low, high], ...}`.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        InputError: the folder does not hold a model that loads, the name or the token is wrong, or the Hub is out of
            reach. Nothing is uploaded then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    folder = Path(folder)
    if not folder.is_dir() or not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
        raise InputError(f"{folder} holds no {CONFIG} and {WEIGHTS}; write them with save_model or ssl-audio convert")
    model = load_path(folder, Options(trusted=True))
    card = model_card(model, repo_id, licence, data, training or folder / TRAINING, metrics)
    files: dict[str, Path | bytes] = {
        name: folder / name for name in (CONFIG, WEIGHTS, TRAINING, "model.ts", CALIBRATION, ARRAYS)
    }
    files = {name: path for name, path in files.items() if isinstance(path, Path) and path.is_file()}
    files[CARD] = card.encode()
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message=message)
    except errors.HFValidationError as error:
        raise InputError(f"{repo_id!r} is not a name on the Hub; give owner/name") from error
    except errors.LocalTokenNotFoundError as error:
        raise InputError("pushing needs a token; pass token=... or log in with: hf auth login") from error
    except errors.HfHubHTTPError as error:  # before the general kind below
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise InputError(
                f"the Hub refuses to write {repo_id}: the token is missing, wrong or may only read"
            ) from error
        raise InputError(f"the Hub did not take {repo_id}: {first_line(error)}") from error
    except (getattr(errors, "HTTPError", OSError), OSError) as error:
        raise InputError(f"the Hub cannot be reached, nothing was uploaded: {first_line(error)}") from error
    return str(url)
