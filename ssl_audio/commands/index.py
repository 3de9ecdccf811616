"""Embed a library of music once, so that `recommend` and `map` answer without delay.

Run the command again after the folder has changed: new and changed files are embedded, deleted files are removed from
the index. The index is saved every two minutes; an interrupted run continues from the last save.
"""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.retrieval.building import GROUPS
from ssl_audio.retrieval.search import METRICS, SEARCHES

if TYPE_CHECKING:
    from ssl_audio.retrieval import Index

EXAMPLES = """examples:
  ssl-audio index ~/Music --model runs/simsiam/0 --output music.index
  ssl-audio index ~/Music --model byol --output singers.index --window 4 --group top_folder
  ssl-audio index ~/Music --model runs/simsiam/0 --output music.index --aggregate max --search hnsw --rebuild
  ssl-audio index ~/Music --output music.index --quality --labels genres.csv
"""

_DEFAULTS = {
    "window_seconds": 10.0,
    "hop_seconds": None,
    "aggregate": "mean",
    "metric": "cosine",
    "search": "auto",
    "group": "folder",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", help="folder of the library; every audio file in it is indexed")
    parser.add_argument("--model", help=MODEL + " (default: the model of the index)")
    add_trusted(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="index to write, or to update if it exists")
    parser.add_argument("--window", dest="window_seconds", type=float, metavar="S", help="length of a window (10 s)")
    parser.add_argument(
        "--hop", dest="hop_seconds", type=float, metavar="S", help="distance between windows (default: --window)"
    )
    parser.add_argument(
        "--aggregate",
        choices=("mean", "max"),
        help="compare tracks by the mean of their windows, or by their closest windows (mean)",
    )
    parser.add_argument("--metric", choices=METRICS, help="similarity of two embeddings (cosine)")
    parser.add_argument(
        "--search", choices=SEARCHES, help="exact, or approximate with FAISS; auto chooses by size (auto)"
    )
    parser.add_argument(
        "--group",
        choices=GROUPS,
        help="what recommend --per_artist takes as artist: a file's folder, or the top folder (folder)",
    )
    parser.add_argument("--rebuild", action="store_true", help="discard an existing index and start again")
    parser.add_argument("--moved", action="store_true", help="the library of the index has moved to this folder")
    parser.add_argument(
        "--corrections", metavar="CSV", help="columns first, second, same (yes or no): put tracks into other groups"
    )
    parser.add_argument("--quality", action="store_true", help="print how often neighbours have the same artist")
    parser.add_argument("--labels", metavar="CSV", help="with --quality: columns path, label; score these too")
    parser.add_argument("--batch_size", type=int, metavar="N", help="clips per forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def run(args: Namespace) -> int:
    from ssl_audio.decisions.corrections import read_corrections
    from ssl_audio.errors import InputError
    from ssl_audio.hub.address import lasting
    from ssl_audio.retrieval import Index
    from ssl_audio.utils.device import best_device
    from ssl_audio.utils.tables import read_table

    if args.labels is not None:
        read_table(args.labels, ("path", "label"))  # before the library is embedded
    asked = {name: getattr(args, name) for name in _DEFAULTS if getattr(args, name) is not None}
    root = os.path.abspath(args.folder)
    corrections = read_corrections(args.corrections) if args.corrections else None
    index = None
    if os.path.exists(args.output) and not args.rebuild:
        index = Index.load(args.output, root=root if args.moved else None)
        if os.path.realpath(index.settings["root"] or "") != os.path.realpath(root):
            raise InputError(
                f"{args.output} is the index of {index.settings['root']}; give another --output, or --rebuild, or "
                "--moved if that folder is here now"
            )
        for option, value in asked.items():
            if index.settings[option] != value:
                raise InputError(
                    f"{args.output} was made with {option} {index.settings[option]}, not {value}; add --rebuild"
                )
    name = args.model or (None if index is None else index.settings["model"])
    if name is None:
        raise InputError("a new index needs a model; give --model RUN_FOLDER, or a published name such as byol")
    if index is None:  # `lasting`, so that the model is found when the index is used from another folder
        index = Index({**_DEFAULTS, **asked, "root": root, "model": lasting(name)})
    model = load(args, name)
    index.use(model)
    if args.model:
        index.settings["model"] = lasting(name)  # it may have moved
    update = index.update(save_to=args.output, batch_size=args.batch_size, device=best_device(args.device))
    for path, reason in update.failed:
        print(f"skipped: {reason if path in reason else f'{path}: {reason}'}")
    if not len(index):
        raise InputError(f"{args.folder}: none of its {len(update.failed)} audio files can be embedded")
    if corrections is not None:
        names = [os.path.relpath(path, root) for path in index.paths]
        index.set_groups(corrections.people(index.groups, names, [Path(path) for path in index.paths]))
        index.save(args.output)
    print(f"{args.output}: {len(index):,} tracks ({update}); {index.description}")
    if args.quality or args.labels:
        _print_quality(index, args.labels)
    return 0


def _print_quality(index: "Index", labels: str | None) -> None:
    from ssl_audio.retrieval.quality import index_quality, mean_cosine

    alike = mean_cosine(index.embeddings)
    if alike > 0.99:
        print(f"note: two tracks have a cosine of {alike:.4f} on average: the model may have collapsed")
    for name, metrics in index_quality(index, labels).items():
        print(name.replace("_", " "))
        for metric, value in metrics.items():
            shown = f"{value:.3f}" if isinstance(value, float) else value
            print(f"  {metric.replace('_', ' '):<24} {shown}")
