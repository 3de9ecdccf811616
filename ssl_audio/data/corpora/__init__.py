"""Named corpora with their official splits: files on disk -> tracks with labels, groups and splits.

    from ssl_audio.data.corpora import magnatagatune

    corpus = magnatagatune.read("data/magnatagatune", split="pons2017")
    train, test = corpus.split("train"), corpus.split("test")
    targets = corpus.targets(test)          # (tracks, labels) of 0 and 1, columns as in corpus.label_names

Nothing is downloaded. What is missing is said in one line: each file, where it goes, where it comes from.
"""

from ssl_audio.data.corpora.base import SPLITS, Corpus, Track

__all__ = ["SPLITS", "Corpus", "Track"]
