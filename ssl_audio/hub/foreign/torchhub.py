"""`torchhub:<folder or owner/repository[:branch]>?entry=NAME&rate=16000`: a model of a `hubconf.py`.

It runs foreign code, so it needs `trusted`.
"""

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
    """The model that a function of `hubconf.py` makes.

    Raises:
        InputError: the address is not trusted, the option `entry` is missing or wrong, or the model returns no
            embeddings.
    """
    needs_trust(address.text, trusted)
    if "entry" not in options:
        raise InputError(
            f"{address.text}: the option entry is missing; add the function of hubconf.py, as in ?entry=NAME"
        )
    folder = Path(address.rest).expanduser()
    local = folder.is_dir()
    if local and not (folder / "hubconf.py").is_file():
        raise InputError(f"{address.text}: {folder} has no hubconf.py; give the folder that has it")
    if not local and address.rest.count("/") != 1:
        raise InputError(
            f"{address.text}: neither a folder that exists nor owner/repository on GitHub; check the address"
        )
    try:
        made = torch.hub.load(
            str(folder) if local else address.rest,
            options["entry"],
            source="local" if local else "github",
            trust_repo=True,
            verbose=False,
        )
    except Exception as error:  # the code of hubconf.py and the download can raise anything
        raise InputError(f"{address.text} cannot be loaded: {first_line(error)}") from error
    sha256 = file_sha256(folder / "hubconf.py") if local else "00" * 32
    return model_of(address, options, made, sha256, entry=options["entry"])
