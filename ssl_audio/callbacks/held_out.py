"""Verification on the validation groups of the data module: singers of the training data that are held out whole."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_audio.data.base import RecordingDataModule
from ssl_audio.data.index import AudioEntry, Group
from ssl_audio.errors import InputError
from ssl_audio.evaluation.comparison import sample_recordings
from ssl_audio.evaluation.recordings import Recordings, recording_names
from ssl_audio.evaluation.trials import Trials, all_pairs, check_decidable
from ssl_audio.evaluation.verification import verify
from ssl_audio.utils.modes import evaluating

LEAST_GROUPS = 3  # with two recordings each; the error rate of fewer singers says nothing
MAX_SECONDS = 10.0  # of a recording that are embedded, but at least a clip


class HeldOut:
    """All pairs of recordings of the validation groups, by cosine.

    A recording is embedded in one piece of as many clip lengths as fit into it and into 10 s; a shorter one is repeated
    until it fills a clip. Pieces are read as the data module reads training clips, without augmentation, from the same
    source. Two files of one recording, by the manifest or the names of segments, are no pair.

    Args:
        data: after `setup`.
        max_recordings: about the same number of each group.
        max_trials: see `all_pairs`.
        seed: for drawing recordings, trials and resamples.

    Raises:
        InputError: fewer than three groups have two recordings; the message says so.
    """

    def __init__(
        self, data: RecordingDataModule, max_recordings: int = 300, max_trials: int = 40_000, seed: int = 0
    ) -> None:
        self.data = data
        self.seed = seed
        groups = [(group, entry) for group in data.val_groups for entry in group.entries]
        found = _recordings(groups)
        kept = sample_recordings(found, seed, max_recordings) if groups else np.empty(0, dtype=np.int64)
        self.recordings = found.at(kept.tolist())
        self.parts = [groups[i] for i in kept]
        takes = set(zip(self.recordings.singers, self.recordings.recording, strict=True))
        several = [singer for singer in {s for s, _ in takes} if sum(s == singer for s, _ in takes) > 1]
        if len(several) < LEAST_GROUPS:
            raise InputError(
                f"{len(several)} of {len(data.val_groups)} held-out groups have two recordings, too few to verify with"
            )
        self.trials: Trials = all_pairs(self.recordings, max_trials, seed)
        check_decidable(self.trials)

    def __str__(self) -> str:
        singers = len(set(self.recordings.singers))
        return f"{len(self.trials)} pairs of {len(self.recordings)} recordings of {singers} held-out groups"

    def metrics(self, pl_module: Any, batch_size: int, resamples: int) -> dict[str, float]:
        """`eer`, and `eer_se`, its standard error over singers by a bootstrap. Raises InputError: it has none."""
        embeddings, read = self._embed(pl_module, batch_size)
        usable = read[self.trials.pairs].all(axis=1)
        parts = {name: getattr(self.trials, name)[usable] for name in ("pairs", "labels", "lines")}
        result = verify(embeddings, replace(self.trials, **parts), seed=self.seed, resamples=resamples, mnr=False)
        assert result.eer is not None
        return {"eer": result.eer, "eer_se": float(np.nanstd(result.resampled["eer"]))}

    def _embed(self, pl_module: Any, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """(recordings, dim) of all, and which could be read."""
        model = pl_module.embedding_model()
        embeddings = np.zeros((len(self.parts), model.dim), np.float32)
        read = np.zeros(len(self.parts), dtype=bool)
        with evaluating(pl_module), torch.no_grad():
            for places, clips in self._batches(batch_size):
                embeddings[places] = model(clips.to(pl_module.device)).float().cpu().numpy()
                read[places] = True
        return embeddings, read

    def _batches(self, batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
        """Positions of recordings, and their pieces (batch, samples), of one length in a batch."""
        lengths = np.array([self._clips(entry) for _, entry in self.parts])
        for clips in np.unique(lengths):
            places = np.flatnonzero(lengths == clips)
            groups = [self.parts[i][0]._replace(entries=(self.parts[i][1],)) for i in places]
            items = replace(self.data.items, nr_samples=int(clips) * self.data.nr_samples)
            dataset: Any = items.plain(groups, self.data.source)
            order = self.data.source.sampler(dataset, batch_size=1, seed=0, shuffle=False, drop_last=False)
            batch: list[tuple[int, Tensor]] = []
            for draw in order:
                item = dataset[draw]
                if not item["failures"]:  # else another recording has taken its place
                    batch.append((int(places[item["index"]]), item["clip1"]))
                if len(batch) == batch_size:
                    yield _stacked(batch)
                    batch = []
            if batch:
                yield _stacked(batch)

    def _clips(self, entry: AudioEntry) -> int:
        """How many clip lengths of a recording are embedded."""
        samples = min(entry.samples(self.data.sample_rate), round(MAX_SECONDS * self.data.sample_rate))
        return max(1, samples // self.data.nr_samples)


def _recordings(parts: list[tuple[Group, AudioEntry]]) -> Recordings:
    """The recordings of groups, by the manifests of their data sets where there are some."""
    names: dict[str, str] = {}
    for folder in {group.folder for group, _ in parts}:
        paths = [entry.path for group, entry in parts if group.folder == folder]
        names |= recording_names(folder, paths)
    return Recordings(
        Path("the held-out groups"),
        [entry.path for _, entry in parts],
        [group.key for group, _ in parts],
        [f"{group.key}/{names[entry.path]}" for group, entry in parts],
    )


def _stacked(batch: list[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
    places, clips = zip(*batch, strict=True)
    return list(places), torch.stack(clips)
