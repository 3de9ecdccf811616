"""`torchhub:<folder or owner/repository[:branch]>?entry=NAME&rate=16000`: what a `hubconf.py` makes, with `trusted`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ssl_audio.errors import InputError, first_line
from ssl_audio.hub.address import Address, Option
from ssl_audio.hub.foreign._external import file_sha256, needs_trust
from ssl_audio.hub.foreign._options import RATE, SHORT_CLIPS
from ssl_audio.hub.foreign.call import model_of
from ssl_audio.model import EmbeddingModel

OPTIONS = {"entry": Option(str, "the name of a function in hubconf.py"), "rate": RATE, "short": SHORT_CLIPS}


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The entry's model as an encoder.

    Raises:
        InputError: not trusted, no entry given or none of that name, or a model that gives no embeddings.
    """
    needs_trust(address.text, trusted)
    if "entry" not in options:
        raise InputError(f"{address.text}: which of its models? add it, such as ?entry=NAME")
    folder = Path(address.rest).expanduser()
    local = folder.is_dir()
    if local and not (folder / "hubconf.py").is_file():
        raise InputError(f"{address.text}: {folder} has no hubconf.py")
    if not local and address.rest.count("/") != 1:
        raise InputError(f"{address.text}: no such folder, and no owner/repository on GitHub")
    try:
        made = torch.hub.load(
            str(folder) if local else address.rest,
            options["entry"],
            source="local" if local else "github",
            trust_repo=True,
            verbose=False,
        )
    except Exception as error:  # whatever somebody's hubconf.py does, and what the network does
        raise InputError(f"{address.text} cannot be loaded: {first_line(error)}") from error
    sha256 = file_sha256(folder / "hubconf.py") if local else "00" * 32
    return model_of(address, options, made, sha256, entry=options["entry"])
