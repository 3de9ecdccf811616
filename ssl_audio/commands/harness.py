"""Test a model in a public benchmark: write the file that HEAR, X-ARES, EVAR, MARBLE or s3prl imports, or run MTEB.

The file names the model, and fails if the model has changed. Its first lines say how to use it. MTEB must be installed
(pip install mteb); it downloads its data sets itself.
"""

from argparse import ArgumentParser, Namespace

FILES = ("hear", "xares", "evar", "marble", "s3prl")

EXAMPLES = """examples:
  ssl-audio harness hear --model runs/byol/0 --output my_hear_model.py
  ssl-audio harness xares --model byol --output my_xares_model.py
  ssl-audio harness mteb --model runs/byol/0 --tasks GTZANGenre --output mteb_results
  ssl-audio harness mteb --model runs/byol/0 --tasks "MAEB(v1, audio-only)" --output mteb_results
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("kind", choices=(*FILES, "mteb"), help="the benchmark")
    parser.add_argument("--model", required=True, help="published name, run folder, checkpoint, saved folder or Hub id")
    parser.add_argument("--output", required=True, help="the file to write (.py); for mteb, the folder of the results")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="mteb: names of tasks or benchmarks")
    parser.add_argument("--batch_size", type=int, default=32, help="mteb: clips per batch (32)")
    parser.add_argument("--device", help="mteb: cpu, cuda, cuda:1, ...; default: a GPU if there is one")


def run(args: Namespace) -> int:
    from importlib import import_module
    from importlib.util import find_spec

    from ssl_audio.errors import InputError
    from ssl_audio.harnesses.source import Target
    from ssl_audio.utils.device import best_device
    from ssl_audio.utils.files import write_text

    if args.kind == "mteb":
        if not args.tasks:
            raise InputError("mteb needs --tasks, as in --tasks GTZANGenre")
        if args.batch_size < 1:
            raise InputError(f"--batch_size is {args.batch_size}; it must be at least 1")
        if find_spec("mteb") is None:
            raise InputError("mteb is not installed; install it with: pip install mteb")

        from ssl_audio.harnesses.mteb import run as run_mteb

        target = Target.of(args.model)
        target.model.to(best_device(args.device))
        for name, score in run_mteb(target, args.tasks, args.output, args.batch_size).items():
            print(f"{name:<40} {score:.4f}")
        return 0
    if args.tasks:
        raise InputError(f"--tasks is for mteb only; leave it out, {args.kind} chooses tasks on its own command line")
    if not args.output.endswith(".py"):
        raise InputError(f"{args.output}: the output must end in .py, because the benchmark imports it")
    target = Target.of(args.model)
    write_text(args.output, import_module(f"ssl_audio.harnesses.{args.kind}").source(target))
    print(f"{args.output}: {args.model} for {args.kind}; the first lines of the file say how to use it")
    return 0
