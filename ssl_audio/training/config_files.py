"""The config files that come with the package: found by name, grouped, described by their first comment."""

import re
from pathlib import Path

from ssl_audio.errors import InputError, suggest
from ssl_audio.utils.packaged import packaged

FOLDER = "train_configs"
GROUPS = {
    "": "The base, and one file a method",
    "recipes": "Recipes: settings for small data, stacked after a method",
    "data": "Data",
    "augmentation": "Augmentation chains",
    "encoder": "Encoders, stacked after a method",
    "hardware": "Hardware",
    "sweeps": "Sweeps, for ssl-audio sweep",
}
"""Folder in `train_configs/` -> its heading, in the order in which they are listed."""

_README = """# Config files

This page is made by `ssl-audio configs --markdown`; a test compares the two.

A training is a stack of these files. They are merged in order, and a later file says only what it changes:

```console
ssl-audio train --config common --config byol --config data/folder --config hardware/cpu \\
    --data.dataset_dirs '[my_voices]' --model.tau 0.996
```

- A name (`byol`, `data/esc50`) finds these files from anywhere; a path finds your own.
- A mapping is merged key by key; any other value, lists included, is replaced.
- Another `class_path` drops the `init_args` of the class before it; under `model` and `data`, what both share stays.
- An item of a list of classes is changed by its name: `transforms: {Gain: {p: 0.3}}`; `null` takes it away.
- `include: [augmentation/clmr]` in a file stacks other files under it.
- `--print_config` prints the config with all defaults and stops; `--print_config=skip_default` what differs from them.
- Classes may be given by their own name: `--model VICReg`. `docs/lightningcli.md` lists this and the other habits of
  LightningCLI.

`ssl-audio configs` lists what the tables below list, `ssl-audio configs show NAME` prints a file, and
`ssl-audio configs copy NAME [FILE]` copies one for you to change.
"""


def packaged_configs(sweeps: bool = False) -> list[str]:
    """Names of the config files: those that `--config` takes; with `sweeps`, also those of `ssl-audio sweep`."""
    folder = packaged(FOLDER)
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    return sorted(name for name in names if sweeps or not name.startswith("sweeps/"))


def find_config(name: str) -> Path:
    """The path of a config: `name` itself if it is a file, else a packaged config such as `common`, `hardware/cpu`.

    Raises:
        InputError: neither; the nearest right name is given.
    """
    if Path(name).is_file():
        return Path(name)
    path = packaged(FOLDER) / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if not path.is_file():
        raise InputError(f"--config {name}: no such file, and no packaged config{suggest(name, packaged_configs())}")
    return path


def find_packaged(name: str) -> Path:
    """The packaged config of this name, with or without `.yaml`.

    Raises:
        InputError: there is none; the nearest right name is given.
    """
    names = packaged_configs(sweeps=True)
    if name.removesuffix(".yaml") not in names:
        raise InputError(f"there is no packaged config {name!r}{suggest(name, names)}; ssl-audio configs lists them")
    return packaged(FOLDER) / f"{name.removesuffix('.yaml')}.yaml"


def first_comment(path: Path) -> str:
    """The first sentence of the comment at the head of a config file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.startswith("#   "):  # the end, or an example
            break
        lines.append(line.lstrip("# "))
    return re.split(r"(?<=\.)\s+(?=[A-Z-])", " ".join(lines))[0]


def described_configs() -> dict[str, dict[str, str]]:
    """{heading: {name: first comment}} of every packaged config."""
    listed: dict[str, dict[str, str]] = {heading: {} for heading in GROUPS.values()}
    for name in packaged_configs(sweeps=True):
        group = name.rpartition("/")[0]
        listed.setdefault(GROUPS.get(group, group), {})[name] = first_comment(find_packaged(name))
    return listed


def listing() -> str:
    """What `ssl-audio configs` prints."""
    width = max(map(len, packaged_configs(sweeps=True)))
    parts = []
    for heading, configs in described_configs().items():
        parts.append("\n".join([heading, *(f"  {name:<{width}}  {text}" for name, text in configs.items())]))
    return "\n\n".join(parts) + "\n"


def markdown() -> str:
    """The README of `train_configs/`."""
    parts = [_README]
    for heading, configs in described_configs().items():
        rows = [f"| `{name}` | {text} |" for name, text in configs.items()]
        parts.append("\n".join([f"## {heading}", "", "| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)
