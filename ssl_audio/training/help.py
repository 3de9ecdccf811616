"""The help of `ssl-audio train`: keys of the classes in use, of any class, and lists of classes."""

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytorch_lightning
from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LightningArgumentParser

from ssl_audio.config import class_path
from ssl_audio.errors import InputError
from ssl_audio.training.config import Config, find_class, look_up
from ssl_audio.training.short_names import full_path, homes, names

_SECTIONS = ("model", "data", "trainer")
_BASES: dict[str, type] = {
    "model": pytorch_lightning.LightningModule,
    "data": pytorch_lightning.LightningDataModule,
    "callbacks": pytorch_lightning.Callback,
}
# Left out of jsonargparse's help, because said elsewhere or too long: sub-configs, --X.help, all modules of torch.
_OF_THE_PARSER = re.compile(r"^  --\S+ (?:CONFIG\b.*|\[?CLASS_PATH_OR_NAME\]?)\n(?: {20,}.*\n)*", re.MULTILINE)
_SUBCLASSES = re.compile(r",\s+known\s+subclasses:[^)]*\)")
_FIRST = {"optimizer": ("params",), "lr_scheduler": ("optimizer",)}  # arguments that the training gives


def keys_in_use(config: Config) -> str:
    """The keys of model, data and trainer of a stack, with types, values and docstrings."""
    return "\n".join(help_of(section, "", config) for section in _SECTIONS if section == "trainer" or section in config)


def help_of(path: str, name: str, config: Config) -> str:
    """What `--PATH.help NAME` prints.

    Args:
        path: of a class in the config: model, data, trainer, callbacks, model.encoder, callbacks.best, ...
        name: of a class; "" for the one that the stacked files name, or a list of classes if they name none.

    Raises:
        InputError: no class can stand at this path, or there is none of this name.
    """
    keys = path.split(".")
    if path == "trainer" and not name:
        return _keys_of(pytorch_lightning.Trainer, "trainer", config.get("trainer") or {}, ("callbacks",))
    if path == "callbacks":
        return _callbacks(config) if not name else _keys_of(_class("callbacks.NAME", name), "callbacks.NAME", {})
    spec = look_up(config, path, implied=True)
    in_use = spec.get("class_path", "") if isinstance(spec, Mapping) else ""
    if name or in_use:
        kind = _class(path, name or in_use)
        used = bool(in_use) and find_class(path, in_use) is kind
        values = (spec.get("init_args") or {}) if used else {}
        return _keys_of(kind, path, values, _FIRST.get(keys[-1], ()))
    if not homes(keys):
        raise InputError(f"--{path}.help: the stacked files name no class there; give one: --{path}.help CLASS")
    return f"{path}: no stacked file names a class. Known by their own name:\n{_listed(keys)}"


def _class(path: str, name: str) -> Any:
    return find_class(path, full_path(path.split("."), name))


def _keys_of(kind: Any, path: str, values: Mapping[str, Any], skip: tuple[str, ...] = ()) -> str:
    """jsonargparse's help of a class at `path`, with the given values as defaults."""
    plain = kind is pytorch_lightning.Trainer
    parser = (LightningArgumentParser if plain else ArgumentParser)(usage=None, add_help=False, exit_on_error=False)
    parser.add_class_arguments(kind, path, fail_untyped=False, skip=set(skip))
    for key, value in values.items():
        with suppress(Exception):  # a value of a wrong type is refused when the training begins
            parser.set_defaults({f"{path}.{key}": value})
    text = parser.format_help()
    text = _SUBCLASSES.sub(")", _OF_THE_PARSER.sub("", text[text.index("\n\n") + 2 :]))  # without the usage
    module = "" if plain else f" ({class_path(kind)})"
    return f"{path}{module}\n{text.rstrip()}\n"


def _callbacks(config: Config) -> str:
    lines = ["callbacks in use; remove one with --callbacks.NAME null:"]
    for name, spec in (config.get("callbacks") or {}).items():
        kind = find_class(f"callbacks.{name}.class_path", spec.get("class_path"))
        lines.append(f"  {name:<24} {kind.__name__}: {_summary(kind)}")
    lines += [
        "",
        "classes, for --callbacks.NAME CLASS or --trainer.callbacks+=CLASS; --callbacks.help CLASS lists its keys:",
    ]
    return "\n".join(lines) + "\n" + _listed(["callbacks"])


def _listed(keys: list[str]) -> str:
    known = {name: find_class(path, path) for name, path in names(keys).items()}
    if len(keys) == 1 and keys[0] in _BASES:
        known = {name: kind for name, kind in known.items() if issubclass(kind, _BASES[keys[0]])}
    return "".join(f"  {name:<24} {_summary(kind)}\n" for name, kind in known.items())


def _summary(kind: Any) -> str:
    text = (inspect.getdoc(kind) or "").split("\n\n")[0]
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0]
