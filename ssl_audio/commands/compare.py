"""Say whether recordings are of one person: score, log-likelihood ratio, probability, decision, warnings.

Two files are compared with each other, a file and a folder with each file of the folder, a folder or several files all
with all. The probability needs a model that `ssl-audio calibrate` has seen, and a prior: how probable one person is
before the recordings are heard. Without a calibration only the score is printed. Files that cannot be read are named,
the others are compared, and the exit status is 3.
"""

import argparse
import csv
import io
import json
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.errors import InputError

if TYPE_CHECKING:
    from ssl_audio.decisions import Comparison
    from ssl_audio.evaluation.model_calibration import ModelCalibration

EXAMPLES = """examples:
  ssl-audio compare a.wav b.wav --model my-model
  ssl-audio compare unknown.wav recordings --model my-model --false_accept 0.01 --csv scores.csv
  ssl-audio compare recordings --model my-model --prior 0.01
  ssl-audio compare --pairs pairs.csv --model my-model --json
"""

SHOWN = 50  # lines of a table of more pairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", nargs="*", help="files, folders, lists of files (one a line), quoted patterns")
    parser.add_argument("--pairs", metavar="CSV", help="instead: lines first,second of paths relative to this list")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--source", help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    parser.add_argument("--prior", type=float, default=0.5, help="probability of one person before listening (0.5)")
    parser.add_argument(
        "--false_accept", type=float, metavar="RATE", help="decide so that this share of different people is accepted"
    )
    parser.add_argument("--cost_miss", type=float, default=1.0, help="price of a miss, for the decision (1)")
    parser.add_argument("--cost_false_accept", type=float, default=1.0, help="price of a false accept (1)")
    parser.add_argument("--corrections", metavar="CSV", help="columns first, second, same (yes or no): what you heard")
    parser.add_argument("--csv", metavar="FILE", help="write a row per pair")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print the pairs as JSON, or write it")
    parser.add_argument("--batch_size", type=int, help="clips per forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from ssl_audio.decisions.comparing import compare_files
    from ssl_audio.decisions.corrections import read_corrections
    from ssl_audio.decisions.rule import Rule
    from ssl_audio.utils.device import best_device
    from ssl_audio.utils.files import write_text

    rule = Rule(args.prior, args.false_accept, args.cost_miss, args.cost_false_accept)
    if bool(args.pairs) == bool(args.recordings):
        raise InputError("give recordings, or a list of pairs with --pairs")
    paths, pairs = _listed(Path(args.pairs)) if args.pairs else _paired(args.recordings)
    corrections = read_corrections(args.corrections) if args.corrections else None
    model = load(args)
    options = {"batch_size": args.batch_size, "device": best_device(args.device)}
    found, failed = compare_files(paths, np.array(pairs), model, rule, corrections, **options)
    if not found:
        raise InputError(f"{failed[0][0]}: {failed[0][1]}; no pair is left")
    if args.csv:
        write_text(args.csv, _csv(found))
    if args.json:
        text = json.dumps([comparison.as_dict() for comparison in found], indent=1, ensure_ascii=False)
        print(text) if args.json == "-" else write_text(args.json, text + "\n")
    if args.json != "-":
        _print(found, model.calibration, str(rule))
    for path, reason in failed:
        print(f"not compared: {path}: {reason}", file=sys.stderr)
    return 3 if failed else 0


def _listed(source: Path) -> tuple[list[Path], list[tuple[int, int]]]:
    """Files and pairs of a list; paths are relative to it."""
    try:
        rows = list(csv.reader(source.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source}: cannot be read as a list of pairs: {error}") from error
    numbers: dict[str, int] = {}
    pairs = []
    for line, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != 2 or not all(name.strip() for name in row):
            raise InputError(
                f"{source}, line {line}: expected first,second (names with commas quoted), got {','.join(row)!r}; "
                "lists with labels are for ssl-audio eval"
            )
        first, second = (numbers.setdefault(name.strip(), len(numbers)) for name in row)
        pairs.append((first, second))
    if not pairs:
        raise InputError(f"{source}: holds no pairs")
    return [source.parent / name for name in numbers], pairs


def _paired(given: list[str]) -> tuple[list[Path], list[tuple[int, int]]]:
    """Files and pairs: a file with each of a folder or list, or all with all."""
    from ssl_audio.embedding.table import files_to_embed

    groups = [[recording.file for recording in files_to_embed(name)] for name in given]
    paths = [path for group in groups for path in group]
    if len(groups) == 2 and len(groups[0]) == 1 and len(groups[1]) > 1:
        own = paths[0].resolve()
        pairs = [(0, i) for i in range(1, len(paths)) if paths[i].resolve() != own]
    else:
        pairs = list(combinations(range(len(paths)), 2))
    if not pairs:
        raise InputError(f"{given[0]}: one recording alone cannot be compared; give a second one, or a folder")
    return paths, pairs


def _csv(found: list["Comparison"]) -> str:
    out = io.StringIO()
    columns = ["a", "b", "score", "llr", "llr_low", "llr_high", "probability", "probability_low", "probability_high",
               "same", "false_accept", "prior", "warnings"]  # fmt: skip
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for c in found:
        low_high = [c.llr_interval or ("", ""), c.probability_interval or ("", "")]
        writer.writerow(
            [c.a, c.b, c.score, c.llr, *low_high[0], c.probability, *low_high[1], c.same, c.false_accept, c.prior,
             "; ".join(c.warnings)]
        )  # fmt: skip
    return out.getvalue()


def _print(found: list["Comparison"], calibration: "ModelCalibration | None", rule: str) -> None:
    if len(found) == 1:
        _print_one(found[0], calibration, rule)
    else:
        _print_table(found, rule)
    if calibration is not None:
        facts = calibration.facts
        print(
            f"calibration: {facts['people']} people of {facts['data']}, Cllr {facts['cllr']:.3f} on people left out "
            f"({facts['cllr_interval'][0]:.3f} to {facts['cllr_interval'][1]:.3f})"
        )


def _rate(rate: float, calibration: "ModelCalibration | None") -> str:
    """A false-accept rate; at the ends of what the calibration can tell, so much or more or less."""
    assert calibration is not None
    low, high = calibration.false_accepts.rates[[0, -1]]
    end = ", or less," if rate <= low * 1.001 else ", or more," if rate >= high * 0.999 else ""
    return f"{100 * rate:.2g} %{end}"


def _print_one(c: "Comparison", calibration: "ModelCalibration | None", rule: str) -> None:
    print(f"{c.a}\n{c.b}")
    print(f"score                  {c.score:.3f}")
    if c.llr is not None:
        assert c.llr_interval and c.probability is not None and c.probability_interval and c.false_accept is not None
        spans = (c.llr_interval, c.probability_interval)
        (a, b), (low, high) = spans
        print(f"log-likelihood ratio   {c.llr:+.2f} ({a:+.2f} to {b:+.2f})")
        print(f"probability            {c.probability:.3f} ({low:.3f} to {high:.3f}) that both are one person")
        print(f"                       at a prior of {c.prior:g}")
        print(f"false accepts          {_rate(c.false_accept, calibration)} of pairs of different people score as high")
        print(f"decision               {'the same person' if c.same else 'different people'}, {rule}")
    for warning in c.warnings:
        print(f"warning: {warning}")


def _print_table(found: list["Comparison"], rule: str) -> None:
    shown = sorted(found, key=lambda c: -c.score)[:SHOWN]
    calibrated = shown[0].llr is not None
    print("  score" + (f"  {'llr':>7}  {'probability':<22} same" if calibrated else "") + "  recordings")
    for c in shown:
        line = f"{c.score:7.3f}"
        if c.llr is not None:
            assert c.probability_interval is not None
            span = f"{c.probability:.3f} ({c.probability_interval[0]:.3f}-{c.probability_interval[1]:.3f})"
            line += f"  {c.llr:+7.2f}  {span:<22} {'yes ' if c.same else 'no  '}"
        print(f"{line}  {c.a}  {c.b}")
    if len(found) > len(shown):
        print(f"... and {len(found) - len(shown):,} pairs with lower scores; --csv FILE writes all")
    if calibrated:
        print(f"decided {rule}")
    for warning in dict.fromkeys(warning for c in shown for warning in c.warnings):
        pairs = sum(warning in c.warnings for c in shown)
        print(f"warning: {warning}" + (f" ({pairs} pairs)" if pairs > 1 else ""))
