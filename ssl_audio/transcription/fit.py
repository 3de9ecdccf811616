"""Training a transcriber on recordings in MusicNet's layout: its head alone, or the encoders with it."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.baselines import untrained
from ssl_audio.data.corpora.musicnet import instrument_name, recordings
from ssl_audio.data.index import AudioIndex, Group
from ssl_audio.data.notes import Notes
from ssl_audio.data.sampler import Draw
from ssl_audio.data.windows import WindowDataset
from ssl_audio.errors import InputError
from ssl_audio.model import EmbeddingModel
from ssl_audio.transcription.metrics import Piece, average_precision, best_threshold, evaluate_transcription
from ssl_audio.transcription.model import HEADS, Transcriber, frame_dim, outputs

MODES = ("frozen", "finetuned", "supervised", "untrained")
"""Encoders as they are; trained on with the head at a tenth of its rate; from random weights with the head; random and
never trained, which is what frozen features have to beat."""

VALIDATED = 2000
"""Windows on which each epoch is judged, at most: 43 minutes of 1.28 s, the same every epoch."""


@dataclass(frozen=True)
class LabelledRecordings:
    """Recordings with their notes.

    Attributes:
        groups: one a recording, for `WindowDataset`.
        notes: of each, by path.
        left_out: (path, reason) of recordings that are not used.
    """

    groups: list[Group]
    notes: dict[str, Notes]
    left_out: list[tuple[str, str]]

    def instruments(self) -> list[int]:
        """Numbers of all instruments that play."""
        return sorted({number for notes in self.notes.values() for number in notes.instrument.tolist()})

    def split(self, share: float, seed: int) -> tuple["LabelledRecordings", "LabelledRecordings"]:
        """(training, validation), by recording."""
        parts = AudioIndex(self.groups).split(share, seed)
        train, valid = (
            LabelledRecordings(groups, {g.entries[0].path: self.notes[g.entries[0].path] for g in groups}, [])
            for groups in parts
        )
        return train, valid


def read_folder(root: str | Path, split: str, samples: int = 1, sample_rate: int = 16000) -> LabelledRecordings:
    """The recordings of train or test with their notes.

    Args:
        samples, sample_rate: recordings shorter than so many samples are left out.

    Raises:
        InputError: missing files (each is named), bad labels, nothing usable.
    """
    found = {str(item.path): item for item in recordings(root) if item.split == split}
    if not found:
        raise InputError(f"{root}: no recordings in {split}_data; put them there, and their notes into {split}_labels")
    index = AudioIndex.scan([str(Path(root) / f"{split}_data")], group_by_artist=False).at_least(samples, sample_rate)
    groups = [group for group in index.groups if group.entries[0].path in found]
    notes = {}
    for entry in (group.entries[0] for group in groups):
        notes[entry.path] = found[entry.path].notes(entry.frames / entry.sample_rate)
    if not groups:
        raise InputError(f"{root}: no usable recording in {split}_data; the first: {' '.join(index.left_out[0])}")
    return LabelledRecordings(groups, notes, [(item.path, item.reason) for item in index.left_out])


class LabelledWindows(Dataset):
    """`[Draw]` -> (window (samples,), roll (1 + instruments, frames, 128) bool).

    Args:
        labelled: recordings with notes.
        transcriber: for the size and the frames of a window, and the instruments.
        seed, moving: see `WindowDataset`.
    """

    def __init__(self, labelled: LabelledRecordings, transcriber: Transcriber, seed: int, moving: bool) -> None:
        rate, size = transcriber.sample_rate, transcriber.nr_samples
        self.windows = WindowDataset(labelled.groups, size, rate, seed, moving)
        self.notes = [labelled.notes[entry.path] for entry in self.windows.entries]
        self.sample_rate = rate
        self.shape = (transcriber.frames, transcriber.frame_rate, transcriber.instruments)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        item = self.windows[draw]
        if item["failures"]:
            raise InputError(" ".join(item["failures"][0]))
        roll = self.notes[item["index"]].instrument_roll(item["start"] / self.sample_rate, *self.shape)
        return item["clip1"], torch.from_numpy(roll)


def make_transcriber(
    models: Sequence[EmbeddingModel], instruments: Sequence[int], mode: str, head: str, nr_samples: int, seed: int
) -> Transcriber:
    """An untrained head on the models, or on models of their kinds with random weights. Raises InputError."""
    if mode not in MODES or head not in HEADS:
        raise InputError(f"there are the modes {', '.join(MODES)} and the heads {', '.join(HEADS)}")
    if mode in ("supervised", "untrained"):
        models = [untrained(model, seed + i) for i, model in enumerate(models)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = HEADS[head](frame_dim(models), outputs(instruments))
    return Transcriber(models, built, instruments, nr_samples)


def fit(
    transcriber: Transcriber,
    train: LabelledRecordings,
    valid: LabelledRecordings,
    mode: str = "frozen",
    *,
    epochs: int = 20,
    batch_size: int = 8,
    lr: float = 3e-3,
    seed: int = 0,
    workers: int = 0,
    kept_features: int = 2_000_000_000,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train in place: binary cross-entropy of every cell, Adam; keeps the epoch with the best average precision on
    `valid`, and chooses the threshold there.

    Args:
        mode: see `MODES`.
        lr: of the head; encoders that are finetuned learn at a tenth of it.
        kept_features: bytes. Features of frozen encoders and the rolls are computed once if they fit, else every epoch.

    Returns:
        {"epoch", "loss", "valid_average_precision"} of each epoch.
    """
    learning = mode in ("finetuned", "supervised")
    transcriber.encoders.requires_grad_(learning)
    groups: list[dict[str, Any]] = [{"params": list(transcriber.head.parameters()), "lr": lr}]
    if learning:
        rate = lr / 10 if mode == "finetuned" else lr
        groups.append({"params": list(transcriber.encoders.parameters()), "lr": rate})
    optimizer = torch.optim.Adam(groups)
    torch.manual_seed(seed)  # dropout of encoders that learn
    data = LabelledWindows(train, transcriber, seed, moving=learning)
    checked = LabelledWindows(valid if valid.groups else train, transcriber, seed, moving=False)
    window = transcriber.frames * (4 * frame_dim(transcriber.models) + outputs(transcriber.instruments))  # and its roll
    keep = not learning and (len(data) + min(len(checked), VALIDATED)) * window <= kept_features
    batches = _Batches(data, transcriber, batch_size, seed, workers, learning, keep, progress)
    checks = _Batches(checked, transcriber, batch_size, seed, workers, False, keep, progress, VALIDATED)
    history: list[dict[str, float]] = []
    best = (-1.0, transcriber.threshold, copy.deepcopy(transcriber.state_dict()))
    bar = tqdm(range(epochs), f"{mode} transcriber", unit="epoch", disable=not progress)
    for epoch in bar:
        transcriber.train()
        transcriber.encoders.train(learning)
        total = count = 0.0
        for features, rolls in batches(epoch):
            loss = F.binary_cross_entropy_with_logits(transcriber.read(features), rolls.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total + float(loss.detach()) * len(rolls), count + len(rolls)
        precision, threshold = _validate(transcriber, checks)
        history.append({"epoch": epoch, "loss": total / max(count, 1), "valid_average_precision": precision})
        bar.set_postfix(loss=history[-1]["loss"], valid_ap=precision)
        if not np.isfinite(history[-1]["loss"]):
            raise InputError(f"the loss is {history[-1]['loss']} in epoch {epoch}; lower --lr")
        if precision > best[0]:
            best = (precision, threshold, copy.deepcopy(transcriber.state_dict()))
    transcriber.load_state_dict(best[2])
    transcriber.threshold = best[1]
    transcriber.eval()
    return history


class _Batches:
    """(features, rolls) of each epoch; the features of frozen encoders are kept where there is room."""

    def __init__(
        self, data: LabelledWindows, transcriber: Transcriber, batch_size: int, seed: int, workers: int,
        learning: bool, keep: bool, progress: bool, limit: int | None = None,
    ) -> None:  # fmt: skip
        self.data, self.transcriber, self.batch_size, self.seed = data, transcriber, batch_size, seed
        self.workers, self.learning, self.progress, self.limit = workers, learning, progress, limit
        self.kept: list[tuple[Tensor, Tensor]] | None = [] if keep else None

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng([self.seed, epoch])
        if self.kept:
            order = rng.permutation(len(self.kept))
            for first in range(0, len(order), self.batch_size):
                chosen = [self.kept[i] for i in order[first : first + self.batch_size]]
                features, rolls = (torch.stack(part).to(self.transcriber.device) for part in zip(*chosen, strict=True))
                yield features, rolls
            return
        draws = [Draw(epoch, int(item)) for item in rng.permutation(len(self.data))[: self.limit]]
        loader = DataLoader(self.data, self.batch_size, sampler=draws, num_workers=self.workers)
        for clips, rolls in tqdm(loader, "windows", leave=False, delay=2, disable=not self.progress):
            with torch.set_grad_enabled(self.learning):
                features = self.transcriber.features(clips.to(self.transcriber.device))
            if self.kept is not None:
                self.kept += zip(features.cpu(), rolls, strict=True)
            yield features, rolls.to(self.transcriber.device)


@torch.no_grad()
def _validate(transcriber: Transcriber, batches: _Batches) -> tuple[float, float]:
    """(average precision of the notes whoever plays them, the threshold with the best F1)."""
    transcriber.eval()
    found = [(rolls[:, 0], transcriber.read(features)[:, 0].sigmoid()) for features, rolls in batches(0)]
    targets, scores = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    if not targets.any():  # no epoch would be better than another, and the head would stay as it began
        raise InputError(
            "no note sounds in the recordings that are to choose epoch and threshold; give their labels notes, take "
            "other recordings with --seed, or none with --valid 0"
        )
    return average_precision(targets, scores), best_threshold(targets, scores)


def evaluate(transcriber: Transcriber, labelled: LabelledRecordings, batch_size: int = 8) -> dict[str, Any]:
    """Transcribe every recording and compare; see `evaluate_transcription`."""
    pieces = []
    for group in tqdm(labelled.groups, "evaluating", delay=2):
        path = group.entries[0].path
        scores = transcriber.probabilities(audio.read(path, transcriber.sample_rate), batch_size)
        notes = labelled.notes[path]
        targets = notes.instrument_roll(0.0, scores.shape[1], transcriber.frame_rate, transcriber.instruments)
        pieces.append(Piece(targets, scores, notes, transcriber.notes(scores)))
    names = {number: instrument_name(number) for number in transcriber.instruments}
    return evaluate_transcription(pieces, names, transcriber.threshold)
