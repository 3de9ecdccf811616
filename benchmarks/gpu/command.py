"""`python -m benchmarks gpu`: run rows until the time is up, write after each, go on where an earlier run stopped."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import machine, report
from benchmarks.gpu.figures import Setting
from benchmarks.gpu.rows import rows
from benchmarks.gpu.worker import Worker

SMOKE_LIMIT = 120.0  # seconds a row


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if rows failed or timed out, 2 if nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="start no row after that (10)")
    parser.add_argument("--output", type=Path, default=Path("docs/gpu"), help="folder of the results (docs/gpu)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on a CPU too: does every row run?")
    parser.add_argument("--only", metavar="WORD", help="rows with this word in their name")
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier run measured")
    args = parser.parse_args(arguments)

    import torch

    from ssl_audio.utils.cpu import available_cores

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.smoke:
        print("error: torch sees no CUDA device here; with --smoke every row runs once on the CPU", file=sys.stderr)
        return 2
    about = machine.describe(device)
    earlier = None if args.restart else report.read(args.output)
    if earlier is not None and (not machine.same(earlier["machine"], about) or earlier["smoke"] != args.smoke):
        print(f"error: {args.output} holds figures of another machine, commit or size; give another --output, or "
              "--restart to throw them away", file=sys.stderr)  # fmt: skip
        return 2
    content = earlier or {"machine": about, "smoke": args.smoke, "rows": {}}
    every = [row for row in rows() if row.in_smoke or not args.smoke]
    todo = [row for row in every if content["rows"].get(row.name, {}).get("status") != "done"]
    todo = [row for row in todo if args.only is None or args.only in row.name]
    ends = time.monotonic() + 60 * args.minutes
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ssl-audio-gpu-") as folder:
        setting = Setting(device, args.smoke, Path(folder), available_cores())
        worker = Worker(setting, args.output / "log.txt")
        try:
            for row in todo:
                left = ends - time.monotonic()
                if left < 1:
                    break
                result = worker.run(row, min(left, SMOKE_LIMIT if args.smoke else row.limit))
                content["rows"][row.name] = result
                report.write(args.output, content, every)
                print(f"{row.name}: {_said(result)} ({result['seconds']} s)", flush=True)
        finally:
            worker.close()
    report.write(args.output, content, every)
    statuses = [content["rows"].get(row.name, {}).get("status", "not run") for row in every]
    print(f"{args.output / report.TABLE}: " + ", ".join(f"{statuses.count(s)} {s}" for s in sorted(set(statuses))))
    return 1 if {"failed", "timed out"} & set(statuses) else 0


def _said(result: dict) -> str:
    if result["status"] != "done":
        return result["status"] + (f": {result['error']}" if "error" in result else "")
    return "; ".join(f"{figure['value']:.4g} {figure['unit']}".strip() for figure in result["figures"])
