"""Find what sounds like a song: its nearest neighbours in an indexed library."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_audio.commands._models import add_trusted, load

if TYPE_CHECKING:
    from ssl_audio.retrieval import Recommendation

EXAMPLES = """examples:
  ssl-audio recommend song.mp3 --index music.index -n 10
  ssl-audio recommend song.mp3 --index music.index --per_artist 1 --mmr 0.7 --m3u playlist.m3u8
  ssl-audio recommend one.flac two.flac --index music.index --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("songs", nargs="+", metavar="SONG", help="audio file, in the library or not")
    parser.add_argument("--index", required=True, help="index that `ssl-audio index` wrote")
    parser.add_argument("-n", type=int, default=10, help="number of recommendations (10)")
    parser.add_argument(
        "--per_artist", type=int, metavar="K", help="at most K of each artist (the folder; see index --group)"
    )
    parser.add_argument(
        "--mmr",
        type=float,
        metavar="L",
        help="maximal marginal relevance: from 1 (similarity only) down to 0 (variety only)",
    )
    parser.add_argument("--model", help="where the model of the index is now, if it has moved")
    add_trusted(parser)
    parser.add_argument("--root", metavar="FOLDER", help="where the library is now, if it has moved")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--m3u", metavar="FILE", help="also write a playlist")


def run(args: Namespace) -> int:
    from ssl_audio.errors import InputError
    from ssl_audio.retrieval import Index
    from ssl_audio.utils.files import write_text

    index = Index.load(args.index, root=args.root)
    if any(song not in index for song in args.songs):
        name = args.model or index.settings["model"]
        if name is None:
            raise InputError(f"{args.index} does not name its model; give --model")
        index.use(load(args, name))
    gone: set[str] = set()
    found = index.recommend(args.songs, args.n, per_group=args.per_artist, mmr=args.mmr, on_missing=gone.add)
    for path in sorted(gone):
        print(f"skipped: {path} no longer exists", file=sys.stderr)
    for song, hits in zip(args.songs, found, strict=True):
        if len(hits) < args.n:
            print(f"{song}: the library has only {len(hits)} recommendations, not {args.n}", file=sys.stderr)
    if args.m3u:
        write_text(args.m3u, playlist([hit for hits in found for hit in hits]))
    if args.json:
        rows = [
            {"query": song, "recommendations": [vars(hit) for hit in hits]}
            for song, hits in zip(args.songs, found, strict=True)
        ]
        print(json.dumps(rows, indent=2))
        return 0
    for song, hits in zip(args.songs, found, strict=True):
        print(f"like {song}")
        width = max((len(Path(hit.path).name) for hit in hits), default=0)
        for rank, hit in enumerate(hits, 1):
            print(f"{rank:>4}  {hit.score:6.3f}  {Path(hit.path).name:<{width}}  {hit.group}")
    return 0


def playlist(hits: "list[Recommendation]") -> str:
    """The text of an extended M3U playlist with absolute paths, each track once."""
    lines = ["#EXTM3U"]
    for path in dict.fromkeys(hit.path for hit in hits):
        lines += [f"#EXTINF:-1,{Path(path).stem}", path]
    return "\n".join(lines) + "\n"
