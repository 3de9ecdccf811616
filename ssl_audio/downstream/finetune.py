"""Fine-tuning on a task, end to end: a copy of the network for each split, stopped by validation, tested once."""

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
from tqdm import tqdm

from ssl_audio.downstream.features import AnyLength
from ssl_audio.downstream.frozen import save_tagger
from ssl_audio.downstream.tasks import Task
from ssl_audio.embedding import embed_files
from ssl_audio.errors import InputError
from ssl_audio.evaluation.classification import ClassificationMetrics
from ssl_audio.evaluation.probes import ProbeResult
from ssl_audio.evaluation.splits import check_known, group_folds, limit_labels, splits_of
from ssl_audio.heads import ProbeHead
from ssl_audio.utils.device import best_device


@dataclass(frozen=True)
class Settings:
    """How to fine-tune.

    Attributes:
        clip_seconds: a random clip of this length of each file an epoch; tested on consecutive ones.
        epochs: at most; training stops after `patience` epochs without a lower validation loss.
        batch_size: lowered where there are fewer files.
        lr: learning rate of AdamW.
        device: None takes a GPU where there is one.
        draws: of the bootstrap.
        patience: epochs.
    """

    clip_seconds: float
    epochs: int = 50
    batch_size: int = 32
    lr: float = 1e-4
    device: str | None = None
    draws: int = 200
    patience: int = 10


def finetune(
    model: Any, task: Task, settings: Settings, fraction: float = 1.0, seed: int = 0, folder: Path | None = None
) -> ProbeResult:
    """Train encoder and a linear classifier on every split of the task, and score each test file once.

    Args:
        model: an `EmbeddingModel`; not changed.
        fraction: share of the training labels, drawn from the seed.
        folder: where the network of the last split is saved with its classifier; None saves nothing.

    Raises:
        InputError: too few labels to train on, files that cannot be read.
    """
    if model.head is not None:
        raise InputError("a model with a head cannot be tuned; load it without projection")
    files = task.files
    y = files.targets
    groups = np.unique(files.groups, return_inverse=True)[1] if files.groups is not None else np.arange(len(y))
    folds = np.asarray(files.folds) if files.folds is not None else group_folds(y, groups, 5, seed)
    rng = np.random.default_rng(seed)
    scores = np.full((len(y), len(files.classes)), np.nan)
    epochs, sizes, trained = [], [], np.zeros(len(files.classes), dtype=bool)
    splits = splits_of(folds)
    check_known(splits, y)
    for train, validation, test in tqdm(splits, "transfer", leave=False, disable=len(splits) < 2):
        train, validation = limit_labels(train, validation, y, groups, fraction, rng)
        tuned, head, epoch = train_on(model, task, train, validation, settings, seed)
        scores[test] = score(tuned, head, [files.paths[i] for i in test], settings)
        epochs.append(float(epoch))
        sizes.append(len(train) + len(validation))
        trained |= y[train].any(axis=0) if y.ndim == 2 else np.bincount(y[train], minlength=len(files.classes)) > 0
    tested = np.flatnonzero(np.isfinite(scores[:, 0]))
    if folder is not None:
        save_tagger(tuned, head, settings.clip_seconds, folder)
    return ProbeResult(
        kind="transfer",
        figures=ClassificationMetrics(y[tested], scores[tested], files.classes, trained).bootstrap(
            groups[tested], settings.draws, seed
        ),
        classes=files.classes,
        chosen=epochs,
        n_train=round(float(np.mean(sizes))),
        n_test=len(tested),
        label_fraction=fraction,
        seed=seed,
        scores=scores[tested],
        tested=tested,
    )


def train_on(
    model: Any, task: Task, train: np.ndarray, validation: np.ndarray, settings: Settings, seed: int
) -> tuple[Any, ProbeHead, int]:
    """(network, classifier, epoch) with the lowest validation loss; without validation files, of the last epoch."""
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
        copy.deepcopy(model.frontend), copy.deepcopy(model.encoder), sample_rate=model.sample_rate,
        optimizer=partial(torch.optim.AdamW, lr=settings.lr),
    )  # fmt: skip
    device = best_device(settings.device)
    chatter = logging.getLogger("pytorch_lightning.utilities.rank_zero")  # devices that are not there, advertisements
    level = chatter.level
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), ExitStack() as quiet:
        chatter.setLevel(logging.WARNING)
        quiet.callback(chatter.setLevel, level)
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
    head = method.projection
    assert isinstance(head, ProbeHead)
    return method.embedding_model().eval(), head.eval(), kept["epoch"] + 1


def score(model: Any, head: ProbeHead, paths: list[Path], settings: Settings) -> np.ndarray:
    """(files, classes) probabilities: the mean over consecutive clips of each file.

    Raises:
        InputError: a file that cannot be read.
    """
    from ssl_audio.model import EmbeddingModel

    whole: Any = AnyLength(EmbeddingModel(model.frontend, model.encoder, model.sample_rate, head)).eval()
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
