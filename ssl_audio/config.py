"""Modules as data: `{"class_path": ..., "init_args": {...}}`, without Lightning or jsonargparse.

Convention (scikit-learn's): every frontend, encoder, pooling and head stores each constructor argument under its own
name, so that `describe` can write it down and `build` can make it again. This is what `config.yaml` of a saved model
holds, and what a run's resolved config holds for the same keys.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from ssl_audio.errors import InputError


def describe(module: nn.Module) -> dict[str, Any]:
    """The class path and constructor arguments of a module, nested modules described in turn.

    Raises:
        InputError: an argument is not stored under its own name, so the module could not be rebuilt.
    """
    kind = type(module)
    init_args = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            raise InputError(
                f"{kind.__qualname__} does not store its argument {name!r} as an attribute, so it cannot be saved; "
                f"add 'self.{name} = {name}' to its __init__"
            )
        init_args[name] = _describe_value(getattr(module, name))
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}


def _describe_value(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return describe(value)
    if isinstance(value, (list, tuple)):
        return [_describe_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _describe_value(item) for key, item in value.items()}
    return value


def build(spec: Any, *positional: Any, trusted: bool = False) -> Any:
    """Make what `describe` wrote down.

    Args:
        spec: `{"class_path", "init_args"}`, with any nesting of the same inside `init_args`; other values are
            returned as they are.
        *positional: leading arguments that the description leaves open (a head's input size).
        trusted: allow classes outside `ssl_audio`. A config from elsewhere can name any importable
            class, so this is off unless the user wrote the config.

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
    module_name, _, class_name = path.rpartition(".")
    if not trusted and module_name.split(".")[0] != "ssl_audio":
        raise InputError(
            f"the config names the class {path!r}, which is not part of ssl_audio; "
            "pass trusted=True if you know where this config comes from"
        )
    try:
        kind = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"unknown class {path!r} in the config: {error}") from error
    if not trusted and not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(
            f"the config names {path!r}, which is not a torch module; only modules are built from a config"
        )
    init_args = {key: build(value, trusted=trusted) for key, value in (spec.get("init_args") or {}).items()}
    try:
        return kind(*positional, **init_args)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:  # what constructors make of a value of another kind
        raise InputError(f"{path} cannot be built from {sorted(init_args)}: {error}") from error
