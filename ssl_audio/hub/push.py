"""Upload of a saved model to the Hugging Face Hub."""

import os
from pathlib import Path

from ssl_audio.errors import InputError, first_line
from ssl_audio.hub.calibration_files import ARRAYS, CALIBRATION
from ssl_audio.hub.card import Metrics, model_card
from ssl_audio.hub.place import Options
from ssl_audio.hub.readers import load_path
from ssl_audio.hub.saved import CARD, CONFIG, WEIGHTS

TRAINING = "training.yaml"  # the resolved config of the training run, if it is in the model folder


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
    """Upload a saved model and its card in one commit. The repository is created if it does not exist.

    Args:
        folder: a folder that `save_model` or `ssl-audio convert` wrote, with `config.yaml` and `model.safetensors`. Its
            `model.ts`, `training.yaml` and calibration are uploaded, too.
        repo_id: `owner/name` on the Hub, which is then the name for `load_model`.
        private: whether a new repository is private.
        token: token of the Hub with the right to write; default: the token of `hf auth login`.
        licence: licence of the weights in the spelling of the Hub ("mit", "cc-by-nc-4.0", ...).
        data: description of the training data.
        training: `config.yaml` of the training run, for the card; default: `training.yaml` in the folder.
        metrics: results with intervals: the JSON file that `ssl-audio eval` writes, or its list of results,
            `{"dataset": ..., "eer": ..., "eer_interval": [low, high], ...}`.
        message: message of the commit.

    Returns:
        The address of the repository.

    Raises:
        InputError: the folder does not hold a model, the name or the token is wrong, or the Hub cannot be reached.
            Nothing is uploaded then.
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
    except errors.HfHubHTTPError as error:  # a subclass of the errors below
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise InputError(
                f"the Hub refuses to write {repo_id}; give a token with the right to write to it"
            ) from error
        raise InputError(f"the Hub did not accept {repo_id}: {first_line(error)}") from error
    except (getattr(errors, "HTTPError", OSError), OSError) as error:
        raise InputError(f"the Hub cannot be reached; nothing was uploaded: {first_line(error)}") from error
    return str(url)
