"""Modules as data: `{"class_path": ..., "init_args": {...}}`, without Lightning or jsonargparse.

Convention (scikit-learn's): every frontend, encoder, pooling and head stores each constructor argument under its own
name, so that `describe` can write it down and `build` can make it again. This is what `config.yaml` of a saved model
holds, and what a run's resolved config holds for the same keys.
"""

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from ssl_audio.errors import InputError, suggest

MOVED: dict[str, str] = {
    "ssl_audio.evaluation.baselines.MelStatistics": "ssl_audio.baselines.MelStatistics",
    "ssl_audio.methods.base.SiameseMethod": "ssl_audio.methods.SiameseMethod",
}
"""Old path of a class -> its path now. Saved models name the old one for ever, so entries are never removed."""

ADDED: dict[str, dict[str, Any]] = {
    "ssl_audio.frontends.MelSpectrogram": {"edges": "reflect"},
}
"""Class path -> arguments that it has got since 0.1.0, each with the value under which it works as before.

An argument with this value is left out of `identity`, so that a model keeps its fingerprint when its class learns
something new. Entries are never removed.
"""


def class_path(kind: type) -> str:
    """The path under which users know a class: through the outermost package that exports it.

    class_path(CompactCNN)        # ssl_audio.encoders.CompactCNN, whatever file it is in
    """
    parts = kind.__module__.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), kind.__qualname__, None) is kind:
            return f"{package}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def find(path: str) -> Any:
    """What a class path of this or an earlier release names.

    Raises:
        InputError: there is no such module, or nothing of this name in it; the nearest right name is given.
        ModuleNotFoundError: the module is there and needs a package that is not installed.
    """
    module_name, _, name = MOVED.get(path, path).rpartition(".")
    if not module_name:
        raise InputError("expected a full path such as ssl_audio.methods.Contrastive")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise
        raise InputError(f"there is no module {error.name!r}") from error
    except (ImportError, TypeError, ValueError) as error:
        raise InputError(f"{module_name} cannot be imported: {error}") from error
    if not hasattr(module, name):
        names = [key for key in dir(module) if not key.startswith("_") and inspect.isclass(getattr(module, key))]
        raise InputError(f"{module_name} has no {name!r}{suggest(name, names)}")
    return getattr(module, name)


def canonical_path(path: str) -> str:
    """One spelling for all paths of one class; a path that names no class stays as it is."""
    try:
        kind = find(path)
    except (InputError, ImportError):
        return path
    return class_path(kind) if isinstance(kind, type) else MOVED.get(path, path)


def canonical(description: Any) -> Any:
    """A description in which every class path has its one spelling, so that equal models have equal descriptions."""
    if isinstance(description, Mapping):
        return {
            key: canonical_path(value) if key == "class_path" and isinstance(value, str) else canonical(value)
            for key, value in description.items()
        }
    return [canonical(item) for item in description] if isinstance(description, (list, tuple)) else description


def identity(description: Any) -> Any:
    """The canonical description without the arguments of `ADDED` that change nothing."""
    if isinstance(description, (list, tuple)):
        return [identity(item) for item in description]
    if not isinstance(description, Mapping):
        return description
    if "class_path" not in description:
        return {key: identity(value) for key, value in description.items()}
    path = canonical_path(description["class_path"])
    neutral = ADDED.get(path, {})
    arguments = {
        key: identity(value)
        for key, value in (description.get("init_args") or {}).items()
        if key not in neutral or value != neutral[key]
    }
    return {"class_path": path, "init_args": arguments}


