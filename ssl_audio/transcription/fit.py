"""Training and evaluation of a transcriber on recordings in MusicNet's layout."""

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
"""What happens to the encoders.

- frozen: they are not trained.
- finetuned: they are trained with the head, at a tenth of its learning rate.
- supervised: they are trained with the head, from random weights.
- untrained: they have random weights and are not trained; a baseline of frozen encoders.
"""

VALIDATED = 2000
"""Windows that validate an epoch, at most (43 minutes with windows of 1.28 s); the same windows in every epoch."""

_KEPT_FEATURES = 2_000_000_000


@dataclass(frozen=True)
class FitSettings:
    """How to train a transcriber.

    Attributes:
        mode: see `MODES`.
        epochs: number of epochs.
        batch_size: windows in a batch.
        lr: learning rate of the head; fine-tuned encoders have a tenth of it.
        seed: of the order of the windows and of dropout.
        workers: processes that read recordings.
        kept_features: memory for the features of frozen encoders and for the targets, in bytes. If they fit, they are
            computed once; otherwise they are computed in every epoch.
        progress: show progress bars.

    Raises:
        InputError: the mode is unknown.
    """

    mode: str = "frozen"
    epochs: int = 20
    batch_size: int = 8
    lr: float = 3e-3
    seed: int = 0
    workers: int = 0
    kept_features: int = _KEPT_FEATURES
    progress: bool = True

    def __post_init__(self) -> None:
        _check_mode(self.mode)

    @property
    def trains_encoders(self) -> bool:
        """Whether the encoders are trained with the head."""
        return self.mode in ("finetuned", "supervised")


@dataclass(frozen=True)
class LabelledRecordings:
    """Recordings with their notes.

    Attributes:
        groups: one group per recording, for `WindowDataset`.
        notes: {path: notes}.
        left_out: (path, reason) of the recordings that are not used.
    """

    groups: list[Group]
    notes: dict[str, Notes]
    left_out: list[tuple[str, str]]

    def instruments(self) -> list[int]:
        """Numbers of all instruments in the notes."""
        return sorted({number for notes in self.notes.values() for number in notes.instrument.tolist()})

    def split(self, fraction: float, seed: int) -> tuple["LabelledRecordings", "LabelledRecordings"]:
        """(training, validation) recordings; `fraction` of the recordings are for validation."""
        parts = AudioIndex(self.groups).split(fraction, seed)
        train, valid = (
            LabelledRecordings(groups, {g.entries[0].path: self.notes[g.entries[0].path] for g in groups}, [])
            for groups in parts
        )
        return train, valid


def read_folder(root: str | Path, split: str, samples: int = 1, sample_rate: int = 16000) -> LabelledRecordings:
    """Read the training or test recordings of a folder, with their notes.

    Args:
        root: folder in MusicNet's layout.
        split: "train" or "test".
        samples: recordings shorter than this are left out.
        sample_rate: sample rate that `samples` refers to, in Hz.

    Raises:
        InputError: files are missing (the message names each), labels are invalid, or no recording is usable.
    """
    found = {str(item.path): item for item in recordings(root) if item.split == split}
    if not found:
        raise InputError(f"{root}: no recordings in {split}_data; put them there and their notes into {split}_labels")
    index = AudioIndex.scan([str(Path(root) / f"{split}_data")], group_by_artist=False).at_least(samples, sample_rate)
    groups = [group for group in index.groups if group.entries[0].path in found]
    notes = {}
    for entry in (group.entries[0] for group in groups):
        notes[entry.path] = found[entry.path].notes(entry.frames / entry.sample_rate)
    if not groups:
        raise InputError(f"{root}: no usable recording in {split}_data; the first: {' '.join(index.left_out[0])}")
    return LabelledRecordings(groups, notes, [(item.path, item.reason) for item in index.left_out])


