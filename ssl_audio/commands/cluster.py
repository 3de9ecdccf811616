"""Find how many voices (or sounds of one kind) there are, and which recording belongs to which.

SOURCE is a folder, a list of files, a pattern, or a table of embeddings (`ssl-audio embed`). Two clusters are merged
while their recordings are, on average, more probably one voice than two: the threshold follows from the calibration of
the model, the prior and the costs. The output has the columns path, cluster, confidence and nearest, a row a file.
Files that cannot be read are named, the others are clustered, and the exit status is 3.
"""

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_audio.commands._models import MODEL, add_trusted
from ssl_audio.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ssl_audio.decisions.cluster_files import Embedded

EXAMPLES = """examples:
  ssl-audio cluster recordings --model my-model --output clusters.csv --page clusters.html
  ssl-audio cluster embeddings.parquet --model my-model --output clusters.parquet
  ssl-audio cluster recordings --model my-model --output clusters.csv --corrections corrections.csv --link voices
  ssl-audio cluster interview.wav --model my-model --window 2 --hop 0.5 --output windows.csv --timeline turns
  ssl-audio cluster recordings --model my-model --output clusters.csv --labels folders
"""
FOLDERS = "folders"  # the value of --labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="folder, list of files, quoted pattern, file, or table of embeddings")
    parser.add_argument("--model", help=MODEL + "; of a table: whose calibration is used")
    parser.add_argument("--source", dest="model_source", help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="table to write, .csv or .parquet")
    parser.add_argument("--prior", type=float, default=0.5, help="probability that two clusters are one voice (0.5)")
    parser.add_argument("--cost_miss", type=float, default=1.0, help="price of leaving one voice apart (1)")
    parser.add_argument("--cost_false_accept", type=float, default=1.0, help="price of merging two voices (1)")
    parser.add_argument("--threshold", type=float, metavar="COSINE", help="merge above this cosine, uncalibrated")
    parser.add_argument("--clusters", type=int, metavar="N", help="the number of voices, if it is known")
    parser.add_argument(
        "--method", choices=("agglomerative", "hdbscan"), default="agglomerative", help="(agglomerative)"
    )
    parser.add_argument(
        "--overcluster", type=int, metavar="K",
        help="small clusters that k-means makes first; 0 for none (a fourth of more than 10,000 files)",
    )  # fmt: skip
    parser.add_argument("--corrections", metavar="CSV", help="columns first, second, same (yes or no): what you heard")
    parser.add_argument("--window", type=float, metavar="S", help="cluster windows of long recordings instead of files")
    parser.add_argument("--hop", type=float, metavar="S", help="distance between windows (default: --window)")
    parser.add_argument(
        "--timeline", metavar="FOLDER", help="with --window: RTTM, Audacity labels and a picture of each recording"
    )
    parser.add_argument("--page", metavar="FILE", help="write an HTML page: map, examples, least certain files")
    parser.add_argument("--link", metavar="FOLDER", help="write a folder of links for each cluster")
    parser.add_argument(
        "--labels", metavar="CSV", help=f"columns path, label: compare with these; or {FOLDERS} for the first folder"
    )
    parser.add_argument("--seed", type=int, default=0, help="of k-means (0)")
    parser.add_argument("--batch_size", type=int, help="clips per forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    from ssl_audio.decisions.cluster_files import (
        check_output,
        cluster_embedded,
        embed_source,
        link_clusters,
        write_clusters,
    )
    from ssl_audio.decisions.corrections import read_corrections
    from ssl_audio.decisions.rule import Rule
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model
    from ssl_audio.utils.device import best_device
    from ssl_audio.utils.files import write_text

    check_output(Path(args.output))
    rule = Rule(args.prior, None, args.cost_miss, args.cost_false_accept)
    if bool(args.timeline) > bool(args.window):
        raise InputError("--timeline needs --window, such as --window 2")
    if args.window and (args.page or args.link):
        raise InputError("--page and --link show whole files; leave --window, or give --timeline FOLDER")
    corrections = read_corrections(args.corrections) if args.corrections else None
    if args.window and corrections:
        raise InputError("--corrections name whole files; leave --window")
    model = None
    if args.model:
        model = load_model(args.model, args.model_source or PUBLISHED_SOURCE, trusted=args.trusted)
    options = {"batch_size": args.batch_size, "device": best_device(args.device)}
    rows = embed_source(args.source, model, args.window, args.hop, **options)
    labels = _labels(args.labels, rows) if args.labels else None
    clusters = cluster_embedded(
        rows,
        model,
        rule=rule,
        threshold=args.threshold,
        number=args.clusters,
        method=args.method,
        overcluster=args.overcluster,
        corrections=corrections,
        seed=args.seed,
    )
    if args.link:
        link_clusters(args.link, rows, clusters)
    write_clusters(args.output, rows, clusters, windows=bool(args.window))
    if args.timeline:
        from ssl_audio.decisions.timeline import write_timelines

        write_timelines(args.timeline, rows, clusters)
    if args.page:
        from ssl_audio.decisions.cluster_page import cluster_page

        folder = os.path.dirname(os.path.abspath(args.page))
        write_text(args.page, cluster_page(rows, clusters, folder, f"Clusters of {Path(args.source).name}"))
    what = "windows" if args.window else "files"
    print(f"{args.output}: {len(clusters):,} clusters of {len(rows.names):,} {what}")
    if labels is not None:
        _print_agreement(clusters.labels, labels)
    for path, reason in rows.failed:
        print(f"not clustered: {path}: {reason}", file=sys.stderr)
    return 3 if rows.failed else 0


def _labels(source: str, rows: "Embedded") -> list[str]:
    """The label of each row; "" where none is known."""
    if source == FOLDERS:
        found = rows.groups
    else:
        try:
            with open(source, newline="", encoding="utf-8-sig") as file:
                table = {row["path"]: row["label"] for row in csv.DictReader(file)}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{source}: cannot be read as a CSV table: {error}") from error
        except KeyError as error:
            raise InputError(f"{source}: needs the columns path and label; {error} is missing") from error
        found = [table.get(name) or "" for name in rows.names]
    if not any(found):
        raise InputError(f"--labels {source}: no file has a label there; its paths must be those of the output")
    return found


def _print_agreement(clusters: "np.ndarray", labels: list[str]) -> None:
    from ssl_audio.evaluation.clustering_metrics import clustering_metrics

    known = [i for i, label in enumerate(labels) if label]
    found = clustering_metrics(clusters[known].tolist(), [labels[i] for i in known])
    print(f"compared with {found['labels']} labels of {len(known):,} of these, in {found['clusters']} clusters:")
    for name, value in found.items():
        if name in ("clusters", "labels") or name.endswith("_interval"):
            continue
        span = found.get(f"{name}_interval")
        shown = f" ({span[0]:.3f} to {span[1]:.3f})" if isinstance(span, tuple) else ""
        print(f"  {name.replace('_', ' '):<20} {value:.3f}{shown}")
