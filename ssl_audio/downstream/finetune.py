"""Fine-tuning on a task: the encoder and a linear classifier are trained end to end, on a copy for each split."""

import copy
import logging
import tempfile
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_audio.downstream.features import AnyLength
from ssl_audio.downstream.frozen import save_tagger
from ssl_audio.downstream.tasks import Task
from ssl_audio.embedding import embed_files
from ssl_audio.errors import InputError
from ssl_audio.evaluation.probes import Fold, ProbeResult, ProbeSettings, cross_validate
from ssl_audio.evaluation.splits import group_folds, splits_of
from ssl_audio.frontends import Frontend
from ssl_audio.heads import ProbeHead
from ssl_audio.level import Level, set_level
from ssl_audio.utils.device import best_device


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune.

    Attributes:
        clip_seconds: length of a clip. Training takes one random clip of each file per epoch; testing takes consecutive
            clips.
        epochs: maximum number of epochs.
        batch_size: clips in a batch; reduced if there are fewer files.
        lr: learning rate of AdamW.
        device: None uses a GPU if there is one.
        resamples: bootstrap resamples for the intervals.
        patience: training stops after this number of epochs without a lower validation loss.
    """

    clip_seconds: float
    epochs: int = 50
    batch_size: int = 32
    lr: float = 1e-4
    device: str | None = None
    resamples: int = 200
    patience: int = 10


def finetune(
    model: Any, task: Task, settings: FinetuneSettings, fraction: float = 1.0, seed: int = 0, folder: Path | None = None
) -> ProbeResult:
    """Fine-tune the encoder with a linear classifier on every split of the task, and score each test file once.

    Args:
        model: an `EmbeddingModel` without a head; it is not changed.
        task: the task.
        settings: how to fine-tune.
        fraction: fraction of the training labels to use.
        seed: of the folds, the label fraction, the training and the bootstrap.
        folder: where to save the network of the last split with its classifier; None saves nothing.

    Raises:
        InputError: the model has a head, there are too few labels, or a file cannot be read.
    """
    if model.head is not None:
        raise InputError("a model with a head cannot be fine-tuned; load it without projection=True")
    files, y = task.files, task.files.targets
    groups = np.unique(files.groups, return_inverse=True)[1] if files.groups is not None else np.arange(len(y))
    folds = np.asarray(files.folds) if files.folds is not None else group_folds(y, groups, 5, seed)
    last: tuple[Any, ProbeHead] | None = None

    def fit(train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> Fold:
        nonlocal last
        tuned, head, epoch = train_on(model, task, train, validation, settings, seed)
        last = tuned, head
        return Fold(score(tuned, head, [files.paths[i] for i in test], settings), float(epoch), train)

    common = ProbeSettings(label_fraction=fraction, seed=seed, resamples=settings.resamples, progress=True)
    result = cross_validate(fit, y, files.classes, splits_of(folds), groups, common, kind="transfer")
    if folder is not None and last is not None:
        save_tagger(*last, settings.clip_seconds, folder)
    return result


def train_on(
    model: Any, task: Task, train: np.ndarray, validation: np.ndarray, settings: FinetuneSettings, seed: int
) -> tuple[Any, ProbeHead, int]:
    """Fine-tune a copy of the model on one split.

    Args:
        model: an `EmbeddingModel`; it is not changed.
        task: the task.
        train: positions of the training files.
        validation: positions of the validation files; may be empty.
        settings: how to fine-tune.
        seed: of the training.

    Returns:
        (network, classifier, epoch) of the lowest validation loss, or of the last epoch without validation files.
    """
    from pytorch_lightning import Trainer, seed_everything
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

    from ssl_audio.data.labelled import LabelledDataModule
    from ssl_audio.methods.supervised import Supervised

    data = LabelledDataModule.of(
        task.files.paths, task.files.targets, task.files.classes, train, validation, sample_rate=model.sample_rate,
        nr_samples=round(settings.clip_seconds * model.sample_rate), batch_size=min(settings.batch_size, len(train)),
        seed=seed, num_workers=0,
    )  # fmt: skip
    seed_everything(seed, verbose=False)
    method = Supervised(
        _Leveled(copy.deepcopy(model.frontend), model.level), copy.deepcopy(model.encoder),
        sample_rate=model.sample_rate,
        optimizer=partial(torch.optim.AdamW, lr=settings.lr),
    )  # fmt: skip
    device = best_device(settings.device)
    lightning = logging.getLogger("pytorch_lightning.utilities.rank_zero")  # reports devices and prints hints
    level = lightning.level
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), ExitStack() as quiet:
        lightning.setLevel(logging.WARNING)
        quiet.callback(lightning.setLevel, level)
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")
        best = ModelCheckpoint(folder, monitor="loss/val" if len(validation) else None, save_weights_only=True)
        stop = [EarlyStopping("loss/val", patience=settings.patience)] if len(validation) else []
        trainer = Trainer(
            max_epochs=settings.epochs, callbacks=[best, *stop], logger=False, default_root_dir=folder,
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index] if device.index else 1, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(method, datamodule=data)
        kept = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    method.load_state_dict(kept["state_dict"])
    head, front = method.projection, method.frontend
    assert isinstance(head, ProbeHead) and isinstance(front, _Leveled)
    tuned = model.with_parts(frontend=front.frontend, encoder=method.encoder)
    return tuned.eval(), head.eval(), kept["epoch"] + 1


class _Leveled(Frontend):
    """A frontend of clips at the level of a model, because labelled clips have the level of their recording."""

    def __init__(self, frontend: Frontend, level: Level) -> None:
        super().__init__()
        self.frontend, self.level = frontend, level
        self.minimum_samples = frontend.minimum_samples

    def samples_for(self, frames: int) -> int:
        return self.frontend.samples_for(frames)

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.frontend(set_level(waveforms, self.level))


def score(model: Any, head: ProbeHead, paths: list[Path], settings: FinetuneSettings) -> np.ndarray:
    """Score files with a fine-tuned network.

    Args:
        model: the network.
        head: its classifier.
        paths: audio files.
        settings: `clip_seconds` and `device` are used.

    Returns:
        (files, classes) probabilities, the mean over consecutive clips of each file.

    Raises:
        InputError: a file cannot be read.
    """
    whole: Any = AnyLength(model.with_parts(head=head)).eval()
    clips = embed_files(
        whole,
        paths,
        window_seconds=settings.clip_seconds,
        device=best_device(settings.device),
    )
    total, count = np.zeros((len(paths), head.dim)), np.zeros(len(paths))
    for clip in clips:
        assert clip.embedding is not None
        total[clip.index] += head.probabilities(torch.from_numpy(clip.embedding)).numpy()
        count[clip.index] += 1
    return total / count[:, None]
