"""Classification tasks: a corpus with its official folds or split, a folder of class folders, or a CSV table."""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_audio.data import corpora
from ssl_audio.errors import InputError
from ssl_audio.evaluation.labels import LabelledFiles, read_labels

UNGROUPED = (
    "the table has no groups or folds, so clips of one recording may be in training and in test, which makes the "
    "results too good; name a column of groups, such as --option group=song, or of folds"
)
EACH_ALONE = (
    "every file is its own group, so clips of one recording may be in training and in test, which makes the results "
    "too good; put the clips of one recording into a folder of their own below the class folder"
)


@dataclass(frozen=True)
class Task:
    """A classification task: labelled files and their split.

    Attributes:
        name: name of the data set.
        split_name: name of the split. Results with different splits cannot be compared.
        files: the labelled files. Their `folds` are names of folds, each tested once, or the words train, valid and
            test.
        notes: notes about the data, such as files that were left out.
    """

    name: str
    split_name: str
    files: LabelledFiles
    notes: tuple[str, ...] = ()

    def without(self, positions: Collection[int], note: str) -> "Task":
        """The task without the files at these positions, with one more note."""
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
    """Load a task.

    Args:
        name: one of `ssl_audio.data.corpora.CORPORA`, or "csv".
        root: folder of the corpus, or the CSV file.
        options: arguments of the reader of the corpus, or of `ssl_audio.evaluation.labels.read_labels`.

    Raises:
        InputError: the task or an option is unknown, files are missing, or there are fewer than two classes.
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
    notes = (UNGROUPED,) if files.folds is None and files.groups is None else _divided(files)
    return Task(os.path.basename(os.fspath(root)), split, files, notes)


def _each_alone(files: LabelledFiles) -> bool:
    """Whether every file is its own group, that is, no file is in a sub-folder of its class folder."""
    groups = files.groups or []
    return all(Path(group).name == path.name for group, path in zip(groups, files.paths, strict=True))


def _divided(files: LabelledFiles) -> tuple[str, ...]:
    """A note if the given folds divide groups."""
    if files.folds is None or files.groups is None:
        return ()
    folds: dict[str, set[str]] = {}
    for group, fold in zip(files.groups, files.folds, strict=True):
        folds.setdefault(group, set()).add(fold)
    divided = [group for group, found in folds.items() if len(found) > 1]
    if not divided:
        return ()
    return (
        f"{len(divided)} of {len(folds)} groups (the first: {divided[0]}) have files in several of the given folds; a "
        "group in both training and test makes the results too good",
    )


def task_of(corpus: corpora.Corpus) -> Task:
    """The task of a corpus: cross-validation over its folds if it has folds, else its fixed split.

    Raises:
        InputError: the corpus has fewer than two labels.
    """
    if len(corpus.label_names) < 2:
        raise InputError(f"{corpus.name} has one label only ({', '.join(corpus.label_names)}); a task needs two labels")
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
    missing = len(corpus.left_out)
    notes = (f"{missing} tracks without audio left out",) if missing else ()
    return Task(corpus.name, corpus.split_name, files, notes)
