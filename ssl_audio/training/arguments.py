"""The command line of `ssl-audio train`, in the forms of LightningCLI: sorted, with nothing merged yet."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssl_audio.errors import InputError, suggest
from ssl_audio.utils.yaml_files import parse_yaml

WORDS = ("fit", "validate", "test")
PRINT_FLAGS = ("comments", "skip_default", "skip_unset", "skip_null")
_ALIASES = {"optimizer": "model.optimizer", "lr_scheduler": "model.lr_scheduler"}
_CALLBACKS = "trainer.callbacks"


@dataclass
class Arguments:
    """What was typed.

    Attributes:
        word: fit, validate or test.
        files: config files in order.
        overrides: (key, YAML text) in order; a key that ends with "+" appends to a list.
        print_config: flags of `--print_config`; None if it was not given.
        help: (path, class or "") of `--PATH.help CLASS`; ("", "") of `--help`; None if neither was given.
    """

    word: str = "fit"
    files: list[str] = field(default_factory=list)
    overrides: list[tuple[str, str]] = field(default_factory=list)
    print_config: tuple[str, ...] | None = None
    help: tuple[str, str] | None = None


def read_arguments(arguments: Sequence[str]) -> Arguments:
    """Sort arguments into the word, config files, (key, value) pairs and what is to be printed.

    Hyphens in keys are read as underscores, except in the name of a callback, which is the user's own.

    Raises:
        InputError: an argument is not an option, an option has no value or is given twice.
    """
    found = Arguments()
    callback = ""  # the one that --trainer.callbacks+= added last
    rest = list(arguments)
    words = []
    while rest:
        word = rest.pop(0)
        if word in WORDS or word == "predict":
            words.append(word)
            continue
        if word in ("-h", "--help"):
            found.help = ("", "")
            continue
        key, equals, value = ("--config" if word == "-c" else word).partition("=")
        if not key.startswith("--") or len(key) == 2:
            raise InputError(f"{shlex.quote(word)} is not an option; give keys as --key value")
        key = _with_underscores(key[2:])
        if key == "print_config":
            found.print_config = _flags(value)
            continue
        if key.endswith(".help"):
            if not equals and rest and not rest[0].startswith("-") and rest[0] not in WORDS:
                value = rest.pop(0)
            found.help = (_full(key.removesuffix(".help")), value)
            continue
        if not equals:
            if not rest:
                raise InputError(f"--{key} has no value")
            value = rest.pop(0)
        if key == "config":
            found.files += config_list(value)
        elif key.rstrip("+") == _CALLBACKS:
            specs = named_callbacks(parse_yaml(value, f"--{key} {value!r}:"), [k for k, _ in found.overrides])
            found.overrides += [(f"callbacks.{name}", _as_text(spec)) for name, spec in specs.items()]
            callback = [*specs][-1]
        elif key.startswith(f"{_CALLBACKS}."):
            if not callback:
                raise InputError(f"--{key} names no callback; give --callbacks.NAME.{key.rpartition('.')[2]}")
            found.overrides.append((f"callbacks.{callback}{key.removeprefix(_CALLBACKS)}", value))
        elif not key.endswith("+") and any(_full(key) == given for given, _ in found.overrides):
            raise InputError(f"--{key} is given twice; a list is one value, such as '[a, b]'")
        else:
            found.overrides.append((_full(key), value))
    if len(words) > 1:
        raise InputError(f"{words[0]} and {words[1]} are two commands; give one")
    if words == ["predict"]:
        raise InputError("predict is not a command here; embed recordings with: ssl-audio embed")
    found.word = words[0] if words else "fit"
    return found


def from_environment(environment: Mapping[str, str], word: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Config files and (key, value) pairs in variables such as PL_FIT__TRAINER__MAX_EPOCHS, as LightningCLI names them.

    Names are read in lower case. `PL_FIT__CONFIG` holds a config or a list of configs.
    """
    prefix = f"PL_{word.upper()}__"
    given = {name: value for name, value in sorted(environment.items()) if name.startswith(prefix)}
    files: list[str] = []
    overrides = []
    for name, value in given.items():
        key = name.removeprefix(prefix).lower().replace("__", ".")
        if key == "config":
            files += config_list(value)
        else:
            overrides.append((_full(key), value))
    return files, overrides


def config_list(value: str) -> list[str]:
    """The configs that one `--config` names: a name, a path, or a YAML list of them."""
    if not value.lstrip().startswith("["):
        return [value]
    names = parse_yaml(value, f"--config {value!r}:")
    return [str(name) for name in names]


def named_callbacks(value: Any, taken: Sequence[str] = ()) -> dict[str, Any]:
    """Callbacks as LightningCLI gives them, a class or a list of classes, by name: `EarlyStopping` -> `early_stopping`.

    Args:
        value: a class name, `{class_path, init_args}`, or a list of these.
        taken: keys that begin with the names `callbacks.NAME` of callbacks that are there.

    Raises:
        InputError: something else, or an empty list.
    """
    used = {key.split(".")[1] for key in taken if key.startswith("callbacks.")}
    named: dict[str, Any] = {}
    for item in value if isinstance(value, list) else [value]:
        spec = {"class_path": item} if isinstance(item, str) else item
        if not isinstance(spec, Mapping) or not isinstance(spec.get("class_path"), str):
            raise InputError(f"{_CALLBACKS} holds {item!r}; expected a class, or a list of classes with class_path")
        base = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", spec["class_path"].rpartition(".")[2]).lower()
        name, number = base, 1
        while name in used:
            number += 1
            name = f"{base}_{number}"
        used.add(name)
        named[name] = dict(spec)
    if not named:
        raise InputError(f"{_CALLBACKS} is empty; remove a callback with --callbacks.NAME null")
    return named


def _flags(value: str) -> tuple[str, ...]:
    flags = tuple(flag for flag in value.split(",") if flag)
    for flag in flags:
        if flag not in PRINT_FLAGS:
            raise InputError(f"--print_config={flag} is not a form of it{suggest(flag, PRINT_FLAGS)}")
    return tuple("skip_unset" if flag == "skip_null" else flag for flag in flags)  # its name in older releases


def _full(key: str) -> str:
    """The key with LightningCLI's top-level optimizer and lr_scheduler where they belong here: in the model."""
    first, dot, rest = key.partition(".")
    return _ALIASES.get(first, first) + dot + rest


def _as_text(spec: Mapping[str, Any]) -> str:
    import json

    return json.dumps(spec)


def _with_underscores(key: str) -> str:
    """`data.batch-size` -> `data.batch_size`; `callbacks.my-name.nr-steps` -> `callbacks.my-name.nr_steps`."""
    parts = key.split(".")
    named = 1 if parts[0] == "callbacks" else -1  # the part that is a callback's name
    return ".".join(part if i == named else part.replace("-", "_") for i, part in enumerate(parts))
