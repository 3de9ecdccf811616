"""What the tests of loading share: a Hub on the loopback address."""

import time
from collections.abc import Iterator

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
