"""Train an embedding from stacked config files."""

import shlex
import sys
from collections.abc import Sequence

from ssl_audio.cli import search_working_folder
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  python train.py --config common --config contrastive --data.dataset_dirs [my_voices]
  python train.py --config train_configs/common.yaml --config train_configs/byol.yaml --config hardware/gpu \\
      --data.dataset_dirs [my_voices] --data.batch_size 64 --trainer.max_epochs 200
  python train.py --config common --config byol --callbacks.collapse.every_n_steps 5 --callbacks.periodic null
  python train.py --config runs/byol/0/config.yaml --ckpt_path runs/byol/0/checkpoints/last.ckpt     # train on
  python train.py --config common --config vicreg --print_config                                     # and stop
"""

_USAGE = """usage: train.py --config FILE_OR_NAME [--config ...] [--KEY VALUE ...] [--ckpt_path CHECKPOINT]

Files are merged in order; a later one says only what it changes. Any key can be given on the command line, with the
arguments of a class directly under it: --model.temperature .1, --model.encoder.embedding_dim 512.

keys:
  model            class_path and init_args of a method (ssl_audio.methods.*): frontend, encoder, projection, ...
  data             class_path and init_args of a data module (ssl_audio.data.AudioDataModule): folders, batch size, ...
  trainer          arguments of pytorch_lightning.Trainer: max_epochs, accelerator, precision, devices, ...
  callbacks        by name, each a class_path and init_args; null takes one away
  seed_everything  the seed of everything random (0)
  ckpt_path        checkpoint to continue from, exactly
"""


def main(arguments: Sequence[str]) -> int:
    """Parse, train, say where the results are. Returns the exit status."""
    arguments = list(arguments)
    if not arguments or "-h" in arguments or "--help" in arguments:
        from ssl_audio.training.config_files import packaged_configs

        print(f"{_USAGE}\npackaged configs: {', '.join(packaged_configs())}\n\n{EXAMPLES}")
        return 0 if arguments else 2
    files, overrides, print_config = split_arguments(arguments)

    search_working_folder()

    import yaml

    from ssl_audio.training.config import load_config

    merged = load_config(files, overrides)
    if print_config:
        print(yaml.safe_dump(merged, sort_keys=False, allow_unicode=True), end="")
        return 0
    from ssl_audio.training.cli import TrainCLI

    TrainCLI(merged, ["train.py", *arguments]).fit()
    return 0


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], bool]:
    """`--config` files, (key, value) pairs, and whether the config should only be printed.

    Raises:
        InputError: a word that is no option, or an option without its value.
    """
    files: list[str] = []
    overrides: list[tuple[str, str]] = []
    print_config = False
    rest = iter(arguments)
    for word in rest:
        if word == "--print_config":
            print_config = True
            continue
        if word == "-c":
            word = "--config"
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"{shlex.quote(word)} is not an option; keys are given as --key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            following = next(rest, None)
            if following is None:
                raise InputError(f"--{key} has no value")
            value = following
        if key == "config":
            files.append(value)
        else:
            overrides.append((key, value))
    if not files:
        raise InputError("no --config was given; start with: --config common --config contrastive")
    return files, overrides, print_config


if __name__ == "__main__":
    from ssl_audio.cli import run_command

    sys.exit(run_command("train", sys.argv[1:]))
