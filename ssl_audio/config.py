"""Modules as data: `describe` gives `{"class_path": ..., "init_args": {...}}`, and `build` makes the module again.

The `config.yaml` of a saved model and the config of a run hold such descriptions. For this to work, every frontend,
encoder, pooling and head stores each constructor argument under its own name, as in scikit-learn.

Example:
    >>> from ssl_audio.heads import Projection
    >>> description = describe(Projection(1000, 128))
    >>> description
    {'class_path': 'ssl_audio.heads.Projection', 'init_args': {'in_dim': 1000, 'dim': 128, 'normalize': True}}
    >>> build(description).dim
    128
"""

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from ssl_audio.errors import InputError, first_line, suggest

MOVED: dict[str, str] = {
    "ssl_audio.evaluation.baselines.MelStatistics": "ssl_audio.baselines.MelStatistics",
    "ssl_audio.methods.base.SiameseMethod": "ssl_audio.methods.SiameseMethod",
    # The module of 0.1.0 is a package now; its fingerprints hold these paths.
    "ssl_audio.frontends.MelSpectrogram": "ssl_audio.frontends.mel.MelSpectrogram",
    "ssl_audio.frontends.LogMelSpectrogram": "ssl_audio.frontends.mel.LogMelSpectrogram",
    "ssl_audio.frontends.DecibelMelSpectrogram": "ssl_audio.frontends.mel.DecibelMelSpectrogram",
    "ssl_audio.frontends.Waveform": "ssl_audio.frontends.base.Waveform",
}
"""Old path of a class -> its present path. Saved models contain the old one, so entries are never removed."""

ADDED: dict[str, dict[str, Any]] = {
    "ssl_audio.heads.MLP": {"parts": 1},
    "ssl_audio.frontends.MelSpectrogram": {"edges": "reflect"},
    "ssl_audio.EmbeddingModel": {"level": "none", "level_in_forward": True},
    "ssl_audio.resampling.ResampledFrontend": {"zero_crossings": 32, "rolloff": 0.97},
}
"""Class path -> {argument added after 0.1.0: the value with which the class behaves as before}.

`identity` leaves out an argument with this value, so that a model keeps its fingerprint when its class gets a new
argument. Entries are never removed.
"""


def class_path(kind: type) -> str:
    """The public path of a class: that of the outermost package which exports it.

    Example:
        >>> from ssl_audio.encoders.compact_cnn import CompactCNN
        >>> class_path(CompactCNN)
        'ssl_audio.encoders.CompactCNN'
    """
    parts = kind.__module__.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(sys.modules.get(package), kind.__qualname__, None) is kind:
            return f"{package}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def find(path: str) -> Any:
    """The object that a class path names, also a path of an earlier release.

    Raises:
        InputError: there is no such module, or no such name in it. The message suggests the nearest name.
        ModuleNotFoundError: the module needs a package that is not installed.
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


def accepted_arguments(kind: Any) -> list[str] | None:
    """Names of a class's arguments, with those that `**kwargs` passes to its bases; None if they are not known."""
    parameters, complete = _parameters(kind)
    return list(parameters) if complete else None


def required_arguments(kind: Any) -> list[str]:
    """Names of a class's arguments that have no default."""
    return [name for name, parameter in _parameters(kind)[0].items() if parameter.default is parameter.empty]


def _parameters(kind: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """A class's arguments with those of its bases that it passes on, and whether these are all."""
    if not inspect.isclass(kind):
        return dict(inspect.signature(kind).parameters), True
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        if base is object:
            return found, True
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for p in parameters:
            if p.name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, p)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return found, True
    return found, False


def canonical_path(path: str) -> str:
    """The same path for all paths of one class. A path that names no class is returned unchanged."""
    try:
        kind = find(path)
    except (InputError, ImportError):
        return path
    return class_path(kind) if isinstance(kind, type) else MOVED.get(path, path)


def canonical(description: Any) -> Any:
    """The description with canonical class paths, so that equal models have equal descriptions."""
    if isinstance(description, Mapping):
        return {
            key: canonical_path(value) if key == "class_path" and isinstance(value, str) else canonical(value)
            for key, value in description.items()
        }
    return [canonical(item) for item in description] if isinstance(description, (list, tuple)) else description


