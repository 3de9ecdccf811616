"""Write the embeddings of recordings into a table. The input is a folder, a list of files or a pattern.

Files may have any rate, length and format; they are read in parallel with the model's forward passes. After an
interruption, the same command continues from what is on disk. If files cannot be read, the others are embedded, the
unreadable ones are listed in OUTPUT.unreadable.csv, and the exit status is 3.
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.errors import InputError

if TYPE_CHECKING:
    from ssl_audio.embedding import FileEmbedding
    from ssl_audio.embedding.table import EmbeddingTable

EXAMPLES = """examples:
  ssl-audio embed recordings --model byol --output embeddings.parquet
  ssl-audio embed recordings --model runs/byol/0 --output windows.parquet --window 4 --hop 2
  ssl-audio embed 'recordings/*/*.flac' --model my-model --output embeddings.npz --window 4 --aggregate
  ssl-audio embed files.txt --model byol --output embeddings.parquet --device cuda
  the sixth layer of a foreign model:
    ssl-audio embed recordings --model 'hf:microsoft/wavlm-base-plus?layer=6' --output wavlm.parquet
  on four GPUs:
    ssl-audio embed recordings --model byol --output embeddings.parquet --devices 4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="a folder, a list (one path per line), an audio file, or a quoted pattern")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--source", help="folder or Hub id in which --model is a name")
    parser.add_argument("--output", required=True, help="table to write: .parquet or .npz")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="embed windows of this length, not whole files")
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="distance between windows (default: --window)")
    parser.add_argument(
        "--aggregate", nargs="?", const="mean", choices=["mean"], help="write the mean over the windows of each file"
    )
    parser.add_argument("--batch_size", type=int, help="clips per forward pass (default: 4 on a CPU, else 64)")
    parser.add_argument("--workers", type=int, help="threads that read files (default: one per core, at most 8)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add_trusted(parser)
    parser.add_argument("--restart", action="store_true", help="discard what an interrupted run left")
    group = parser.add_argument_group("several devices or machines (Lightning's predict loop)")
    group.add_argument("--devices", type=int, default=1, help="devices per machine, one process each (1)")
    group.add_argument("--num_nodes", type=int, default=1, help="machines, started by SLURM or as for Lightning (1)")
    group.add_argument("--strategy", help="Lightning's strategy (default: ddp)")


def run(args: argparse.Namespace) -> int:
    from ssl_audio.embedding.table import EmbeddingTable, check_output, files_to_embed

    check_output(args.output)
    files = files_to_embed(args.input)
    settings = {"window_seconds": args.window, "hop_seconds": args.hop, "aggregate": args.aggregate}
    options = {"batch_size": args.batch_size, "workers": args.workers}
    if args.devices < 1 or args.num_nodes < 1:
        raise InputError(f"--devices and --num_nodes must be at least 1, not {args.devices} and {args.num_nodes}")
    several = args.devices > 1 or args.num_nodes > 1 or args.strategy is not None
    if several and args.device not in (None, "cpu", "cuda"):
        raise InputError(f"--device {args.device} is one device; with --devices, give cpu or cuda, or leave it out")

    from ssl_audio.utils.device import best_device

    model = load(args)
    restart = args.restart and not (several and _is_child())
    table = EmbeddingTable(model, files, args.output, settings, restart)
    started = time.perf_counter()
    already = len(table.missing()) < table.shards
    if several:
        from ssl_audio.embedding.distributed import write_missing

        if not write_missing(table, args.devices, args.num_nodes, args.strategy, args.device, options):
            return 0  # another process assembles the parts
    else:
        _write_missing(table, {**options, "device": best_device(args.device)})
    clips, unreadable = table.assemble()
    took = time.perf_counter() - started
    rate = "" if already else f" ({clips / took:.1f} clips/s)"
    print(f"{args.output}: {clips} clips of {len(files) - unreadable} files, {took:.1f} s{rate}")
    if unreadable:
        print(f"{unreadable} unreadable files are listed in {table.unreadable}", file=sys.stderr)
    return 3 if unreadable else 0


def _write_missing(table: "EmbeddingTable", options: dict[str, Any]) -> None:
    from tqdm import tqdm

    from ssl_audio.embedding.table import SHARD

    missing = table.missing()
    total = len(table.files)
    todo = sum(min(SHARD, total - shard * SHARD) for shard in missing)
    started, clips = time.perf_counter(), 0
    if todo < total:
        print(f"continuing from {table.parts}: {total - todo} of {total} files are done", file=sys.stderr)
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
    """Whether a launcher started this process, and it is not the first one."""
    import os

    return any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
