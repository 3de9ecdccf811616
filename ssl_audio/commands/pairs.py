"""Draw trials for verification: pairs of files, half of them of the same singer.

Writes OUT/<name of the data set's folder>/speaker_pairs.txt, one trial a line: label,singer/file,singer/file; label 1
means the same singer. Each draw is of the same or of two singers with probability one half; a file is never paired with
itself, nor with another clip of its recording where the table or the names tell. Other kinds of trials hold each pair
once, half of them of the same singer: balanced; within-gender (different singers have one gender); within-song and
cross-song (both sides sing one song, or two). The list depends on the seed, the names and the table alone.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from unicodedata import normalize

import numpy as np
from numpy.random import Generator

from ssl_audio.audio import find_audio_files
from ssl_audio.errors import InputError
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.evaluation.trials import KINDS, Trials, generate_trials
from ssl_audio.utils.files import write_text

RANDOM = "random"  # each draw by itself, so that a pair may come twice, as in the published lists

EXAMPLES = """examples:
  python create_speaker_pairs.py -r data/vocalset_renamed_split_4s -o metadata -n 20 -p 20000 -s 123
  python create_speaker_pairs.py -r data/singers -o metadata
  ssl-audio pairs -r data/singers -o metadata/song --trials_kind within-song        songs: column of data/manifest.csv
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-r", "--root", required=True, metavar="DATASET", help="folder laid out as singer/file")
    parser.add_argument("-o", "--output_dir", required=True, metavar="OUT", help="metadata folder, as eval.py reads it")
    parser.add_argument("-n", "--speaker_num", type=int, metavar="N", help="singers to use, drawn by the seed (all)")
    parser.add_argument("-p", "--sample_pair", type=int, default=20000, metavar="N", help="trials to draw (20000)")
    parser.add_argument("-s", "--seed", type=int, default=123, metavar="SEED", help="(123)")
    parser.add_argument("--trials_kind", default=RANDOM, metavar="KIND", help=f"{RANDOM} (default), {', '.join(KINDS)}")
    parser.add_argument("--metadata", metavar="CSV", help="of path, gender, song, recording; default: manifest.csv")


def run(args: Namespace) -> int:
    if args.sample_pair < 1:
        raise InputError(f"-p is {args.sample_pair}; it must be at least 1")
    if args.seed < 0:
        raise InputError(f"-s is {args.seed}; it must not be negative")
    if args.trials_kind not in (RANDOM, *KINDS):
        raise InputError(f"no kind of trials {args.trials_kind!r}; there are {', '.join((RANDOM, *KINDS))}")
    root = Path(args.root)
    rng = np.random.default_rng(args.seed)
    singers = choose(files_by_singer(root), args.speaker_num, rng, root)
    target = Path(args.output_dir) / root.resolve().name / "speaker_pairs.txt"
    if args.trials_kind == RANDOM:
        trials = draw(singers, args.sample_pair, rng, root, recordings(root, args.metadata))
        write_text(target, "".join(f"{label},{first},{second}\n" for label, first, second in trials))
        count, same = len(trials), sum(label for label, _, _ in trials)
    else:
        listed = generate(root, args.metadata, singers, args.sample_pair, args.seed, args.trials_kind)
        listed.write(target)
        count, same = len(listed), int(listed.labels.sum())
    files = sum(map(len, singers.values()))
    print(f"{count} trials ({same} of the same singer) of {len(singers)} singers, {files} files: {target}")
    return 0


def generate(
    root: Path, metadata: str | None, singers: dict[str, list[str]], number: int, seed: int, kind: str
) -> Trials:
    """Trials of a kind between the chosen singers.

    Raises:
        InputError: as `generate_trials`, or when the table calls the singers other than the folders do, because readers
            of the list go by the folders.
    """
    found = find_recordings(root, metadata)
    chosen = found.at([i for i, name in enumerate(found.files) if name.split("/")[0] in singers])
    named = set(zip(chosen.singers, (name.split("/")[0] for name in chosen.files), strict=True))
    if not len(named) == len({singer for singer, _ in named}) == len({folder for _, folder in named}):
        raise InputError(f"{root}: a list goes by folders, the table names other singers; use ssl-audio evaluate")
    return generate_trials(chosen, number, seed, kind)


def files_by_singer(root: Path) -> dict[str, list[str]]:
    """Paths below `root`, with "/" between the parts, by singer; both sorted in one spelling of their accents.

    Raises:
        InputError: no folder, or a name with a comma, which the list cannot hold.
    """
    singers: dict[str, list[str]] = {}
    for path in find_audio_files(root):
        name = path.relative_to(root).as_posix()
        if "," in name or "\n" in name:
            raise InputError(f"{path}: a trial list cannot hold a comma; preprocess_dataset.py makes names without")
        if "/" in name:
            singers.setdefault(name.split("/")[0], []).append(name)
    in_order = sorted(singers, key=lambda singer: normalize("NFC", singer))
    return {singer: sorted(singers[singer], key=lambda name: normalize("NFC", name)) for singer in in_order}


def choose(singers: dict[str, list[str]], number: int | None, rng: Generator, root: Path) -> dict[str, list[str]]:
    """At most `number` singers, drawn; all if None.

    Raises:
        InputError: fewer than asked for, or fewer than the two that a trial of different singers needs.
    """
    if number is not None and number > len(singers):
        raise InputError(f"{root}: has {len(singers)} singers, fewer than -n {number}; make -n smaller or leave it out")
    if number is not None and number < len(singers):
        chosen = sorted(rng.choice(len(singers), max(number, 0), replace=False).tolist())
        singers = {list(singers)[n]: list(singers.values())[n] for n in chosen}
    if len(singers) < 2:
        raise InputError(f"{root}: {len(singers)} singers; trials of different singers need at least two folders")
    return singers


def recordings(root: Path, metadata: str | None) -> dict[str, str]:
    """{file: its recording}, by the table where there is one, else by the names."""
    found = find_recordings(root, metadata)
    return dict(zip(found.files, found.recording, strict=True))


def draw(
    singers: dict[str, list[str]], number: int, rng: Generator, root: Path, takes: dict[str, str]
) -> list[tuple[int, str, str]]:
    """`number` trials (label, file, file); `takes` gives the recording of each file.

    Raises:
        InputError: no singer has two files to pair.
    """
    every = list(singers.values())
    several = [files for files in every if len(files) > 1]
    if not several:
        raise InputError(f"{root}: no singer has two files, so there are no trials of the same singer; add recordings")
    apart = [files for files in several if len({takes[name] for name in files}) > 1]
    if not apart:
        print("every singer has one recording: trials of the same singer pair segments of it, and will seem too easy")
    several = apart or several
    trials = []
    for _ in range(number):
        if rng.random() < 0.5:
            files = several[rng.integers(len(several))]
            first, second = rng.choice(len(files), 2, replace=False)
            while apart and takes[files[first]] == takes[files[second]]:
                first, second = rng.choice(len(files), 2, replace=False)
            trials.append((1, files[first], files[second]))
        else:
            one, other = (every[n] for n in rng.choice(len(every), 2, replace=False))
            trials.append((0, one[rng.integers(len(one))], other[rng.integers(len(other))]))
    return trials
