"""Upload a model to the Hugging Face Hub with its model card; load_model("owner/name") then loads it.

MODEL is a folder that `ssl-audio convert` or save_model wrote. A run folder, a checkpoint or an address
(package:resemblyzer, hf:ID) is converted first, and its config goes into the card. A model that does not load is not
uploaded. To get the right to write, run `hf auth login` or set the environment variable HF_TOKEN.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ssl_audio.commands._models import add_trusted

EXAMPLES = """examples:
  ssl-audio push my-model me/my-singers --private
  ssl-audio push runs/byol/0 me/my-singers --licence cc-by-4.0 --data "40 hours of singing" --metrics eval.json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model folder, a run folder, a checkpoint or an address")
    add_trusted(parser)
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository on the Hub; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--licence", metavar="L", help="licence of the weights, by the Hub's name (mit, cc-by-nc-4.0)")
    parser.add_argument("--data", metavar="TEXT", help="for the card: what the model was trained on")
    parser.add_argument("--training", metavar="YAML", help="for the card: the config (default: the run's own)")
    parser.add_argument("--metrics", metavar="JSON", help="for the card: a JSON file that `ssl-audio eval` wrote")
    parser.add_argument("--message", default="Upload model", help="commit message (Upload model)")


def run(args: Namespace) -> int:
    import tempfile

    from ssl_audio.errors import InputError
    from ssl_audio.hub import load_model, push_to_hub, save_model
    from ssl_audio.hub.address import parse_address
    from ssl_audio.hub.saved import CONFIG, WEIGHTS

    source = Path(args.model)
    address = parse_address(args.model)
    if address is None and not source.exists():
        raise InputError(f"{source}: no such folder or checkpoint")
    if args.training is not None and not Path(args.training).is_file():
        raise InputError(f"{args.training}: no such file")
    words = {name: getattr(args, name) for name in ("private", "licence", "data", "training", "metrics", "message")}
    if (source / CONFIG).is_file() and (source / WEIGHTS).is_file():
        url = push_to_hub(source, args.repo_id, **words)
    else:
        if words["training"] is None and (source / CONFIG).is_file():
            words["training"] = source / CONFIG
        with tempfile.TemporaryDirectory() as folder:
            save_model(load_model(source if address is None else args.model, trusted=args.trusted), folder)
            url = push_to_hub(folder, args.repo_id, **words)
    print(f'{url}\nnext: python -c "import ssl_audio; print(ssl_audio.load_model({args.repo_id!r}))"')
    return 0
