"""Draw an indexed library as a map in one HTML file: tracks that sound alike are close, a click plays a track."""

import os
from argparse import ArgumentParser, Namespace

from ssl_audio.evaluation.projection import PROJECTIONS

EXAMPLES = """examples:
  ssl-audio map --index music.index --output map.html
  ssl-audio map --index music.index --output map.html --projection umap --title "My records"
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--index", required=True, help="index that `ssl-audio index` wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="HTML file to write; open it in a browser")
    parser.add_argument(
        "--projection", choices=PROJECTIONS, default="pca", help="umap takes longer and separates clusters more (pca)"
    )
    parser.add_argument("--title", help="title of the page (default: the name of the library's folder)")
    parser.add_argument("--root", metavar="FOLDER", help="where the library is now, if it has moved")


def run(args: Namespace) -> int:
    from ssl_audio.retrieval import Index
    from ssl_audio.retrieval.map import map_page
    from ssl_audio.utils.files import write_text

    index = Index.load(args.index, root=args.root)
    write_text(args.output, map_page(index, os.path.dirname(os.path.abspath(args.output)), args.projection, args.title))
    print(f"{args.output}: {len(index):,} tracks")
    return 0
