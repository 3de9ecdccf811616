"""Draw a list of verification trials from a data set: pairs of files, half of them of the same singer.

Writes OUT/DATASET/speaker_pairs.txt, a trial per line: label,singer/file,singer/file. Label 1 means the same singer.
OUT is the folder that eval takes as -meta; ssl-singer-identity wrote to OUT/metadata/DATASET instead.
A file is never paired with itself. Clips of one recording are not paired either, if the metadata or the file names tell
which recording a clip comes from.

Kinds of trials:
  random          each trial is drawn independently, so a pair may occur twice, as in the published lists
  balanced        each pair at most once
  within-gender   balanced, and different singers have the same gender
  within-song     balanced, and both files are of the same song
  cross-song      balanced, and the files are of different songs

The list depends only on the seed, the file names and the metadata.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from shlex import quote
from unicodedata import normalize

import numpy as np
from numpy.random import Generator

from ssl_audio.audio import find_audio_files
from ssl_audio.errors import InputError
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.evaluation.trials import KINDS, Trials, generate_trials, quoted_name
from ssl_audio.utils.files import write_text

RANDOM = "random"

EXAMPLES = """examples:
  ssl-audio pairs -r data/vocalset_renamed_split_4s -o metadata -n 20 -p 20000 -s 123
  ssl-audio pairs -r data/singers -o metadata
  data/singers/manifest.csv has a column "song":
    ssl-audio pairs -r data/singers -o metadata/song --trials_kind within-song
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-r", "--root", required=True, metavar="DATASET", help="folder laid out as singer/file")
    parser.add_argument("-o", "--output_dir", required=True, metavar="OUT", help="metadata folder of ssl-audio eval")
    parser.add_argument("-n", "--speaker_num", type=int, metavar="N", help="singers to use, drawn by the seed (all)")
    parser.add_argument("-p", "--sample_pair", type=int, default=20000, metavar="N", help="trials to draw (20000)")
    parser.add_argument("-s", "--seed", type=int, default=123, metavar="SEED", help="seed of everything drawn (123)")
    parser.add_argument(
        "--trials_kind", default=RANDOM, metavar="KIND", help=f"{', '.join((RANDOM, *KINDS))} ({RANDOM})"
    )
    parser.add_argument(
        "--metadata",
        metavar="CSV",
        help="table with columns path, gender, song, recording (default: manifest.csv of the data set)",
    )


def run(args: Namespace) -> int:
    if args.sample_pair < 1:
        raise InputError(f"-p is {args.sample_pair}; it must be at least 1")
    if args.seed < 0:
        raise InputError(f"-s is {args.seed}; it must not be negative")
    if args.trials_kind not in (RANDOM, *KINDS):
        raise InputError(f"--trials_kind {args.trials_kind} is unknown; choose from {', '.join((RANDOM, *KINDS))}")
    root = Path(args.root)
    rng = np.random.default_rng(args.seed)
    singers = choose(files_by_singer(root), args.speaker_num, rng, root)
    target = Path(args.output_dir) / root.resolve().name / "speaker_pairs.txt"
    if args.trials_kind == RANDOM:
        trials = draw(singers, args.sample_pair, rng, root, recordings(root, args.metadata))
        write_text(
            target,
            "".join(f"{label},{quoted_name(first)},{quoted_name(second)}\n" for label, first, second in trials),
        )
        count, same = len(trials), sum(label for label, _, _ in trials)
    else:
        listed = generate(root, args.metadata, singers, args.sample_pair, args.seed, args.trials_kind)
        listed.write(target)
        count, same = len(listed), int(listed.labels.sum())
    files = sum(map(len, singers.values()))
    print(f"{count} trials ({same} of the same singer) of {len(singers)} singers, {files} files: {target}")
    data = root.resolve()
    places = [quote(str(place)) for place in (data.parent, data.name, args.output_dir)]
    print("next: ssl-audio eval -r {} -d {} -meta {} -m MODEL".format(*places))
    return 0


def generate(
    root: Path, metadata: str | None, singers: dict[str, list[str]], number: int, seed: int, kind: str
) -> Trials:
    """Trials of a kind between the chosen singers.

    Raises:
        InputError: as `generate_trials`; or the metadata names singers that are not the folders. Whoever reads the list
            takes the folders for the singers.
    """
    found = find_recordings(root, metadata)
    chosen = found.at([i for i, name in enumerate(found.files) if name.split("/")[0] in singers])
    named = set(zip(chosen.singers, (name.split("/")[0] for name in chosen.files), strict=True))
    if not len(named) == len({singer for singer, _ in named}) == len({folder for _, folder in named}):
        raise InputError(
            f"{root}: the metadata and the folders name different singers, and a trial list follows the folders; "
            "draw the trials with ssl-audio evaluate --trials_kind"
        )
    return generate_trials(chosen, number, seed, kind)


def files_by_singer(root: Path) -> dict[str, list[str]]:
    """{singer: paths relative to `root`, with "/"}, both sorted after Unicode normalisation (NFC).

    Raises:
        InputError: there is no such folder, or a name has a comma, which the list cannot hold.
    """
    singers: dict[str, list[str]] = {}
    for path in find_audio_files(root):
        name = path.relative_to(root).as_posix()
        if "," in name or "\n" in name:
            raise InputError(
                f"{path}: a trial list cannot hold a comma; ssl-audio preprocess makes names without commas"
            )
        if "/" in name:
            singers.setdefault(name.split("/")[0], []).append(name)
    in_order = sorted(singers, key=lambda singer: normalize("NFC", singer))
    return {singer: sorted(singers[singer], key=lambda name: normalize("NFC", name)) for singer in in_order}


def choose(singers: dict[str, list[str]], number: int | None, rng: Generator, root: Path) -> dict[str, list[str]]:
    """Draw `number` singers; None takes all.

    Raises:
        InputError: there are fewer singers than that, or fewer than the two that a trial of different singers needs.
    """
    if number is not None and number > len(singers):
        raise InputError(f"{root}: has {len(singers)} singers, fewer than -n {number}; make -n smaller or omit it")
    if number is not None and number < len(singers):
        chosen = sorted(rng.choice(len(singers), max(number, 0), replace=False).tolist())
        singers = {list(singers)[n]: list(singers.values())[n] for n in chosen}
    if len(singers) < 2:
        raise InputError(f"{root}: {len(singers)} singers; trials of different singers need at least two folders")
    return singers


def recordings(root: Path, metadata: str | None) -> dict[str, str]:
    """{file: its recording}, from the metadata if there are any, else from the file names."""
    found = find_recordings(root, metadata)
    return dict(zip(found.files, found.recording, strict=True))


def draw(
    singers: dict[str, list[str]], number: int, rng: Generator, root: Path, takes: dict[str, str]
) -> list[tuple[int, str, str]]:
    """Draw `number` random trials (label, file, file).

    Args:
        singers: {singer: files}.
        number: how many.
        rng: source of the draws.
        root: folder of the data set, for the message.
        takes: {file: its recording}.

    Raises:
        InputError: no singer has two files to pair.
    """
    every = list(singers.values())
    several = [files for files in every if len(files) > 1]
    if not several:
        raise InputError(f"{root}: no singer has two files for a trial of the same singer; add recordings")
    apart = [files for files in several if len({takes[name] for name in files}) > 1]
    if not apart:
        print("every singer has only one recording: same-singer trials pair segments of it and are too easy")
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
