"""List the config files that come with the package, print one, or copy one to change it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ssl_audio.errors import InputError
from ssl_audio.training.config_files import find_packaged, listing, markdown
from ssl_audio.utils.files import write_text

EXAMPLES = """examples:
  ssl-audio configs list
  ssl-audio configs show byol
  ssl-audio configs copy recipes/small-voices mine.yaml
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "show", "copy"), default="list")
    parser.add_argument("name", nargs="?", help="of a config, as `ssl-audio configs` prints it")
    parser.add_argument("file", nargs="?", type=Path, help="where the copy goes (the file's own name, in this folder)")
    parser.add_argument("--markdown", action="store_true", help="list as train_configs/README.md does")


def run(args: Namespace) -> int:
    """Print the list, or one file; or copy one file, never over another."""
    if args.action == "list":
        print(markdown() if args.markdown else listing(), end="")
        return 0
    if args.name is None:
        raise InputError(f"which config? give a name: ssl-audio configs {args.action} byol")
    source = find_packaged(args.name)
    if args.action == "show":
        print(source.read_text(encoding="utf-8"), end="")
        return 0
    target = Path(source.name) if args.file is None else args.file
    if target.is_dir():
        target /= source.name
    if target.exists():
        raise InputError(f"{target} is there already; give another name, or remove it")
    write_text(target, source.read_text(encoding="utf-8"))
    use = "run it with: ssl-audio sweep" if args.name.startswith("sweeps/") else "stack it with --config"
    print(f"{target} is a copy of {args.name}; {use} {target}")
    return 0
