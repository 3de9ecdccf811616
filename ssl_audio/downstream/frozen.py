"""Probes of frozen encoders on a task, and saving an encoder with a fitted head."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_audio.downstream.features import Features
from ssl_audio.downstream.tasks import Task
from ssl_audio.errors import InputError
from ssl_audio.evaluation.probes import ProbeResult, ProbeSettings, probe
from ssl_audio.heads import ProbeHead
from ssl_audio.level import Level


def common_files(task: Task, features: Mapping[str, Features], skip: bool) -> tuple[Task, dict[str, Features]]:
    """Remove the files that at least one model could not embed.

    Args:
        task: the task.
        features: {model: its features}.
        skip: whether such files may be left out.

    Returns:
        (the task, the features), both without these files.

    Raises:
        InputError: there are such files and `skip` is False.
    """
    bad = {i: reason for found in features.values() for i, reason in found.unreadable.items()}
    if not bad:
        return task, dict(features)
    first = min(bad)
    if not skip:
        raise InputError(
            f"{len(bad)} of {len(task.files.paths)} files cannot be used, the first: {bad[first]}; "
            "repair them, or leave them out with --skip_unreadable"
        )
    kept = {name: found.without(bad) for name, found in features.items()}
    return task.without(bad, f"{len(bad)} files that cannot be read left out"), kept


def probe_frozen(
    features: Features, task: Task, settings: ProbeSettings, fractions: Sequence[float] = (1.0,), seeds: int = 1
) -> list[ProbeResult]:
    """Probe with each fraction of the labels.

    Args:
        features: of the files of the task.
        task: the task.
        settings: the probe; its label fraction and seed are replaced. `keep_head` concerns the probe with all labels.
        fractions: fractions of the training labels.
        seeds: number of seeds for each fraction below 1.

    Returns:
        One result per fraction and seed, the smallest fraction first.
    """
    results = []
    for fraction in sorted(fractions):
        for seed in range(seeds if fraction < 1 else 1):
            keep_head = settings.keep_head and fraction == 1
            one = replace(settings, label_fraction=fraction, seed=seed, keep_head=keep_head)
            results.append(
                probe(
                    features.values,
                    task.files.targets,
                    task.files.classes,
                    one,
                    clips=features.owner,
                    folds=task.files.folds,
                    groups=task.files.groups,
                )
            )
    return results


def save_tagger(model: Any, head: ProbeHead, seconds: float, folder: Path, level: Level | None = None) -> None:
    """Save an encoder with a fitted head as one model folder, for `load_tagger`.

    Args:
        model: an `EmbeddingModel` without a head.
        head: the fitted head, which holds the names of the classes.
        seconds: length of the clips that the head was fitted on.
        folder: the model folder to write.
        level: the level rule of the clips that the head was fitted on; None for that of the model.

    Raises:
        InputError: the model has a head, or cannot be rebuilt (TorchScript).
    """
    from ssl_audio.hub.saved import save_model

    if model.head is not None:
        raise InputError("the model has a head already; load it without projection=True")
    head.clip_seconds = seconds
    save_model(model.with_parts(head=head, level=model.level if level is None else level), folder)
