"""Write listening examples of the pitch and formant shift: each recording unchanged, shifted by Praat, and by ours.

Praat measures both shifts: the ratio of the median pitch, how far F1 to F3 moved, the fraction of frames whose voicing
decision stayed, and the distance of the spectral envelope from the input's. The table is printed and written to
measures.csv beside the sounds.

Exit status: 0; 1 if a recording could not be read; 2 if nothing was done.
"""

import csv
import io
from argparse import ArgumentParser, Namespace
from pathlib import Path

EXAMPLES = """examples:
  ssl-audio listen recordings --output listening
  ssl-audio listen recordings --output listening --pitch 1.3 0.77 --formant 1.2 --number 10 --seconds 6
"""
HEADER = ["recording", "shift", "by", "pitch ratio", "F1 moved", "F2 moved", "F3 moved", "voicing kept", "envelope dB"]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="recordings of single voices; sub-folders are searched")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the sounds and measures.csv")
    parser.add_argument("--number", type=int, default=6, metavar="N", help="recordings, taken evenly (6)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="longest part of a recording (5)")
    parser.add_argument(
        "--pitch", type=float, nargs="*", default=[1.25, 0.8], metavar="R", help="pitch ratios (1.25 0.8)"
    )
    parser.add_argument("--formant", type=float, nargs="*", default=[1.15], metavar="R", help="formant ratios (1.15)")


def run(args: Namespace) -> int:
    from tqdm import tqdm

    from ssl_audio import audio
    from ssl_audio.errors import InputError
    from ssl_audio.utils.files import write_text

    if args.number < 1 or args.seconds < 0.1:
        raise InputError("--number must be at least 1 and --seconds at least 0.1")
    if not all(0.5 <= ratio <= 2 for ratio in [*args.pitch, *args.formant]):
        raise InputError("--pitch and --formant ratios must be between 0.5 and 2")
    paths = audio.find_audio_files(args.folder)
    if not paths:
        raise InputError(f"{args.folder}: no audio files; give a folder of recordings")
    paths = paths[:: max(1, len(paths) // args.number)][: args.number]

    rows: list[list[str]] = []
    left_out: list[InputError] = []
    for number, path in enumerate(tqdm(paths, desc="listening", unit="recording")):
        try:
            rows += examples(path, Path(args.output) / f"{number + 1:02d} {path.stem}", args)
        except audio.AudioError as problem:
            left_out.append(problem)
    if len(left_out) == len(paths):
        raise left_out[0]
    table = io.StringIO()
    csv.writer(table).writerows([HEADER, *rows])
    write_text(Path(args.output) / "measures.csv", table.getvalue())
    print_table(rows)
    for error in left_out:
        print(f"left out: {error}")
    print(f"sounds and measures.csv: {args.output}")
    return 1 if left_out else 0


def examples(path: Path, folder: Path, args: Namespace) -> list[list[str]]:
    """Write the sounds of one recording. Returns its rows of the table."""
    import torch

    from ssl_audio import audio
    from ssl_audio.augmentations.batch.psola import overlap_add
    from ssl_audio.augmentations.measure import compare, listen_to
    from ssl_audio.augmentations.praat import change_gender

    rate = audio.info(path).sample_rate
    clip = audio.read(path, samples=int(args.seconds * rate))
    if len(clip) < 0.1 * rate:
        raise audio.AudioError(path, "shorter than 0.1 s, too short to measure a pitch; leave it out")
    audio.write(folder / "input.wav", clip, rate)
    before = listen_to(clip, rate)
    rows = []
    shifts = [("pitch", ratio) for ratio in args.pitch] + [("formant", ratio) for ratio in args.formant]
    for kind, ratio in shifts:
        praat = change_gender(clip, rate, **{f"{kind}_ratio": ratio})
        one = torch.ones(1, 1)
        pitch, formant = (ratio * one, None) if kind == "pitch" else (one, ratio * one)
        ours = overlap_add(torch.from_numpy(clip)[None], rate, pitch, one, formant)[0].numpy()
        for by, result in (("Praat", praat), ("batch", ours)):
            audio.write(folder / f"{kind} {ratio:g} {by}.wav", result, rate)
            if (before.pitch > 0).any():
                change = compare(before, listen_to(result, rate))
                values = [change.pitch, *change.formants, change.voicing, change.envelope]
                rows.append([path.name, f"{kind} {ratio:g}", by, *(f"{value:.3f}" for value in values)])
    return rows


def print_table(rows: list[list[str]]) -> None:
    """Print the table; names of recordings are cut to their last 40 characters."""
    table = [HEADER, *([row[0][-40:], *row[1:]] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
