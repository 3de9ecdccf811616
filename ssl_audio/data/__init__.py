"""From recordings to batches.

- `sources`: where recordings come from; `scan`, `index`, `store`, `shards` serve them.
- `items`, `dataset`, `windows`, `labelled`: what an item is; `sampler`, `batch_composition`: in which order.
- `loading`, `failures`, `resuming`: how batches are loaded, what fails, where a run stands.
- `base`: the data module that joins these; `datamodule`, `sharded`, `windows`, `labelled`, `musicnet`: its subclasses.

Names are imported on first use, because the index needs no Lightning and the data modules do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_audio.data.datamodule import AudioDataModule
    from ssl_audio.data.dataset import TwoViewDataset
    from ssl_audio.data.index import AudioIndex
    from ssl_audio.data.musicnet import MusicNetDataModule
    from ssl_audio.data.sampler import EpochSampler
    from ssl_audio.data.taught import TaughtDataModule
    from ssl_audio.data.windows import WindowDataModule

__all__ = [
    "AudioDataModule", "AudioIndex", "EpochSampler", "MusicNetDataModule", "TaughtDataModule", "TwoViewDataset",
    "WindowDataModule",
]  # fmt: skip

_HOME = {
    "AudioDataModule": "ssl_audio.data.datamodule",
    "AudioIndex": "ssl_audio.data.index",
    "EpochSampler": "ssl_audio.data.sampler",
    "MusicNetDataModule": "ssl_audio.data.musicnet",
    "TaughtDataModule": "ssl_audio.data.taught",
    "TwoViewDataset": "ssl_audio.data.dataset",
    "WindowDataModule": "ssl_audio.data.windows",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ssl_audio.data' has no attribute {name!r}")
