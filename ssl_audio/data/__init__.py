"""From folders to batches: what is in a folder (scan, index), what an item is (dataset), in which order (sampler).

Imported on first use: the index needs no Lightning, the data module does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_audio.data.datamodule import AudioDataModule
    from ssl_audio.data.dataset import TwoViewDataset
    from ssl_audio.data.index import AudioIndex
    from ssl_audio.data.musicnet import MusicNetDataModule
    from ssl_audio.data.sampler import EpochSampler
    from ssl_audio.data.windows import WindowDataModule

__all__ = [
    "AudioDataModule", "AudioIndex", "EpochSampler", "MusicNetDataModule", "TwoViewDataset", "WindowDataModule",
]  # fmt: skip

_HOME = {
    "AudioDataModule": "ssl_audio.data.datamodule",
    "AudioIndex": "ssl_audio.data.index",
    "EpochSampler": "ssl_audio.data.sampler",
    "MusicNetDataModule": "ssl_audio.data.musicnet",
    "TwoViewDataset": "ssl_audio.data.dataset",
    "WindowDataModule": "ssl_audio.data.windows",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ssl_audio.data' has no attribute {name!r}")