def identity(description: Any) -> Any:
    """The canonical description without the arguments of `ADDED` that have their neutral value."""
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
    """The class path and the constructor arguments of a module; nested modules are described too.

    Args:
        module: module to describe.
        outside: also describe parts that stay outside the package (`encoders.outside`) and cannot be rebuilt.

    Raises:
        InputError: the module could not be rebuilt: it does not store an argument under its own name, or, without
            `outside`, a part stays outside the package.
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


def missing_arguments(description: Any) -> list[str]:
    """Arguments of classes of ours that a description leaves to their defaults, as `class.argument`.

    `describe` writes all of them. Those of `ADDED` are not listed.
    """
    if isinstance(description, (list, tuple)):
        return [name for item in description for name in missing_arguments(item)]
    if not isinstance(description, Mapping):
        return []
    given = description.get("init_args") or {} if "class_path" in description else description
    found = []
    path = canonical_path(str(description.get("class_path", "")))
    if path.startswith("ssl_audio."):
        known = {"self", *given, *ADDED.get(path, {})}
        for name, parameter in inspect.signature(find(path).__init__).parameters.items():
            if name not in known and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.append(f"{path.rpartition('.')[2]}.{name}")
    return found + [name for value in given.values() for name in missing_arguments(value)]


def refuse_outside(module: nn.Module, action: str) -> None:
    """Raise InputError if a part of the module stays outside the package, so that the action is impossible.

    Args:
        module: module to check.
        action: past participle for the message, such as "saved".
    """
    for part in module.modules():
        if getattr(part, "outside", None) is not None:
            raise InputError(
                f"{part.origin} cannot be {action}: it stays where it is and is only called; give this address "
                "wherever a model is asked for"
            )


def without_pretrained(description: Any) -> Any:
    """The description with `pretrained: false` throughout, for a model whose weights are loaded afterwards."""
    if isinstance(description, Mapping):
        return {key: False if key == "pretrained" else without_pretrained(value) for key, value in description.items()}
    return [without_pretrained(item) for item in description] if isinstance(description, list) else description


def build(spec: Any, *positional: Any, trusted: bool = False) -> Any:
    """Construct the module that a description describes.

    Args:
        spec: `{"class_path": ..., "init_args": ...}`; `init_args` may contain further descriptions. Any other value is
            returned unchanged.
        *positional: first arguments of the constructor, which the description lacks (the input size of a head).
        trusted: allow classes outside `ssl_audio`. A config can name any importable class, and importing one runs its
            code; so set this only for configs whose origin you know.

    Raises:
        InputError: the class does not exist, is not allowed, or refuses its arguments.
    """
    if isinstance(spec, (list, tuple)):
        return [build(item, trusted=trusted) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    if "class_path" not in spec:
        return {key: build(value, trusted=trusted) for key, value in spec.items()}
    path = spec["class_path"]
    if not isinstance(path, str):
        raise InputError(f"a class_path in the config is {path!r}; it must be the full name of a class")
    if not isinstance(spec.get("init_args") or {}, Mapping):
        raise InputError(f"the init_args of {path} in the config must be names with values, not {spec['init_args']!r}")
    if not trusted and str(path).split(".")[0] != "ssl_audio":
        raise InputError(
            f"the config names the class {path!r}, which is not part of ssl_audio; "
            "if you know its origin, pass trusted=True, as in load_model(path, trusted=True), or --trusted to a command"
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
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError) as error:
        # raised by constructors for a value of a wrong type or range
        raise InputError(f"{path} cannot be built from {sorted(init_args)}: {first_line(error)}") from error


def _refuse_code(kind: type, given: Mapping[str, Any]) -> None:
    """Refuse a class of ours that would import code by the name in its arguments, or that only an address may create.

    The attribute `runs_code` of a class lists such arguments. `by_address` is true for classes of the second kind.

    Raises:
        InputError: the class or an argument is refused.
    """
    if getattr(kind, "by_address", False):
        raise InputError(
            f"the config names {class_path(kind)}, which calls code outside ssl_audio; give its address to "
            "load_model instead of a config"
        )
    code = next((name for name in getattr(kind, "runs_code", ()) if given.get(name)), None)
    if code is not None:
        raise InputError(
            f"the config names code to import: {code} {given[code]!r} of {class_path(kind)}; "
            "pass trusted=True if you know the origin of this config"
        )
