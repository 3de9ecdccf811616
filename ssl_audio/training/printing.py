"""`--print_config`: the stacked config with every argument and its default."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser

from ssl_audio.config import required_arguments
from ssl_audio.training.cli import TrainCLI
from ssl_audio.training.config import Config, find_class

_BASES: dict[str, Any] = {"model": LightningModule, "data": LightningDataModule}


def print_config(merged: Config, flags: Collection[str] = ()) -> str:
    """The config as YAML that `--config` takes. An argument that is required and not given is null.

    Args:
        merged: the config; a section that it lacks is left out.
        flags: `comments` (docstrings), `skip_default` (only what differs), `skip_unset` (no nulls).

    Raises:
        InputError: a key, a class or a value is wrong.
    """
    filled = {key: _with_required(key, value) for key, value in merged.items()}
    filled["callbacks"] = {name: _with_required(name, spec) for name, spec in (merged.get("callbacks") or {}).items()}
    cli = _Printer(filled, [])
    text = cli.parser.dump(
        cli.config,
        skip_unset="skip_unset" in flags,
        skip_default="skip_default" in flags,
        with_comments="comments" in flags,
        skip_validation=True,
    )
    return re.sub(r"(?m)^  (# .*\n  )?callbacks: null\n", "", text)  # they stand under their names


class _Printer(TrainCLI):
    """Parses as TrainCLI does, and instantiates nothing."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Trainer, "trainer")
        for section in (section for section in _BASES if section in self.merged):
            parser.add_lightning_class_args(_BASES[section], section, subclass_mode=True)

    def instantiate_classes(self) -> None:
        pass


def _with_required(key: str, spec: Any) -> Any:
    """A class with null for each argument that it requires and that is not given."""
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        return spec
    required = required_arguments(find_class(f"{key}.class_path", spec["class_path"]))
    arguments = {**dict.fromkeys(required), **(spec.get("init_args") or {})}
    return {"class_path": spec["class_path"], **spec, "init_args": arguments}
