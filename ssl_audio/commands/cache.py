"""Decode and resample a data set once, so that training reads it without decoding.

The copies are mono, 16 bit, one file per recording, in DATASET/.ssl_audio_store/RATE. Training at that rate finds them
there. For data in a read-only place, --store names another folder, which training needs too (data.store).
Run the command again after recordings have changed, or after an interruption: it makes only what is missing.
To stop using the copies, delete the folder.

Exit status: 0; 1 if a file could not be read; 2 if nothing was done.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio cache data/vocalset data/m4singer --sample_rate 44100
  ssl-audio cache data/singers --sample_rate 16000 --check
  copies in another folder, for training with --data.store /local/store:
    ssl-audio cache /readonly/singers --store /local/store
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="the folder of a data set")
    parser.add_argument(
        "--sample_rate", type=int, default=44100, metavar="HZ", help="the data.sample_rate of the training (44100)"
    )
    parser.add_argument("--store", metavar="DIR", help="write the copies here; training needs it as data.store")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that decode (default: one per core)")
    parser.add_argument("--check", action="store_true", help="read every copy and make damaged ones again")


def run(args: Namespace) -> int:
    from ssl_audio.data.store import build, store_folder

    if args.sample_rate < 1:
        raise InputError(f"--sample_rate is {args.sample_rate}; it must be at least 1")
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers is {args.workers}; it must be at least 1")
    gone = next((folder for folder in args.datasets if not Path(folder).is_dir()), None)
    if gone is not None:
        raise InputError(f"{gone}: {'is a file where a folder is needed' if Path(gone).exists() else 'no such folder'}")
    unreadable = 0
    for folder in args.datasets:
        try:
            copies, made, left_out = build(folder, args.sample_rate, args.workers, args.check, store=args.store)
        except OSError as error:
            place, reason = store_folder(folder, args.sample_rate, args.store), error.strerror or str(error)
            raise InputError(
                f"{folder}: {place}: {reason}; finished copies are complete, run the command again for the others"
            ) from error
        unreadable += len(left_out)
        print(f"{folder}: {copies} recordings at {args.sample_rate} Hz ({made} new), {len(left_out)} left out")
        for item in sorted(left_out)[:10]:
            print(f"  {item.path}: {item.reason}")
    return 1 if unreadable else 0
