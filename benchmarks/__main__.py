"""`python -m benchmarks [NAME ...]`: run every `bench_*.py` beside this file, or the named ones, and print one table.

Each module has `rows()`, which yields `(what, baseline_seconds, our_seconds, note)`. A row's ratio is baseline / ours:
above 1 is faster than the plain way of doing the same thing. `--markdown FILE` also writes the table.

`python -m benchmarks gpu --minutes 10 --output docs/gpu` measures an accelerator; see `benchmarks/gpu`.
"""

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

from ssl_audio.utils.files import write_text
from ssl_audio.utils.malloc import keep_freed_memory


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there too")
    parser.add_argument("--give_back", action="store_true", help="leave freed memory to the C library, for comparison")
    args = parser.parse_args()
    unknown = set(args.names) - set(names)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")

    if not args.give_back:
        keep_freed_memory()  # as every command does; it makes both sides of a row quicker

    import torch

    lines = [
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, {platform.machine()}",
        "",
        "| what | plain | ours | ratio | note |",
        "|---|---:|---:|---:|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in args.names or names:
        for what, baseline, ours, note in importlib.import_module(f"benchmarks.bench_{name}").rows():
            line = f"| {what} | {_time(baseline)} | {_time(ours)} | {_ratio(baseline, ours)} | {note} |"
            lines.append(line)
            print(line, flush=True)
    if args.markdown:
        write_text(args.markdown, "\n".join(lines) + "\n")
    return 0


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _ratio(baseline: float | None, ours: float | None) -> str:
    return "-" if not baseline or not ours else f"{baseline / ours:.2f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:
        from benchmarks.gpu.command import main as gpu

        sys.exit(gpu(sys.argv[2:]))
    sys.exit(main())
