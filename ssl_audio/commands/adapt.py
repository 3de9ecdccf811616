"""Adapt a model to your recordings without training: try what helps on people left out, and save it, or advise against.

Each folder of RECORDINGS is a collection person/**/file. Tried in turn, each on people it was not fitted on: averaging
views of a recording (use), subtracting the mean of the recordings (mean), taking down what differs within a person or
a recording (scatter), whitening, joining MFCC statistics (join), adaptive score normalisation with the recordings as
cohort (scores). What helps is kept. An interrupted run goes on after its last finished rung when it is called again.
"""

import argparse

from ssl_audio.commands._models import MODEL, add_trusted

EXAMPLES = """examples:
  ssl-audio adapt my-recordings --from package:resemblyzer --output adapted
  ssl-audio adapt studio telephone --from my-model --output adapted --verify other-people
  ssl-audio adapt my-recordings --from my-model --output adapted --groups speakers.csv
  ssl-audio adapt unsorted --from my-model --output adapted --groups none
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", nargs="+", metavar="RECORDINGS", help="folders, each a collection person/**/file")
    parser.add_argument("--from", dest="model", required=True, metavar="MODEL", help=MODEL)
    parser.add_argument("--source", help="folder or Hub id in which MODEL is a name")
    add_trusted(parser)
    parser.add_argument("--output", required=True, metavar="OUT", help="folder of the adapted model and its report")
    parser.add_argument(
        "--groups",
        default="folders",
        metavar="folders|none|FILE",
        help="who is heard: the first folder below a collection (folders), nobody knows (none), or a table with the "
        "columns path and speaker",
    )
    parser.add_argument(
        "--verify", nargs="+", default=[], metavar="FOLDER", help="collections of other people to test on"
    )
    parser.add_argument("--rungs", nargs="+", metavar="RUNG", help="try only: use mean scatter whitening join scores")
    parser.add_argument("--seed", type=int, default=0, help="of halves, trials and resampling (0)")
    parser.add_argument("--restart", action="store_true", help="start anew in OUT instead of going on")
    parser.add_argument("--batch_size", type=int, help="clips per forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    from ssl_audio.adaptation import RUNGS, adapt
    from ssl_audio.adaptation.result import table
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model
    from ssl_audio.utils.device import best_device

    start = load_model(args.model, args.source or PUBLISHED_SOURCE, trusted=args.trusted, calibration=False)
    report = adapt(
        args.recordings,
        start,
        args.output,
        groups=args.groups,
        rungs=args.rungs or RUNGS,
        verify=args.verify,
        seed=args.seed,
        restart=args.restart,
        say=lambda line: print(line, flush=True),
        batch_size=args.batch_size,
        device=best_device(args.device),
    )
    for where, title in (("left_out", "on people left out"), ("verify", "on other people")):
        if where in report:
            print(f"\n{title}, against the start\n{table(report[where]['against_start'])}")
            print(f"\n{title}, against the start in its best use\n{table(report[where]['against_best_use'])}")
    print(f"\n{report['verdict']}")
    return 0
