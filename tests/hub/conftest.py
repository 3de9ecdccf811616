"""What the tests of loading share: a Hub on the loopback address, tiny models, and code of others."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import skip_without
from loopback_hub import LoopbackHub, loopback_hub


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[LoopbackHub]:
    """The client looks at these constants at every call; `HF_ENDPOINT` itself is read once, at import."""
    from huggingface_hub import __version__, constants

    if int(__version__.split(".")[0]) < 1:
        skip_without("huggingface_hub 1: older ones read the constants once, too")
    with loopback_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its attempts
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Callable[[str], Path]:
    """`folder(family)`: the folder of a tiny Hugging Face model of a family, made once."""
    from hf_models import make

    root, made = tmp_path_factory.mktemp("hf"), {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make(name, root / name.replace(" ", "-"))
        return made[name]

    return get


@pytest.fixture
def code(tmp_path) -> Callable[..., Path]:
    """`code(text, name)` writes a Python file as others write it and returns its path; each has a name of its own."""
    numbers = itertools.count()

    def write(text: str, name: str | None = None) -> Path:
        path = tmp_path / (name or f"theirs{next(numbers)}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import numpy as np\nimport torch\nfrom torch import nn\n" + text)
        return path

    return write
