"""Pack the recordings of a data set into a few large files, which network file systems and object stores read fast.

The files are tar archives in WebDataset's format. They hold the recordings decoded, resampled, mono, as 16 bit
integers, in an order that mixes the singers; an index lies beside them. Train on them with --config data/shards.

Exit status: 0; 1 if a recording could not be read; 2 if nothing was done.
"""

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio shard data/voices --output /shared/voices-44k
  ssl-audio shard data/voices --output voices-16k --sample_rate 16000 --shard_mb 512
  ssl-audio train --config common --config data/shards --config byol --data.shards /shared/voices-44k
  ssl-audio train --config common --config data/shards --config byol --data.cache /local/shards \\
      --data.shards 'pipe:aws s3 cp s3://bucket/voices-44k/{} -'
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder of singer/**/file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the shards")
    parser.add_argument(
        "--sample_rate", type=int, default=44100, metavar="HZ", help="the data.sample_rate of the training (44100)"
    )
    parser.add_argument("--shard_mb", type=float, default=256, metavar="MB", help="approximate size of a shard (256)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order in the shards (0)")


def run(args: Namespace) -> int:
    from ssl_audio.data.shards import write_shards

    if args.sample_rate < 1 or not 0 < args.shard_mb < math.inf or args.seed < 0:
        raise InputError("--sample_rate and --shard_mb must be above 0, and --seed at least 0")
    size = round(args.shard_mb * 1e6)
    try:
        written, shards, left_out = write_shards(args.dataset, args.output, args.sample_rate, size, args.seed)
    except OSError as error:
        raise InputError(f"{args.output}: {error.strerror or error}; remove the folder and run again") from error
    print(f"{args.output}: {written} recordings at {args.sample_rate} Hz in {shards} shards, {len(left_out)} left out")
    for item in sorted(left_out)[:10]:
        print(f"  {item.path}: {item.reason}")
    return 1 if left_out else 0
