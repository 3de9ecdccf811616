"""Adapt a model to half of the people and test it on the others: `python -m benchmarks.results_adaptation --data DATA`.

DATA is laid out as for `benchmarks.results`, which splits the people by the seed. Each set is a collection. The rungs
are chosen on people left out of the one half; the other half is used once, by `--verify`.
"""

import argparse
import csv
from pathlib import Path

from benchmarks.results import SETS, split
from ssl_audio.adaptation import adapt
from ssl_audio.adaptation.result import table
from ssl_audio.evaluation.recordings import METADATA_NAME
from ssl_audio.hub import load_model
from ssl_audio.utils.files import write_text


def write_manifest(data: Path, part: Path) -> None:
    """The rows of all manifests of `data` whose recordings lie in `part`."""
    names = ["path", "singer", "speaker", "song", "utterance", "gender", "source"]
    lines = [",".join(names)]
    for manifest in sorted(data.glob(f"*/{METADATA_NAME}")):
        with open(manifest, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (part / row["path"]).exists()]
        lines += [",".join('"' + row.get(name, "").replace('"', '""') + '"' for name in names) for row in rows]
    write_text(part / METADATA_NAME, "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_adaptation", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("results-adaptation"))
    parser.add_argument("--from", dest="model", default="package:resemblyzer")
    parser.add_argument("--seed", type=int, default=0, help="of the split of the people (0)")
    args = parser.parse_args()
    folder = args.output / f"split-{args.seed}"
    split(args.data, folder, args.seed)
    write_manifest(args.data, folder / "train")
    parts = [[folder / part / name for name in SETS if (folder / part / name).is_dir()] for part in ("train", "test")]
    report = adapt(parts[0], load_model(args.model), args.output / f"adapted-{args.seed}", verify=parts[1])
    for against in ("against_start", "against_best_use"):
        print(f"\n{against}\n{table(report['verify'][against])}")
    print(f"\n{report['verdict']}")


if __name__ == "__main__":
    main()
