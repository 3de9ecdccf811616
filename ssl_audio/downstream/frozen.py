"""Probes of frozen encoders on a task, and what is saved of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_audio.downstream.features import Features
from ssl_audio.downstream.tasks import Task
from ssl_audio.errors import InputError
from ssl_audio.evaluation.classifiers import HIDDEN
from ssl_audio.evaluation.probes import ProbeResult, probe
from ssl_audio.heads import ProbeHead


def common_files(task: Task, features: Mapping[str, Features], skip: bool) -> tuple[Task, dict[str, Features]]:
    """Task and features without the files that any of the models could not embed.

    Raises:
        InputError: there are any, and they are not to be skipped.
    """
    bad = {i: reason for found in features.values() for i, reason in found.unreadable.items()}
    if not bad:
        return task, dict(features)
    first = min(bad)
    if not skip:
        raise InputError(
            f"{len(bad)} of {len(task.files.paths)} files cannot be used, the first: {bad[first]}; "
            "--skip_unreadable leaves them out and says so"
        )
    kept = {name: found.without(bad) for name, found in features.items()}
    return task.without(bad, f"{len(bad)} files that cannot be read left out"), kept


def probe_frozen(
    features: Features,
    task: Task,
    kind: str,
    fractions: Sequence[float] = (1.0,),
    seeds: int = 1,
    draws: int = 200,
    keep_head: bool = False,
    hidden: int = HIDDEN,
) -> list[ProbeResult]:
    """Probes with each fraction of the labels, the smaller ones with several seeds; all labels with one.

    Every probe tests once: nothing is chosen by its figures.
    """
    results = []
    for fraction in sorted(fractions):
        for seed in range(seeds if fraction < 1 else 1):
            results.append(probe(
                features.values, task.files.targets, task.files.classes, clips=features.owner,
                folds=task.files.folds, groups=task.files.groups, kind=kind, keep_head=keep_head and fraction == 1,
                label_fraction=fraction, seed=seed, draws=draws, hidden=hidden, progress=True,
            ))  # fmt: skip
    return results


def save_tagger(model: Any, head: ProbeHead, seconds: float, folder: Path) -> None:
    """Save the encoder with the fitted head on top: one model folder, from which tags come with their names.

    Raises:
        InputError: the model cannot be built again (TorchScript).
    """
    from ssl_audio.hub.saved import save_model

    if model.head is not None:
        raise InputError("a model with a head of its own cannot get another one; probe it without projection")
    head.clip_seconds = seconds
    save_model(model.with_parts(head=head), folder)
