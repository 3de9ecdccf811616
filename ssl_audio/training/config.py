"""Stacked YAML: find the files, merge them (see `merging`), apply the command line, check every key.

- `null` in `callbacks` removes a callback; a section without content (`trainer:` alone) changes nothing;
- `include: [augmentation/clip]` in a file stacks other files under it;
- classes may be given by their own name (`short_names`), values by the key of another (`interpolation`).
"""

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ssl_audio.config import accepted_arguments, find
from ssl_audio.errors import InputError, suggest
from ssl_audio.training.config_files import find_config
from ssl_audio.training.interpolation import interpolate
from ssl_audio.training.merging import SPEC, Config, merge_all
from ssl_audio.training.short_names import spell_out
from ssl_audio.utils.yaml_files import parse_yaml, read_yaml

KEYS = ("seed_everything", "ckpt_path", "trainer", "model", "data", "callbacks")
_SECTIONS = ("trainer", "model", "data", "callbacks")


def load_config(files: Sequence[str], overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Merge `files` in order, then `overrides` ("model.temperature", ".1"), and check every key.

    Raises:
        InputError: a file is missing or not YAML; a key or class does not exist. One line, with the nearest right name.
    """
    config = stack(files, overrides)
    _follow_frontend(config)
    check_keys(config)
    _follow(config, "data", "sample_rate", "model")
    encoder = (config["model"].get("init_args") or {}).get("encoder")
    if isinstance(encoder, Mapping) and "sample_rate" in (
        accepted_arguments(find_class("model.encoder.class_path", encoder.get("class_path"))) or ()
    ):
        _follow(config, "data", "sample_rate", "model.encoder")
    seed = config.setdefault("seed_everything", 0)
    if isinstance(seed, bool):  # as Lightning: true is the environment's seed or 0, false is none
        seed = config["seed_everything"] = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed else None
    if seed is not None and (type(seed) is not int or not 0 <= seed < 1 << 32):
        raise InputError(f"seed_everything is {shorten(seed)}; expected a whole number from 0 to {(1 << 32) - 1}")
    if "seed" in (accepted_arguments(find_class("data.class_path", config["data"]["class_path"])) or ()):
        _follow(config, "seed_everything", "seed", "data")
    return config


def _filled(content: Config) -> Config:
    """Without sections that have no content, such as `trainer:` above lines that are all comments."""
    return {key: value for key, value in content.items() if value is not None or key not in _SECTIONS}


def stack(files: Sequence[str], overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """`files` merged in order, then `overrides`; a key that ends with "+" appends to a list. Keys are not checked yet.

    Raises:
        InputError: a file is missing or not YAML; a class is not known by its name; a reference names no key.
    """
    contents: list[Config] = []
    config: Config = {}
    for content in (content for name in files for content in read_stack(find_config(name))):
        contents.append(_filled(spell_out(content, config)))
        config = merge_all(contents)
    for key, text in overrides:
        value = parse_yaml(text, f"--{key} {text!r}:")
        if key.endswith("+"):
            key = key[:-1]
            before = look_up(config, key, implied=True)
            value = [*(before if isinstance(before, list) else []), *(value if isinstance(value, list) else [value])]
        contents.append(_filled(spell_out(_nested(key.split("."), value), config)))
        config = merge_all(contents)
    config["callbacks"] = {k: v for k, v in (config.get("callbacks") or {}).items() if v is not None}
    return interpolate(config)


def _follow(config: Config, source: str, name: str, target: str) -> None:
    """Copy the value of an argument from `source` to `target`, so that a run has one sample rate and one seed."""
    given = config[source]
    if isinstance(given, Mapping):
        given, source = (given.get("init_args") or {}).get(name), f"{source}.{name}"
    if given is None:
        return
    head, *path = target.split(".")
    arguments = config[head].setdefault("init_args", {})
    for key in path:
        arguments = arguments[key].setdefault("init_args", {})
    if arguments.setdefault(name, given) != given:
        raise InputError(f"{target}.{name} is {arguments[name]!r} and {source} is {given!r}; they must be equal")


def _follow_frontend(config: Config) -> None:
    """Give the frontend the rate of the data where no config sets it; `sample_rate: null` takes a config's away."""
    frontend, data = (look_up(config, path) for path in ("model.init_args.frontend", "data"))
    if not isinstance(frontend, dict) or not isinstance(data, Mapping) or not frontend.get("class_path"):
        return
    given, kind = frontend.setdefault("init_args", {}), frontend["class_path"]
    if not isinstance(given, dict) or given.get("sample_rate") is not None:
        return
    if "sample_rate" not in (accepted_arguments(find_class("model.frontend.class_path", kind)) or ()):
        return
    if (rate := look_up(data, "init_args.sample_rate")) is not None:
        given["sample_rate"] = rate
    else:
        given.pop("sample_rate", None)  # the class of the data has its default, which is that of no config


def read_stack(path: Path, above: tuple[Path, ...] = ()) -> list[Config]:
    """The contents of the files that `include: [other, ...]` names in a file, then of the file itself."""
    if path in above:
        raise InputError(f"{path} includes itself, by way of {', '.join(p.name for p in above)}")
    content = read_yaml(path)
    included = content.pop("include", [])
    if not isinstance(included, list):
        raise InputError(f"{path}: include is {included!r}; expected a list of config names")
    return [part for name in included for part in read_stack(find_config(str(name)), (*above, path))] + [content]


def check_keys(config: Config) -> None:
    """Check that every key is an argument that exists and every class_path a class; types of values are checked later.

    Raises:
        InputError: one line with the key, and the nearest right name.
    """
    _check_names("", config, KEYS)
    from pytorch_lightning import Trainer

    _check_names("trainer", config.get("trainer") or {}, accepted_arguments(Trainer))
    for name, callback in config.get("callbacks", {}).items():
        if not isinstance(callback, Mapping) or "class_path" not in callback:
            raise InputError(f"callbacks.{name} has no class_path; no stacked file defines a callback of this name")
    for section in ("model", "data"):
        spec = config.get(section)
        if not isinstance(spec, Mapping) or "class_path" not in spec:
            hint = "--config contrastive" if section == "model" else "--config common"
            raise InputError(f"{section} has no class_path; stack a config that names one, such as {hint}")
    _check_specs("", config)


def _check_specs(path: str, value: Any) -> None:
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_specs(f"{path}[{i}]", item)
    elif isinstance(value, Mapping):
        if "class_path" in value:
            _check_names(path, value, SPEC)
            kind = find_class(f"{path}.class_path", value["class_path"])
            arguments = value.get("init_args") or {}
            if not isinstance(arguments, Mapping):
                raise InputError(f"{path}.init_args is {arguments!r}; expected a mapping of arguments")
            names = accepted_arguments(kind)
            if names is not None:
                _check_names(f"{path}.init_args", arguments, names)
            _check_nulls(f"{path}.init_args", arguments, kind)
            _keep_texts(arguments, kind)
        for key, item in value.items():
            _check_specs(f"{path}.{key}" if path else str(key), item)


def _keep_texts(arguments: Mapping, kind: Any) -> None:
    """A number where the argument is text stays the text that was written: `version: 3`, `dataset_dirs: [2024]`."""
    if not isinstance(arguments, dict):
        return
    for name, value in arguments.items():
        hint = _hint(kind, name)
        options = [hint, *get_args(hint)]  # some hints have no hash
        if type(value) in (int, float) and str in options and int not in options and float not in options:
            arguments[name] = str(value)
        elif isinstance(value, list) and any(option in options for option in (list[str], Sequence[str])):
            arguments[name] = [str(item) if type(item) in (int, float) else item for item in value]


def _hint(kind: Any, name: str) -> Any:
    for base in kind.__mro__ if inspect.isclass(kind) else ():
        parameter = inspect.signature(vars(base)["__init__"]).parameters.get(name) if "__init__" in vars(base) else None
        if parameter is not None:
            return parameter.annotation
    return None


def _check_nulls(path: str, arguments: Mapping, kind: Any) -> None:
    """Refuse `null` where neither type nor default of the argument allow it; the parser accepts it anywhere."""
    for name in [name for name, value in arguments.items() if value is None]:
        for base in kind.__mro__ if inspect.isclass(kind) else ():
            parameter = (
                inspect.signature(vars(base)["__init__"]).parameters.get(name) if "__init__" in vars(base) else None
            )
            if parameter is None:
                continue
            hint, default = parameter.annotation, parameter.default
            free = hint in (parameter.empty, Any) or isinstance(hint, str) or type(None) in get_args(hint)
            if not free and default not in (parameter.empty, None):
                wanted = getattr(hint, "__name__", "") if inspect.isclass(hint) else str(hint).replace("typing.", "")
                raise InputError(f"{path}.{name} is null; expected {wanted}, such as {default!r}")
            break


def find_class(key: str, class_path: Any) -> Any:
    """Import `module.Class`. Raises InputError with the key if there is no such class."""
    try:
        return find(str(class_path))
    except InputError as error:
        raise InputError(f"{key} is {class_path!r}: {error}") from error


def look_up(config: Any, path: str, implied: bool = False) -> Any:
    """The value at `a.b.c` of nested mappings, or None; with `implied`, also where `init_args` is left out."""
    for key in path.split("."):
        if implied and isinstance(config, Mapping) and key not in config:
            config = config.get("init_args")
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _check_names(path: str, mapping: Any, known: Iterable[str] | None) -> None:
    if known is None:
        return
    if not isinstance(mapping, Mapping):
        raise InputError(f"{path or 'the config'} is {mapping!r}; expected a mapping")
    for key, value in mapping.items():
        if key not in known:
            where = f"{path}.{key}" if path else f"{key}"
            raise InputError(f"{where} is not a key (value {shorten(value)}){suggest(str(key), known)}")


def shorten(value: Any, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _nested(keys: Sequence[str], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value
