"""What a pitch shift does to voices: `python -m benchmarks.pitch_quality --data DATA`.

Recordings evenly from each set of DATA (folders of `voices_dev` and `singing_dev`), shifted by Praat and in batches by
two ratios, both measured by Praat. `--others`: recordings halfway between those, which served no tuning.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.augmentations.batch.psola import overlap_add
from ssl_audio.augmentations.measure import Change, compare, listen_to
from ssl_audio.augmentations.praat import change_gender
from ssl_audio.errors import InputError

RATIOS = (1.25, 0.8)
LOW = 220.0  # Hz; above it one or two harmonics lie near F1, and what is measured follows the nearest


class Shifted(NamedTuple):
    """One recording, shifted once: the ratio asked for, both changes, frames they were compared on, its pitch in Hz."""

    ratio: float
    praat: Change
    batch: Change
    frames: int
    pitch: float


def shifts(path: Path) -> Iterator[Shifted]:
    """Both shifts of a recording. Voicing is compared where Praat's own shift keeps it."""
    rate = audio.info(path).sample_rate
    clip = audio.read(path)
    before = listen_to(clip, rate)
    voiced = before.pitch[before.pitch > 0]
    one = torch.ones(1, 1)
    for ratio in RATIOS if len(voiced) else ():
        praat = listen_to(change_gender(clip, rate, pitch_ratio=ratio), rate)
        batch = listen_to(overlap_add(torch.from_numpy(clip)[None], rate, ratio * one, one)[0].numpy(), rate)
        kept = (before.pitch > 0) == (praat.pitch > 0)
        changes = (compare(before, after, kept) for after in (praat, batch))
        yield Shifted(ratio, *changes, int(kept.sum()), float(np.median(voiced)))


def row(name: str, many: list[Shifted]) -> str:
    """A line of the table: Praat / batch."""
    sides = [[shift.praat for shift in many], [shift.batch for shift in many]]
    off = [np.array([abs(c.pitch / s.ratio - 1) for c, s in zip(side, many, strict=True)]) for side in sides]
    formants = [", ".join(f"{100 * f:.1f}" for f in np.median([c.formants for c in side], axis=0)) for side in sides]
    voicing = np.average([shift.batch.voicing for shift in many], weights=[shift.frames for shift in many])
    envelope = [np.mean([c.envelope for c in side]) for side in sides]
    cells = [
        name,
        str(len(many)),
        " / ".join(f"{100 * np.median(o):.2f}" for o in off) + " %",
        " / ".join(f"{100 * np.mean(o < 0.01):.0f}" for o in off) + " %",
        " / ".join(formants) + " %",
        f"{100 * voicing:.1f} %",
        " / ".join(f"{e:.2f}" for e in envelope),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pitch_quality", description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="folder with voices_dev and singing_dev")
    parser.add_argument("--number", type=int, default=8, help="recordings of a set (8)")
    parser.add_argument("--others", action="store_true", help="recordings halfway between the usual ones")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = sorted(path for part in ("singing_dev", "voices_dev") for path in (args.data / part).glob("[!.]*/"))
    found: dict[str, list[Shifted]] = defaultdict(list)
    for folder in tqdm([path for path in folders if path.is_dir()], "sets"):
        files = audio.find_audio_files(folder)
        step = len(files) / args.number
        places = sorted({int((i + (0.75 if args.others else 0.25)) * step) for i in range(args.number)})
        for place in places:
            found[folder.name] += shifts(files[place])
    if not found:
        raise InputError(f"{args.data}: no voices_dev and no singing_dev with sets of recordings in it")
    print(
        "| source | shifts | pitch error (median) | within 1 % | F1, F2, F3 moved (median) | voicing kept | envelope |"
    )
    print("|---|---:|---|---|---|---|---|")
    for name, many in found.items():
        print(row(name, many))
    everything = [shift for many in found.values() for shift in many]
    for name, many in (
        ("**all**", everything),
        (f"below {LOW:.0f} Hz", [shift for shift in everything if shift.pitch < LOW]),
        ("above", [shift for shift in everything if shift.pitch >= LOW]),
    ):
        print(row(name, many))
    return 0


if __name__ == "__main__":
    sys.exit(main())
