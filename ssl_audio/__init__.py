"""Self-supervised embeddings of voices, music and sound.

    from ssl_audio import load_model
    model = load_model("byol")            # or a run folder, a checkpoint, an exported folder
    embedding = model(audio)              # (batch, samples) -> (batch, dim)

Everything here is imported on first use, so that `import ssl_audio` costs nothing and never imports Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssl_audio.version import __version__

if TYPE_CHECKING:
    from ssl_audio.decisions import compare
    from ssl_audio.hub import load_model, push_to_hub, save_model
    from ssl_audio.model import EmbeddingModel

__all__ = ["EmbeddingModel", "__version__", "compare", "load_model", "push_to_hub", "save_model"]

_HOME = {
    "compare": "ssl_audio.decisions",
    "load_model": "ssl_audio.hub",
    "save_model": "ssl_audio.hub",
    "push_to_hub": "ssl_audio.hub",
    "EmbeddingModel": "ssl_audio.model",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ssl_audio' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