class LabelledWindows(Dataset):
    """A data set of windows and their piano rolls.

    `dataset[draw]` is (window (samples,), roll (1 + instruments, frames, 128) bool).

    Args:
        labelled: recordings with notes.
        transcriber: gives the size and the frames of a window, and the instruments.
        seed: see `WindowDataset`.
        moving: see `WindowDataset`.
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
    """Make a transcriber with an untrained head.

    Args:
        models: encoders. The modes "supervised" and "untrained" replace their weights by random ones.
        instruments: numbers of the instruments.
        mode: see `MODES`.
        head: "linear" or "conv".
        nr_samples: size of a window in samples.
        seed: of the random weights.

    Raises:
        InputError: the mode or the head is unknown, or see `Transcriber`.
    """
    _check_mode(mode)
    if head not in HEADS:
        raise InputError(f"unknown head {head!r}; choose one of {', '.join(HEADS)}")
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
    settings: FitSettings | None = None,
) -> list[dict[str, float]]:
    """Train a transcriber in place, with Adam and the binary cross-entropy of every cell of the piano rolls.

    The transcriber gets the weights of the epoch with the best average precision on `valid`, and the threshold with the
    best F1 there.

    Args:
        transcriber: from `make_transcriber`.
        train: training recordings.
        valid: validation recordings; if it is empty, the training recordings are used.
        settings: default: `FitSettings()`.

    Returns:
        {"epoch", "loss", "valid_average_precision"} of each epoch.

    Raises:
        InputError: the validation recordings have no notes, or the loss is not finite.
    """
    settings = settings or FitSettings()
    learning = settings.trains_encoders
    transcriber.encoders.requires_grad_(learning)
    groups: list[dict[str, Any]] = [{"params": list(transcriber.head.parameters()), "lr": settings.lr}]
    if learning:
        rate = settings.lr / 10 if settings.mode == "finetuned" else settings.lr
        groups.append({"params": list(transcriber.encoders.parameters()), "lr": rate})
    optimizer = torch.optim.Adam(groups)
    torch.manual_seed(settings.seed)  # for the dropout of trained encoders
    data = LabelledWindows(train, transcriber, settings.seed, moving=learning)
    checked = LabelledWindows(valid if valid.groups else train, transcriber, settings.seed, moving=False)
    size = transcriber.frames * (4 * frame_dim(transcriber.models) + outputs(transcriber.instruments))  # of a window
    keep = not learning and (len(data) + min(len(checked), VALIDATED)) * size <= settings.kept_features
    batches = _Batches(data, transcriber, settings, learning, keep)
    checks = _Batches(checked, transcriber, settings, False, keep, VALIDATED)
    history: list[dict[str, float]] = []
    best = (-1.0, transcriber.threshold, copy.deepcopy(transcriber.state_dict()))
    bar = tqdm(range(settings.epochs), f"{settings.mode} transcriber", unit="epoch", disable=not settings.progress)
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
    """Batches (features, rolls) of each epoch.

    Args:
        data: the windows.
        transcriber: computes the features.
        settings: `batch_size`, `seed`, `workers` and `progress` are used.
        learning: whether the features need gradients.
        keep: whether to keep all features in memory after the first epoch.
        limit: maximum number of windows per epoch; None for all.
    """

    def __init__(
        self,
        data: LabelledWindows,
        transcriber: Transcriber,
        settings: FitSettings,
        learning: bool,
        keep: bool,
        limit: int | None = None,
    ) -> None:
        self.data, self.transcriber, self.settings = data, transcriber, settings
        self.learning, self.limit = learning, limit
        self.kept: list[tuple[Tensor, Tensor]] | None = [] if keep else None

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        size, rng = self.settings.batch_size, np.random.default_rng([self.settings.seed, epoch])
        if self.kept:
            order = rng.permutation(len(self.kept))
            for first in range(0, len(order), size):
                chosen = [self.kept[i] for i in order[first : first + size]]
                features, rolls = (torch.stack(part).to(self.transcriber.device) for part in zip(*chosen, strict=True))
                yield features, rolls
            return
        draws = [Draw(epoch, int(item)) for item in rng.permutation(len(self.data))[: self.limit]]
        loader = DataLoader(self.data, size, sampler=draws, num_workers=self.settings.workers)
        for clips, rolls in tqdm(loader, "windows", leave=False, delay=2, disable=not self.settings.progress):
            with torch.set_grad_enabled(self.learning):
                features = self.transcriber.features(clips.to(self.transcriber.device))
            if self.kept is not None:
                self.kept += zip(features.cpu(), rolls, strict=True)
            yield features, rolls.to(self.transcriber.device)


@torch.no_grad()
def _validate(transcriber: Transcriber, batches: _Batches) -> tuple[float, float]:
    """(average precision of the notes of all instruments together, the threshold with the best F1)."""
    transcriber.eval()
    found = [(rolls[:, 0], transcriber.read(features)[:, 0].sigmoid()) for features, rolls in batches(0)]
    targets, scores = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    if not targets.any():  # then no epoch would be better than another, and the head would stay untrained
        raise InputError(
            "the validation recordings have no notes; add notes to their labels, take other recordings with --seed, or "
            "none with --valid 0"
        )
    return average_precision(targets, scores), best_threshold(targets, scores)


def evaluate_transcriber(transcriber: Transcriber, labelled: LabelledRecordings, batch_size: int = 8) -> dict[str, Any]:
    """Transcribe recordings and compare the result with their notes.

    Args:
        transcriber: a trained transcriber.
        labelled: recordings with notes.
        batch_size: windows in a batch.

    Returns:
        See `evaluate_transcription`.
    """
    pieces = []
    for group in tqdm(labelled.groups, "evaluating", delay=2):
        path = group.entries[0].path
        scores = transcriber.probabilities(audio.read(path, transcriber.sample_rate), batch_size)
        notes = labelled.notes[path]
        targets = notes.instrument_roll(0.0, scores.shape[1], transcriber.frame_rate, transcriber.instruments)
        pieces.append(Piece(targets, scores, notes, transcriber.notes(scores)))
    names = {number: instrument_name(number) for number in transcriber.instruments}
    return evaluate_transcription(pieces, names, transcriber.threshold)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
