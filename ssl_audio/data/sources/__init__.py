"""Where recordings come from: folders, a named corpus, shards, a list of files. One file each, over `Source`."""

from ssl_audio.data.sources.base import Labels, Source
from ssl_audio.data.sources.corpus import NamedCorpus
from ssl_audio.data.sources.folders import Folders
from ssl_audio.data.sources.shards import Shards

__all__ = ["Folders", "Labels", "NamedCorpus", "Shards", "Source"]
