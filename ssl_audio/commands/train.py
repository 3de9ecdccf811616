"""Train an embedding from stacked config files."""

import shlex
import sys
from collections.abc import Sequence

from ssl_audio.cli import search_working_folder
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio train --config common --config contrastive --data.dataset_dirs '[my_voices]'
  ssl-audio train --config common --config byol --config hardware/gpu \\
      --data.dataset_dirs '[my_voices, more_voices]' --data.batch_size 64 --trainer.max_epochs 200
  ssl-audio train --config common --config byol --data.dataset_dirs '[my_voices]' \\
      --callbacks.collapse.every_n_steps 5 --callbacks.periodic null
  continue an interrupted run:
    ssl-audio train --config runs/byol/0/config.yaml --ckpt_path runs/byol/0/checkpoints/last.ckpt
  print the merged config and stop:
    ssl-audio train --config common --config vicreg --print_config
"""

_USAGE = """usage: ssl-audio train --config FILE_OR_NAME [--config ...] [--KEY VALUE ...] [--ckpt_path CHECKPOINT]

Files are merged in order; a later file gives only what it changes. Any key can be given on the command line, and the
arguments of a class directly below it: --model.temperature 0.1, --model.encoder.embedding_dim 512.

keys:
  model            class_path and init_args of a method (ssl_audio.methods.*): frontend, encoder, projection, ...
  data             class_path and init_args of a data module (ssl_audio.data.AudioDataModule): folders, batch size, ...
  trainer          arguments of pytorch_lightning.Trainer: max_epochs, accelerator, precision, devices, ...
  callbacks        names, each with class_path and init_args; null removes one
  seed_everything  seed of everything random (0)
  ckpt_path        checkpoint from which a run continues, with the same result as without the interruption
"""


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments, train, print where the results are. Returns the exit status."""
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
    """Sort arguments into config files, (key, value) pairs, and whether to print the config instead of training.

    Hyphens in keys are read as underscores, except in the name of a callback, which is the user's own.

    Raises:
        InputError: an argument is not an option, or an option has no value.
    """
    files: list[str] = []
    overrides: list[tuple[str, str]] = []
    print_config = False
    rest = iter(arguments)
    for word in rest:
        if word in ("--print_config", "--print-config"):
            print_config = True
            continue
        if word == "-c":
            word = "--config"
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"{shlex.quote(word)} is not an option; give keys as --key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            following = next(rest, None)
            if following is None:
                raise InputError(f"--{key} has no value")
            value = following
        if key == "config":
            files.append(value)
        elif any(_with_underscores(key) == given for given, _ in overrides):
            raise InputError(f"--{key} is given twice; a list is one value, such as '[a, b]'")
        else:
            overrides.append((_with_underscores(key), value))
    if not files:
        raise InputError("--config is missing; start with: --config common --config contrastive")
    return files, overrides, print_config


def _with_underscores(key: str) -> str:
    """`data.batch-size` -> `data.batch_size`; `callbacks.my-name.nr-steps` -> `callbacks.my-name.nr_steps`."""
    parts = key.split(".")
    named = 1 if parts[0] == "callbacks" else -1  # the part that is a callback's name
    return ".".join(part if i == named else part.replace("-", "_") for i, part in enumerate(parts))


if __name__ == "__main__":
    from ssl_audio.cli import run_command

    sys.exit(run_command("train", sys.argv[1:]))
