"""Files of the Hugging Face Hub or its cache, with every error in one line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_audio.errors import InputError, first_line


class NotThere(InputError):
    """None of the wanted files are there, or none can be reached.

    Attributes:
        offline: they may be there: the Hub was not reached, and the cache does not have them.
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
    """The folder that holds the files of the first layout that is complete.

    Args:
        name: what is loaded, for messages.
        repo: id on the Hub.
        layouts: names of files that belong together, in the order in which they are tried.
        optional: files that are fetched too where they exist.
        options: revision, token, cache_dir, local_dir, local_files_only of `huggingface_hub.hf_hub_download`.

    Raises:
        NotThere: no layout is complete.
        InputError: whatever else goes wrong, in one line.
    """
    from huggingface_hub import errors, hf_hub_download

    absent: Exception | None = None
    with hub_errors(name, repo, options.get("revision")):
        for files in layouts:
            try:
                paths = [hf_hub_download(repo, file, subfolder=subfolder, **options) for file in files]
            except errors.EntryNotFoundError as error:  # its subclass means "offline and not in the cache"
                absent = error
                if isinstance(error, errors.LocalEntryNotFoundError):
                    options["local_files_only"] = True  # it has tried five times to connect
                continue
            for file in optional:
                try:
                    hf_hub_download(repo, file, subfolder=subfolder, **options)
                except errors.EntryNotFoundError:
                    continue
            return Path(paths[0]).parent
    if isinstance(absent, errors.LocalEntryNotFoundError):
        raise NotThere(
            f"{name!r} from {repo} is not in the cache, and the Hub cannot be reached or local_files_only is set; "
            "load it once with a connection",
            offline=True,
        )
    raise NotThere(f"{repo} has no {' and '.join(layouts[0])}", offline=False)


@contextmanager
def hub_errors(name: str, repo: str, revision: str | None) -> Iterator[None]:
    """What goes wrong at the Hub, as an InputError of one line; files that are not there pass through."""
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
