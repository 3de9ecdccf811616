"""Embed recordings: a folder, a list of files or a pattern in, a table of embeddings out.

Files of any rate, length and format are read in parallel with the model's forward passes. Interrupted and started again
with the same arguments, the command goes on from what is on disk. Unreadable files are listed in
OUTPUT.unreadable.csv, the rest is embedded, and the exit status is 3.
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from ssl_audio.errors import InputError

if TYPE_CHECKING:
    from ssl_audio.embedding import FileEmbedding
    from ssl_audio.embedding.table import EmbeddingTable

EXAMPLES = """examples:
  ssl-audio embed recordings --model byol --output embeddings.parquet
  ssl-audio embed recordings --model runs/mine --output windows.parquet --window 4 --hop 2
  ssl-audio embed 'recordings/*/*.flac' --model saved --output embeddings.npz --window 4 --aggregate
  ssl-audio embed files.txt --model byol --output embeddings.parquet --device cuda
  ssl-audio embed recordings --model byol --output embeddings.parquet --devices 4        # four GPUs, through Lightning
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="a folder, a list (one path a line), an audio file, or a quoted pattern")
    parser.add_argument("--model", required=True, help="published name, run folder, checkpoint, saved folder or Hub id")
    parser.add_argument("--source", help="a folder or Hub id in which --model is a name")
    parser.add_argument("--output", required=True, help="the table to write: .parquet or .npz")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="embed windows of this length, not whole files")
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="from window to window; default: the window")
    parser.add_argument("--aggregate", nargs="?", const="mean", choices=["mean"], help="one embedding a file: the mean")
    parser.add_argument("--batch-size", type=int, help="clips a forward pass; default: 4 on a CPU, 64 else")
    parser.add_argument("--workers", type=int, help="threads that read files; default: the cores, 8 at most")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument("--restart", action="store_true", help="throw away what an interrupted run left")
    group = parser.add_argument_group("several devices or machines (Lightning's predict loop)")
    group.add_argument("--devices", type=int, default=1, help="processes a machine, each with a device")
    group.add_argument("--num-nodes", type=int, default=1, help="machines, started as for Lightning or by SLURM")
    group.add_argument("--strategy", help="Lightning's strategy; default: ddp")


def run(args: argparse.Namespace) -> int:
    from ssl_audio.embedding.table import EmbeddingTable, check_output, find_recordings

    check_output(args.output)
    recordings = find_recordings(args.input)
    settings = {"window_seconds": args.window, "hop_seconds": args.hop, "aggregate": args.aggregate}
    options = {"batch_size": args.batch_size, "workers": args.workers}
    if args.devices < 1 or args.num_nodes < 1:
        raise InputError(f"--devices and --num-nodes must be at least 1, not {args.devices} and {args.num_nodes}")
    several = args.devices > 1 or args.num_nodes > 1 or args.strategy is not None
    if several and args.device not in (None, "cpu", "cuda"):
        raise InputError(f"--device {args.device} is one device; with --devices say cpu, cuda or nothing")

    from ssl_audio.hub import load_model
    from ssl_audio.utils.device import best_device

    model = load_model(args.model, **({"source": args.source} if args.source else {}))
    restart = args.restart and not (several and _is_child())
    table = EmbeddingTable(model, recordings, args.output, settings, restart)
    started = time.perf_counter()
    already = len(table.missing()) < table.shards
    if several:
        from ssl_audio.embedding.distributed import write_missing

        if not write_missing(table, args.devices, args.num_nodes, args.strategy, args.device, options):
            return 0  # one process puts the parts together
    else:
        _write_missing(table, {**options, "device": best_device(args.device)})
    clips, unreadable = table.assemble()
    took = time.perf_counter() - started
    rate = "" if already else f" ({clips / took:.1f} clips/s)"
    print(f"{args.output}: {clips} clips of {len(recordings) - unreadable} files, {took:.1f} s{rate}")
    if unreadable:
        print(f"{unreadable} unreadable files are listed in {table.unreadable}", file=sys.stderr)
    return 3 if unreadable else 0


def _write_missing(table: "EmbeddingTable", options: dict[str, Any]) -> None:
    from tqdm import tqdm

    from ssl_audio.embedding.table import SHARD

    missing = table.missing()
    total = len(table.recordings)
    todo = sum(min(SHARD, total - shard * SHARD) for shard in missing)
    started, clips = time.perf_counter(), 0
    if todo < total:
        print(f"going on from {table.parts}: {total - todo} of {total} files are done", file=sys.stderr)
    with tqdm(desc="embedding", total=total, initial=total - todo, unit="file", delay=2) as bar:
        done = -1

        def on_result(result: "FileEmbedding") -> None:
            nonlocal clips, done
            clips += 1
            bar.update(result.index - done)
            done = result.index
            bar.set_postfix_str(f"{clips / (time.perf_counter() - started):.1f} clips/s", refresh=False)

        table.write_shards(missing, on_result, **options)


def _is_child() -> bool:
    """Whether a launcher started this process as another than the first."""
    import os

    return any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
