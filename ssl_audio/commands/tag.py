"""Show the tags of a recording over time: as a table, a picture (taggram) and JSON.

The model needs a classifier that knows the names of its outputs. `ssl-audio probe --output` and
`ssl-audio convert --classifier` write such models; a run folder of supervised training is one too.
"""

import argparse
import sys
from pathlib import Path

from ssl_audio.commands._models import add_trusted
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio tag song.mp3 --model probes/mtat
  ssl-audio tag song.mp3 --model probes/mtat --hop 0.5 --picture song.png --json song.json
  a picture and a JSON file for each song, in the folder tags:
    ssl-audio tag one.mp3 two.mp3 --model clmr --top 5 --output tags
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, help="recordings of any length, rate and format")
    add("--model", required=True, help="folder of a probe, a model folder with a classifier, or a supervised run")
    add_trusted(parser)
    add("--clip", type=float, default=None, metavar="SECONDS",
        help="length of a clip (default: that of the classifier's training)")  # fmt: skip
    add("--hop", type=float, default=None, metavar="SECONDS", help="distance between clips (default: --clip)")
    add("--top", type=int, default=10, help="tags in table and picture, strongest first (10)")
    add("--picture", type=Path, default=None, help="PNG file to write, for one recording")
    add("--json", type=Path, default=None, help="JSON file with every tag at every time, for one recording")
    add("--output", type=Path, default=None, help="folder for a picture and a JSON file of every recording")
    add("--device", default=None, help="cpu, cuda, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    """Tag every file, print its strongest tags, write the files. An unreadable file does not stop the others."""
    from ssl_audio.audio import AudioError
    from ssl_audio.downstream.tags import load_tagger, tag_file, write_json, write_taggram

    _check_names(args)
    model = load_tagger(args.model, args.trusted)
    bad = 0
    for path in args.files:
        try:
            tags = tag_file(model, path, args.clip, args.hop, args.device)
        except AudioError as error:
            print(f"error: {error}", file=sys.stderr)
            bad += 1
            continue
        print(f"{path}: {len(tags.times)} clips")
        for name, mean, when in tags.strongest(args.top):
            print(f"  {name:<24}{100 * mean:5.1f} %   strongest at {when:.1f} s")
        places = {"png": args.picture, "json": args.json}
        if args.output is not None:
            places |= {suffix: args.output / f"{path.stem}.{suffix}" for suffix in places if places[suffix] is None}
        if places["json"] is not None:
            write_json(places["json"], tags)
        if places["png"] is not None:
            write_taggram(places["png"], tags, args.top)
        for place in filter(None, places.values()):
            print(f"  written: {place}")
    if bad and len(args.files) > 1:
        print(f"{bad} of {len(args.files)} recordings could not be tagged", file=sys.stderr)
    return 2 if bad else 0


def _check_names(args: argparse.Namespace) -> None:
    """Refuse options that would overwrite each other."""
    if args.top < 1:
        raise InputError(f"--top must be at least 1, got {args.top}")
    if len(args.files) > 1 and (args.picture or args.json):
        raise InputError("--picture and --json are for one recording; give --output FOLDER for several")
    names = [path.stem for path in args.files]
    if args.output is not None and len(set(names)) < len(names):
        raise InputError("two recordings have the same name, and so would their files; tag them into different folders")