def describe(module: nn.Module, outside: bool = False) -> dict[str, Any]:
    """The class path and constructor arguments of a module, nested modules described in turn.

    Args:
        outside: describe also what stays outside of the package (`encoders.outside`), which cannot be made again.

    Raises:
        InputError: an argument is not stored under its own name, so the module could not be rebuilt.
    """
    kind = type(module)
    facts: Any = getattr(module, "outside", None)
    if facts is not None:
        if not outside:
            refuse_outside(module, "saved or made again")
        return {"class_path": class_path(kind), "init_args": dict(facts)}
    init_args = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            raise InputError(
                f"{kind.__qualname__} does not store its argument {name!r} as an attribute, so it cannot be saved; "
                f"add 'self.{name} = {name}' to its __init__"
            )
        init_args[name] = _describe_value(getattr(module, name), outside)
    return {"class_path": class_path(kind), "init_args": init_args}


def _describe_value(value: Any, outside: bool) -> Any:
    if isinstance(value, nn.Module):
        return describe(value, outside)
    if isinstance(value, (list, tuple)):
        return [_describe_value(item, outside) for item in value]
    if isinstance(value, Mapping):
        return {key: _describe_value(item, outside) for key, item in value.items()}
    return value


def refuse_outside(module: nn.Module, action: str) -> None:
    """Raise InputError if a part of the module stays outside of the package, so that nothing can be done with it."""
    for part in module.modules():
        if getattr(part, "outside", None) is not None:
            raise InputError(
                f"{part.origin} cannot be {action}: it stays where it is and is only called; give this address "
                "wherever a model is asked for"
            )


def without_pretrained(description: Any) -> Any:
    """The same description with `pretrained: false` throughout: nothing is downloaded, because weights are at hand."""
    if isinstance(description, Mapping):
        return {key: False if key == "pretrained" else without_pretrained(value) for key, value in description.items()}
    return [without_pretrained(item) for item in description] if isinstance(description, list) else description


def build(spec: Any, *positional: Any, trusted: bool = False) -> Any:
    """Make what `describe` wrote down.

    Args:
        spec: `{"class_path", "init_args"}`, with any nesting of the same inside `init_args`; other values are
            returned as they are.
        *positional: leading arguments that the description leaves open (a head's input size).
        trusted: allow classes outside of `ssl_audio`, such as an encoder of your own. Importing a module runs its code,
            and a config from elsewhere can name any module, so pass True only for configs whose origin you know.

    Raises:
        InputError: the class does not exist, may not be imported, or refuses its arguments.
    """
    if isinstance(spec, (list, tuple)):
        return [build(item, trusted=trusted) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    if "class_path" not in spec:
        return {key: build(value, trusted=trusted) for key, value in spec.items()}
    path = spec["class_path"]
    if not trusted and str(path).split(".")[0] != "ssl_audio":
        raise InputError(
            f"the config names the class {path!r}, which is not part of ssl_audio and would be imported and run; "
            "if you trust it, pass trusted=True, as in load_model(path, trusted=True), or --trusted to a command"
        )
    try:
        kind = find(str(path))
    except (InputError, ImportError) as error:
        raise InputError(f"unknown class {path!r} in the config: {error}") from error
    if not trusted and not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(
            f"the config names {path!r}, which is not a torch module; only modules are built from a config"
        )
    given = spec.get("init_args") or {}
    if not trusted:
        _refuse_code(kind, given)
    init_args = {key: build(value, trusted=trusted) for key, value in given.items()}
    try:
        return kind(*positional, **init_args)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:  # what constructors make of a value of another kind
        raise InputError(f"{path} cannot be built from {sorted(init_args)}: {error}") from error


def _refuse_code(kind: type, given: Mapping[str, Any]) -> None:
    """Raise InputError for a class of ours that would import what its arguments name, or that no config describes.

    `runs_code` of a class lists such arguments. `by_address` is true of classes that only an address makes.
    """
    if getattr(kind, "by_address", False):
        raise InputError(
            f"the config names {class_path(kind)}, which calls what is not part of ssl_audio; give its address to "
            "load_model instead of a config"
        )
    code = next((name for name in getattr(kind, "runs_code", ()) if given.get(name)), None)
    if code is not None:
        raise InputError(
            f"the config names code to import: {code} {given[code]!r} of {class_path(kind)}; "
            "pass trusted=True if you know where this config comes from"
        )
