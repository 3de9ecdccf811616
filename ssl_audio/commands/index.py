"""Embed a folder of music once, so that `recommend` and `map` answer at once.

Run it again after the folder has changed: new and changed files are embedded, files that are gone are forgotten. An
interrupted run goes on where it last saved (every two minutes).
"""

import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.retrieval.building import GROUPS
from ssl_audio.retrieval.search import METRICS, SEARCHES

if TYPE_CHECKING:
    from ssl_audio.retrieval import Index
EXAMPLES = """examples:
  ssl-audio index ~/Music --model runs/simsiam --output music.index
  ssl-audio index ~/Music --model byol --output singers.index --window 4 --group top_folder
  ssl-audio index ~/Music --model runs/simsiam --output music.index --aggregate max --search hnsw --rebuild
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
    parser.add_argument("folder", help="the library; every audio file under it is indexed")
    parser.add_argument("--model", help=MODEL + "; by default the one the index names")
    add_trusted(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the index; it is updated if it is there")
    parser.add_argument("--window", dest="window_seconds", type=float, metavar="S", help="seconds a window (10)")
    parser.add_argument("--hop", dest="hop_seconds", type=float, metavar="S", help="from window to window (no overlap)")
    parser.add_argument(
        "--aggregate", choices=("mean", "max"), help="compare tracks by their mean, or by their closest windows (mean)"
    )
    parser.add_argument("--metric", choices=METRICS, help="(cosine)")
    parser.add_argument("--search", choices=SEARCHES, help="exact, or approximate by FAISS; auto goes by size (auto)")
    parser.add_argument(
        "--group", choices=GROUPS, help="what --per-artist counts by: a file's folder or the first (folder)"
    )
    parser.add_argument("--rebuild", action="store_true", help="start again, whatever the output holds")
    parser.add_argument("--moved", action="store_true", help="the library of the index lies in this folder now")
    parser.add_argument("--quality", action="store_true", help="print how often neighbours share the artist (group)")
    parser.add_argument("--labels", metavar="CSV", help="with --quality: columns path, label; judge by these too")
    parser.add_argument("--batch-size", type=int, metavar="N", help="clips a forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")


def run(args: Namespace) -> int:
    from ssl_audio.errors import InputError
    from ssl_audio.hub.address import lasting
    from ssl_audio.retrieval import Index
    from ssl_audio.utils.device import best_device

    asked = {name: getattr(args, name) for name in _DEFAULTS if getattr(args, name) is not None}
    root = os.path.abspath(args.folder)
    index = None
    if os.path.exists(args.output) and not args.rebuild:
        index = Index.load(args.output, root=root if args.moved else None)
        if index.settings["root"] != root:
            raise InputError(
                f"{args.output} is the index of {index.settings['root']}; give another --output, --rebuild, or "
                "--moved if that folder has moved"
            )
        for option, value in asked.items():
            if index.settings[option] != value:
                raise InputError(
                    f"{args.output} was made with {option} {index.settings[option]}, not {value}; add --rebuild"
                )
    name = args.model or (None if index is None else index.settings["model"])
    if name is None:
        raise InputError("which model? give --model RUN")
    if index is None:  # a path must still be found when the index is used from another folder
        index = Index({**_DEFAULTS, **asked, "root": root, "model": lasting(name)})
    model = load(args, name)
    index.use(model)
    update = index.update(save_to=args.output, batch_size=args.batch_size, device=best_device(args.device))
    for path, reason in update.failed:
        print(f"skipped: {reason if path in reason else f'{path}: {reason}'}")
    if not len(index):
        raise InputError(f"{args.folder}: none of its {len(update.failed)} audio files can be embedded")
    print(f"{args.output}: {len(index):,} tracks ({update}); {index.description}")
    if args.quality or args.labels:
        _print_quality(index, args.labels)
    return 0


def _print_quality(index: "Index", labels: str | None) -> None:
    from ssl_audio.retrieval.quality import index_quality

    for name, figures in index_quality(index, labels).items():
        print(name.replace("_", " "))
        for figure, value in figures.items():
            shown = f"{value:.3f}" if isinstance(value, float) else value
            print(f"  {figure.replace('_', ' '):<24} {shown}")
