"""Write a data set's recordings into a few large files, which network file systems and object stores serve well.

Recordings are decoded, resampled, made mono and packed as 16 bit integers into tar files in WebDataset's form, in an
order that mixes the singers, with an index beside them. Train with --config data/shards. Exit status: 0, or 1 if a
recording could not be read, or 2 if nothing could be done.
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
    parser.add_argument("dataset", metavar="DATASET", help="a folder of singer/**/file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the shards")
    parser.add_argument("--sample_rate", type=int, default=44100, metavar="HZ", help="as data.sample_rate (44100)")
    parser.add_argument("--shard_mb", type=float, default=256, metavar="MB", help="of one shard, about (256)")
    parser.add_argument("--seed", type=int, default=0, help="of the order in the shards (0)")


def run(args: Namespace) -> int:
    from ssl_audio.data.shards import write_shards

    if args.sample_rate < 1 or not 0 < args.shard_mb < math.inf or args.seed < 0:
        raise InputError("--sample_rate, --shard_mb and --seed must be numbers above 0 (--seed may be 0)")
    size = round(args.shard_mb * 1e6)
    try:
        written, shards, left_out = write_shards(args.dataset, args.output, args.sample_rate, size, args.seed)
    except OSError as error:
        raise InputError(f"{args.output}: {error.strerror or error}; remove the folder and run again") from error
    print(f"{args.output}: {written} recordings at {args.sample_rate} Hz in {shards} shards, {len(left_out)} left out")
    for item in sorted(left_out)[:10]:
        print(f"  {item.path}: {item.reason}")
    return 1 if left_out else 0
