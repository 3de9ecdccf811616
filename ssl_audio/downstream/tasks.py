"""Labelled data sets as tasks: a named corpus under its official folds or split, a folder, or a CSV."""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_audio.data import corpora
from ssl_audio.errors import InputError
from ssl_audio.evaluation.labels import LabelledFiles, read_labels

UNGROUPED = (
    "nothing tells which files belong together: clips of one recording may be in training and in test, which flatters; "
    "name a column that tells, such as --option group=song, or one of folds"
)
EACH_ALONE = (
    "each file is split by itself: clips of one recording may be in training and in test, which flatters; put those of "
    "one recording into a folder of their own below the class"
)


@dataclass(frozen=True)
class Task:
    """What is to be predicted of which files, and how they are split.

    Attributes:
        name, split_name: figures under different splits cannot be compared.
        files: with `folds` of fold names (each is tested once) or of the words train, valid and test.
        notes: what is not there, in words.
    """

    name: str
    split_name: str
    files: LabelledFiles
    notes: tuple[str, ...] = ()

    def without(self, positions: Collection[int], note: str) -> "Task":
        """Without the files at these positions."""
        kept = [i for i in range(len(self.files.paths)) if i not in positions]
        files = self.files
        chosen = LabelledFiles(
            [files.paths[i] for i in kept],
            files.classes,
            files.targets[kept],
            [files.folds[i] for i in kept] if files.folds else None,
            [files.groups[i] for i in kept] if files.groups else None,
        )
        return replace(self, files=chosen, notes=(*self.notes, note))


def load_task(name: str, root: str | os.PathLike, options: dict[str, Any]) -> Task:
    """The task of this name.

    Args:
        name: one of `ssl_audio.data.corpora.CORPORA`, or "csv".
        root: the corpus's folder, or the CSV file.
        options: arguments of the corpus's reader, or of `ssl_audio.evaluation.labels.read_labels`.

    Raises:
        InputError: no such task or option, files missing, fewer than two classes.
    """
    if name != "csv":
        task = task_of(corpora.load(name, root, **options))
        if name == "folder" and _each_alone(task.files):
            return replace(task, notes=(*task.notes, EACH_ALONE))
        return task
    known = ("label", "file", "fold", "group", "separator", "root")
    if unknown := [key for key in options if key not in known]:
        raise InputError(f"csv has no option {', '.join(unknown)}; it has {', '.join(known)}")
    if "label" not in options:
        raise InputError("csv needs --option label=COLUMN (several columns of 0 and 1: label=[a,b])")
    files = read_labels(root, **options)
    split = f"column {options['fold']}" if options.get("fold") else "5 random folds"
    notes = (UNGROUPED,) if files.folds is None and files.groups is None else _torn(files)
    return Task(os.path.basename(os.fspath(root)), split, files, notes)


def _each_alone(files: LabelledFiles) -> bool:
    """Whether each file of a folder is a group of its own; one in a folder below the class is of that folder's."""
    groups = files.groups or []
    return all(Path(group).name == path.name for group, path in zip(groups, files.paths, strict=True))


def _torn(files: LabelledFiles) -> tuple[str, ...]:
    """A note when given folds pull the files of a group apart."""
    if files.folds is None or files.groups is None:
        return ()
    folds: dict[str, set[str]] = {}
    for group, fold in zip(files.groups, files.folds, strict=True):
        folds.setdefault(group, set()).add(fold)
    torn = [group for group, found in folds.items() if len(found) > 1]
    if not torn:
        return ()
    return (
        f"{len(torn)} of {len(folds)} groups ({torn[0]} first) have files in more than one of the given folds, which "
        "flatters where training and test share them",
    )


def task_of(corpus: corpora.Corpus) -> Task:
    """A corpus as a task: cross-validation over its folds where it has any, else its one split."""
    if len(corpus.label_names) < 2:
        raise InputError(f"{corpus.name} has one label only ({', '.join(corpus.label_names)}); a task needs two")
    tracks = corpus.tracks
    targets = corpus.targets(tracks)
    in_folds = all(track.fold for track in tracks)
    files = LabelledFiles(
        paths=[track.path for track in tracks],
        classes=list(corpus.label_names),
        targets=targets.astype(bool) if corpus.multi_label else targets.argmax(axis=1),
        folds=[track.fold if in_folds else track.split for track in tracks],
        groups=[track.group for track in tracks],
    )
    absent = len(corpus.left_out)
    return Task(corpus.name, corpus.split_name, files, (f"{absent} tracks without audio left out",) if absent else ())
