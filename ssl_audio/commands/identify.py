"""Find who of a number of known people is heard in each recording, or that it is none of them.

--enrolled is a folder person/**/file, or an index of such a folder (`ssl-audio index --group top_folder`). The
probabilities of all people and of none of them add up to 1; they need a model that `ssl-audio calibrate` has seen.
Without a calibration only scores are printed, and nobody is named. Files that cannot be read are named, and the exit
status is 3.
"""

import argparse
import csv
import io
import json
import sys
from typing import TYPE_CHECKING

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.errors import InputError

if TYPE_CHECKING:
    from ssl_audio.decisions.identifying import Enrolled, Identification

EXAMPLES = """examples:
  ssl-audio identify unknown.wav --enrolled people --model my-model
  ssl-audio identify unknown --enrolled people --model my-model --false_alarm 0.1 --csv found.csv
  ssl-audio identify unknown --enrolled people.index --model my-model --top 3 --json
  ssl-audio identify test-people --enrolled people --model my-model --labels
"""
SHOWN = 50  # recordings that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", nargs="+", help="files, folders, lists of files (one a line), quoted patterns")
    parser.add_argument("--enrolled", required=True, metavar="PLACE", help="folder person/**/file, or an index")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--source", help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    parser.add_argument("--none", type=float, default=0.5, help="probability that it is nobody enrolled, before (0.5)")
    parser.add_argument(
        "--false_alarm", type=float, metavar="RATE",
        help="decide so that this share of the recordings of nobody enrolled is given a name",
    )  # fmt: skip
    parser.add_argument("--score", choices=("mean", "best"), default="mean", help="of a person's recordings (mean)")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="candidates of each recording (3)")
    parser.add_argument(
        "--labels", action="store_true", help="the first folder of each recording says who it is: measure"
    )
    parser.add_argument("--csv", metavar="FILE", help="write a row per recording and candidate")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print as JSON, or write it")
    parser.add_argument("--batch_size", type=int, help="clips per forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    from ssl_audio.decisions.identifying import Enrolled, identify_files
    from ssl_audio.embedding.table import files_to_embed
    from ssl_audio.utils.device import best_device
    from ssl_audio.utils.files import write_text

    sources = [source for name in args.recordings for source in files_to_embed(name)]
    model = load(args)
    options = {"batch_size": args.batch_size, "device": best_device(args.device)}
    enrolled = Enrolled.of(args.enrolled, model, **options)
    found, failed = identify_files(
        [source.file for source in sources],
        enrolled,
        model,
        none=args.none,
        false_alarm=args.false_alarm,
        top=args.top,
        kind=args.score,
        **options,
    )
    if not found:
        raise InputError(f"{failed[0][0]}: {failed[0][1]}; no recording is left")
    groups = {str(source.file): source.group for source in sources}
    measured = _measured(found, enrolled, groups) if args.labels else None
    if args.csv:
        write_text(args.csv, _csv(found))
    if args.json:
        content = {"identifications": [one.as_dict() for one in found], "measured": measured}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        print(text) if args.json == "-" else write_text(args.json, text + "\n")
    if args.json != "-":
        _print(found, enrolled)
        if measured:
            _print_measured(measured)
    for path, reason in [*enrolled.failed, *failed]:
        print(f"not used: {path}: {reason}", file=sys.stderr)
    return 3 if failed or enrolled.failed else 0


def _measured(found: "list[Identification]", enrolled: "Enrolled", groups: dict[str, str]) -> dict:
    from ssl_audio.evaluation.open_set import open_set_metrics

    speakers = [groups[one.path] for one in found]
    if not all(speakers):
        raise InputError("--labels needs recordings in folders, one a person")
    first = [one.candidates[0] for one in found]
    strength = [one.score if one.llr is None else one.llr for one in first]
    return open_set_metrics(
        speakers, enrolled.people, [one.person for one in first], [one.person for one in found], strength
    )


def _csv(found: "list[Identification]") -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["path", "decision", "none", "false_alarm", "rank", "person", "probability", "llr", "score", "warnings"]
    )
    for one in found:
        for rank, c in enumerate(one.candidates, 1):
            writer.writerow(
                [one.path, one.person, one.none, one.false_alarm, rank, c.person, c.probability, c.llr, c.score,
                 "; ".join(one.warnings)]
            )  # fmt: skip
    return out.getvalue()


def _print(found: "list[Identification]", enrolled: "Enrolled") -> None:
    for one in found[:SHOWN]:
        best = one.candidates[0]
        if best.probability is None:
            listed = ", ".join(f"{c.person} {c.score:.3f}" for c in one.candidates)
            print(f"{one.path}: closest {listed}")
        else:
            listed = ", ".join(f"{c.person} {c.probability:.3f}" for c in one.candidates)
            print(f"{one.path}: {one.person or 'none of them'} ({listed}, none {one.none:.3f})")
        for warning in one.warnings:
            print(f"  warning: {warning}")
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN:,} more recordings; --csv FILE writes all")
    if found[0].none is None:
        print(
            "the model has no calibration, so that nobody can be named; make one with ssl-audio calibrate "
            "--model MODEL --data FOLDER, of recordings of other people"
        )
    else:
        print(f"{len(enrolled.people):,} people enrolled; the probabilities of all and of none add up to 1")


def _print_measured(measured: dict) -> None:
    for name, what in (
        ("identified", "named rightly, of recordings of enrolled people"),
        ("rank_1", "best candidate right, of the same"),
        ("false_alarm", "given a name, of recordings of others"),
    ):
        if measured[name] is not None:
            span = measured[f"{name}_interval"]
            shown = f" ({span[0]:.3f} to {span[1]:.3f})" if span else ""
            print(f"{what}: {measured[name]:.3f}{shown}")
