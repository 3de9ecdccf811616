"""Classes by their own name: `VICReg` for `ssl_audio.methods.VICReg`, by the place in the config where they stand."""

import inspect
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ssl_audio.config import find
from ssl_audio.errors import InputError, suggest
from ssl_audio.training.arguments import named_callbacks

HOMES: dict[str, tuple[str, ...]] = {
    "callbacks": ("ssl_audio.callbacks", "pytorch_lightning.callbacks"),
    "data": ("ssl_audio.data", "ssl_audio.data.labelled", "ssl_audio.data.sharded"),
    "model": ("ssl_audio.methods", "ssl_audio.methods.supervised"),
    "logger": ("ssl_audio.training.logger", "pytorch_lightning.loggers"),
    "strategy": ("pytorch_lightning.strategies",),
    "profiler": ("pytorch_lightning.profilers",),
    "plugins": ("pytorch_lightning.plugins",),
    "frontend": ("ssl_audio.frontends", "ssl_audio.resampling"),
    "encoder": ("ssl_audio.encoders", "ssl_audio.baselines", "ssl_audio.pooling"),
    "feature_augmentation": ("ssl_audio.augmentations.features",),
    "optimizer": ("torch.optim",),
    "lr_scheduler": ("ssl_audio.schedules", "torch.optim.lr_scheduler"),
}
"""Key of the config -> the modules whose classes are known by their own name at it and below it, in order."""

_BELOW: dict[str, tuple[str, ...]] = {
    "data": ("ssl_audio.data.sources", "ssl_audio.augmentations.clip", "ssl_audio.augmentations.batch"),
    "model": ("ssl_audio.heads", "ssl_audio.pooling", "ssl_audio.augmentations.batch", "ssl_audio.augmentations.clip"),
}
"""The same for other keys below model and data: a head, a source, an augmentation."""


def homes(path: Sequence[str]) -> tuple[str, ...]:
    """The modules to search at a place of the config: those of the nearest key that has some.

    >>> homes(["model", "encoder"])[0]
    'ssl_audio.encoders'
    """
    nearest = next((key for key in reversed(path) if key in HOMES), "")
    return _BELOW[nearest] if len(path) > 1 and nearest in _BELOW else HOMES.get(nearest, ())


def names(path: Sequence[str]) -> dict[str, str]:
    """{own name: class path} of the classes that are known at a place of the config."""
    known: dict[str, str] = {}
    for home in homes(path):
        module = import_module(home)
        public = getattr(module, "__all__", None)
        for name in dir(module) if public is None else public:
            kind = getattr(module, name, None)
            own = public is not None or getattr(kind, "__module__", "").startswith(home)  # not what it imports
            if own and inspect.isclass(kind) and not name.startswith("_") and not inspect.isabstract(kind):
                known.setdefault(name, f"{home}.{name}")
    return known


def full_path(path: Sequence[str], name: str) -> str:
    """The class path of a class that is given by its own name; a path with dots is returned as it is.

    Raises:
        InputError: no class of this name is known at this place.
    """
    if "." in name:
        return name
    known = names(path)
    if name not in known:
        remedy = suggest(name, known) if known else "; give its full path, such as ssl_audio.methods.Contrastive"
        raise InputError(f"{'.'.join(path)} is {name!r}: no class of this name is known here{remedy}")
    return known[name]


def spell_out(content: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A config with full class paths, and with LightningCLI's forms in the form that is kept here.

    - `class_path: VICReg`, and `model: VICReg` where a class is expected;
    - `optimizer` and `lr_scheduler` at the top level;
    - `trainer.callbacks` as a list.

    Args:
        content: of one file, or of one option.
        base: what it is stacked on.

    Raises:
        InputError: a class is not known by this name.
    """
    content = dict(content)
    for key in ("optimizer", "lr_scheduler"):
        if key in content:
            arguments = _below(content, "model")
            if arguments is None:
                raise InputError(f"{key} and model.{key} are given in one file; give one")
            arguments[key] = content.pop(key)
    trainer = content.get("trainer")
    if isinstance(trainer, Mapping) and trainer.get("callbacks") is not None:
        named = named_callbacks(trainer["callbacks"], [f"callbacks.{name}" for name in content.get("callbacks") or ()])
        content["trainer"] = {key: value for key, value in trainer.items() if key != "callbacks"}
        content["callbacks"] = {**(content.get("callbacks") or {}), **named}
    return {key: _spell(value, base.get(key), [key], None) for key, value in content.items()}


def _below(content: dict[str, Any], section: str) -> dict[str, Any] | None:
    """The init_args of a section of a config, made if it has none; copies, so that what was read stays."""
    spec = content[section] = dict(content.get(section) or {})
    spec["init_args"] = dict(spec.get("init_args") or {})
    return spec["init_args"]


def _spell(value: Any, base: Any, path: list[str], parent: Any) -> Any:
    """`value` at `path` with full class paths; `parent` is the class whose argument it is, or None."""
    if isinstance(value, list):
        # Only the trainer has lists of classes by name: loggers, plugins. Elsewhere a string in a list is a string.
        texts = path[0] != "trainer"
        return [item if texts and isinstance(item, str) else _spell(item, None, path, None) for item in value]
    if isinstance(value, str):
        if _names_class(value, base, path, parent):
            return {"class_path": full_path(path, value)}
        return value
    if not isinstance(value, Mapping):
        return value
    value = dict(value)
    if isinstance(value.get("class_path"), str):
        value["class_path"] = full_path(path, value["class_path"])
    before = base if isinstance(base, Mapping) else {}
    kind = _class(value.get("class_path") or before.get("class_path"))
    arguments = {**before, **(before.get("init_args") or {})}
    for key, item in value.items():
        if key == "init_args" and isinstance(item, Mapping):
            value[key] = {k: _spell(v, arguments.get(k), [*path, k], kind) for k, v in item.items()}
        elif key != "class_path":
            value[key] = _spell(item, arguments.get(key), [*path, str(key)], kind)
    return value


def _names_class(value: str, base: Any, path: list[str], parent: Any) -> bool:
    """Whether a string stands where a class is expected, and is the name of one."""
    if isinstance(base, Mapping) and "class_path" in base:
        return value.isidentifier()  # --model VICReg; what is no class is refused
    if "." in value or not value[:1].isupper():
        return False
    if path in (["model"], ["data"]) or (path[0] == "callbacks" and len(path) == 2):
        return True
    return not _takes_text(parent, path[-1]) and value in names(path)


def _takes_text(kind: Any, argument: str) -> bool:
    """Whether an argument of a class may be a string; an unknown class has none."""
    for base in getattr(kind, "__mro__", ()):
        parameters = inspect.signature(vars(base)["__init__"]).parameters if "__init__" in vars(base) else {}
        if argument in parameters:
            return re.search(r"\bstr\b", str(parameters[argument].annotation)) is not None
    return False


def _class(path: Any) -> Any:
    try:
        return find(path) if isinstance(path, str) else None
    except (InputError, ImportError):
        return None  # refused later, with the key
