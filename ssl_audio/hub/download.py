"""Get files from the Hugging Face Hub or its cache. Each error is one line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_audio.errors import InputError, first_line


class NotThere(InputError):
    """The wanted files do not exist, or the Hub cannot be reached and the cache does not have them.

    Attributes:
        offline: whether the Hub was not reached, so that the files may exist.
    """

    def __init__(self, message: str, offline: bool) -> None:
        super().__init__(message)
        self.offline = offline


def fetch(
    name: str,
    repo: str,
    layouts: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
    subfolder: str | None = None,
    **options: Any,
) -> Path:
    """Download the first layout of which the repository has all files, and return the folder of the files.

    Args:
        name: name of the model, for messages.
        repo: id on the Hub.
        layouts: for each layout the names of its files, in the order in which to try them.
        optional: files to download, too, if they exist.
        subfolder: folder of the files in the repository.
        options: revision, token, cache_dir, local_dir, local_files_only of `huggingface_hub.hf_hub_download`.

    Raises:
        NotThere: no layout is complete.
        InputError: the repository is missing, private or gated, the revision is wrong, or the download fails.
    """
    from huggingface_hub import errors, hf_hub_download

    absent: Exception | None = None
    lacking = ""
    with hub_errors(name, repo, options.get("revision")):
        for files in layouts:
            try:
                paths = []
                for wanted in files:
                    paths.append(hf_hub_download(repo, wanted, subfolder=subfolder, **options))
            except errors.EntryNotFoundError as error:  # its subclass means "offline and not in the cache"
                absent, lacking = error, lacking or wanted
                if isinstance(error, errors.LocalEntryNotFoundError):
                    options["local_files_only"] = True  # the client has already tried five times to connect
                continue
            for file in optional:
                try:
                    hf_hub_download(repo, file, subfolder=subfolder, **options)
                except errors.EntryNotFoundError:
                    continue
            return Path(paths[0]).parent
    if isinstance(absent, errors.LocalEntryNotFoundError):
        revision = f" at revision {options['revision']}" if options.get("revision") else ""
        raise NotThere(
            f"{name!r} from {repo}{revision} is not whole in the cache, which lacks {lacking}, and the Hub cannot be "
            "reached or local_files_only is set; load it once with a connection",
            offline=True,
        )
    raise NotThere(f"{repo} has no {' and '.join(layouts[0])}", offline=False)


@contextmanager
def hub_errors(name: str, repo: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the Hub into an InputError. The error for a missing file is left as it is."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repo} is gated: accept its terms at https://huggingface.co/{repo}, then log in with hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"the Hub has no repository {repo!r}, or it is private; check the name, or pass token=..."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{repo} has no revision {revision!r}") from error
    except errors.HFValidationError as error:
        raise InputError(f"{repo!r} is not a Hub id: {first_line(error)}") from error
    except errors.EntryNotFoundError:
        raise
    except (getattr(errors, "HTTPError", OSError), OSError) as error:  # HTTPError: the connection broke
        raise InputError(f"the download of {name!r} from {repo} failed ({first_line(error)}); run it again") from error
