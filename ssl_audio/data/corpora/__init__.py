"""Named corpora with their official splits: files on disk -> tracks with labels, groups and splits.

    from ssl_audio.data.corpora import magnatagatune

    corpus = magnatagatune.read("data/magnatagatune", split="pons2017")
    train, test = corpus.split("train"), corpus.split("test")
    targets = corpus.targets(test)          # (tracks, labels) of 0 and 1, columns as in corpus.label_names

    corpus = load("esc10", "data/ESC-50")   # by name, as configs and commands do

Nothing is downloaded. One line names each missing file, where it belongs and where it comes from.
"""

import inspect
import os
from importlib import import_module
from typing import Any

from ssl_audio.data.corpora.base import SPLITS, Corpus, Track
from ssl_audio.errors import InputError

__all__ = ["CORPORA", "SPLITS", "Corpus", "Track", "load"]

CORPORA: dict[str, tuple[str, dict[str, Any]]] = {
    "cnceleb": ("cnceleb", {}),
    "esc10": ("esc", {"subset": "esc10"}),
    "esc50": ("esc", {}),
    "fma": ("fma", {}),
    "folder": ("folder", {}),
    "fsd50k": ("fsd50k", {}),
    "gtzan": ("gtzan", {}),
    "iemocap": ("iemocap", {}),
    "librispeech": ("librispeech", {}),
    "magnatagatune": ("magnatagatune", {}),
    "msd": ("msd", {}),
    "musicnet": ("musicnet", {}),
    "nsynth": ("nsynth", {}),
    "ravdess": ("ravdess", {}),
    "speech_commands": ("speech_commands", {}),
    "speakers": ("speakers", {}),
    "urbansound8k": ("urbansound8k", {}),
    "voxceleb1": ("voxceleb", {}),
    "voxceleb2": (
        "speakers",
        {"name": "VoxCeleb2", "home": "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox2.html"},
    ),
    "voxforge": ("voxforge", {}),
}
"""name -> (module of this package, arguments of its `read`)."""


def load(name: str, root: str | os.PathLike, *, random_split: int | None = None, **options: Any) -> Corpus:
    """The corpus of this name.

    Args:
        root: its folder.
        random_split: the seed of a random split in place of the official one, see `Corpus.random_split`.
        options: arguments of its `read`, such as subset, split or fold.

    Raises:
        InputError: no such corpus or option; what `read` raises.
    """
    if name not in CORPORA:
        raise InputError(f"no corpus {name!r}; there are {', '.join(CORPORA)}")
    module, preset = CORPORA[name]
    read = import_module(f"{__name__}.{module}").read
    known = [key for key in inspect.signature(read).parameters if key != "root"]
    if unknown := [key for key in options if key not in known]:
        raise InputError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)} and random_split")
    corpus = read(root, **{**preset, **options})
    return corpus if random_split is None else corpus.random_split(random_split)
