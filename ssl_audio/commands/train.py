"""Train an embedding from stacked config files."""

import os
import sys
from collections.abc import Sequence

from ssl_audio.cli import search_working_folder
from ssl_audio.errors import InputError
from ssl_audio.training.arguments import Arguments, from_environment, read_arguments

EXAMPLES = """examples:
  ssl-audio train --config common --config contrastive --data.dataset_dirs '[my_voices]'
  ssl-audio train --config common --config byol --config hardware/gpu \\
      --data.dataset_dirs '[my_voices, more_voices]' --data.batch_size 64 --trainer.max_epochs 200
  ssl-audio train --config common --config byol --data.dataset_dirs '[my_voices]' \\
      --callbacks.collapse.every_n_steps 5 --callbacks.periodic null
  continue an interrupted run:
    ssl-audio train --config runs/byol/0/config.yaml --ckpt_path runs/byol/0/checkpoints/last.ckpt
  print the merged config and stop:
    ssl-audio train --config common --config vicreg --print_config=skip_default
  classes by their own name, a callback more:
    ssl-audio train --config common --config byol --data.dataset_dirs '[my_voices]' --optimizer AdamW \\
        --optimizer.lr 1e-3 --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor loss/val
"""

_USAGE = """usage: ssl-audio train [fit | validate | test] --config FILE_OR_NAME [--config ...] [--KEY VALUE ...]

Files are merged in order; a later file gives only what it changes. Any key can be given on the command line, and the
arguments of a class directly below it: --model.temperature 0.1, --model.encoder.embedding_dim 512. Classes of this
package, of Lightning and of torch may be given by their own name: --model VICReg, --trainer.logger CSVLogger.

keys:
  model            class_path and init_args of a method (ssl_audio.methods.*): frontend, encoder, projection, ...
  data             class_path and init_args of a data module (ssl_audio.data.AudioDataModule): folders, batch size, ...
  trainer          arguments of pytorch_lightning.Trainer: max_epochs, accelerator, precision, devices, ...
  callbacks        names, each with class_path and init_args; null removes one
  seed_everything  seed of everything random (0)
  ckpt_path        checkpoint from which a run continues, with the same result as without the interruption

help:
  --help --config common --config byol   also every key of model, data and trainer, with the values in use
  --model.help [CLASS]                   keys of the class in use, or of another; so for data, trainer, callbacks,
                                         model.encoder, optimizer, lr_scheduler, ...
  --print_config[=FLAGS]                 print the config with all defaults and stop; flags, separated by commas:
                                         comments, skip_default, skip_unset
"""


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments, train or measure, print where the results are. Returns the exit status."""
    given = read_arguments(arguments)
    if not arguments or (given.help == ("", "") and not given.files):
        from ssl_audio.training.config_files import packaged_configs

        print(f"{_USAGE}\npackaged configs: {', '.join(packaged_configs())}\n\n{EXAMPLES}")
        return 0 if arguments else 2
    search_working_folder()
    files, overrides = _from_environment(given)
    if given.help is not None:
        from ssl_audio.training.config import stack
        from ssl_audio.training.help import help_of, keys_in_use

        config = stack(files, overrides)
        print(help_of(*given.help, config) if given.help[0] else f"{_USAGE}\n{keys_in_use(config)}\n{EXAMPLES}")
        return 0
    if given.print_config is not None:
        from ssl_audio.training.config import load_config, stack
        from ssl_audio.training.printing import print_config

        config = stack(files, overrides)
        whole = {"model", "data"} <= {*config}
        print(print_config(load_config(files, overrides) if whole else config, given.print_config), end="")
        return 0
    if not files and not any(key.partition(".")[0] == "model" for key, _ in overrides):
        raise InputError("--config is missing; start with: --config common --config contrastive")

    from ssl_audio.training.config import load_config

    merged = load_config(files, overrides)
    from ssl_audio.training.cli import TrainCLI

    TrainCLI(merged, ["train.py", *arguments], given.word).run()
    return 0


def _from_environment(given: Arguments) -> tuple[list[str], list[tuple[str, str]]]:
    """All config files and all (key, value) pairs, those of the environment before those that were typed."""
    files, overrides = from_environment(os.environ, given.word)
    if files or overrides:
        names = [f"config {name}" for name in files] + [f"{key} {value}" for key, value in overrides]
        print(f"from the environment: {', '.join(names)}", file=sys.stderr)
    return [*files, *given.files], [*overrides, *given.overrides]


if __name__ == "__main__":
    from ssl_audio.cli import run_command

    sys.exit(run_command("train", sys.argv[1:]))
