"""How stacked configs become one.

Merging is deep, so that a later file has only what it changes:

- a mapping is merged key by key; any other value, lists included, is replaced;
- a mapping over a list of classes changes the items of these names: `transforms: {GaussianNoise: {p: 0.3}}`. The name
  of an item is that of its class; the second item of a class is called `GaussianNoise_2`. `null` takes an item away,
  and a new name with a `class_path` adds one at the end;
- a `class_path` that changes drops the `init_args` of the class before. Under `model` and `data` it keeps what both
  classes share, in whatever order the files come (see `merge_all`);
- where the class is already named, its arguments may be given directly: `data: {batch_size: 8}` is
  `data: {init_args: {batch_size: 8}}`.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssl_audio.config import accepted_arguments, canonical_path, find
from ssl_audio.errors import InputError, suggest

Config = dict[str, Any]

SPEC = {"class_path", "init_args", "dict_kwargs"}


def merge_all(contents: Sequence[Config]) -> Config:
    """Merge configs in order. Two rules look at all of them at once, so that their order matters less:

    - `model` and `data` have the last class that is named. What a config gives to another class counts where both
      classes share the argument: for methods, an argument of the class that both derive from (frontend, encoder, ...);
      for data, any argument of both. What comes before any class counts for each method, and is meant for the first
      data module.
    - A config that sets `data.sample_rate` and `model.frontend.sample_rate` sets them for each other. Where another
      config has changed the rate of the data, its rate of the frontend does not count.
    """
    contents = [copy.deepcopy(content) for content in contents]
    for section in ("model", "data"):
        _keep_shared(contents, section)
    rates = [_argument(content, "data", "sample_rate") for content in contents]
    final = next((rate for rate in reversed(rates) if rate is not None), None)
    for content, rate in zip(contents, rates, strict=True):
        frontend = _argument(content, "model", "frontend")
        if rate not in (None, final) and isinstance(frontend, Mapping):
            for place in (frontend, frontend.get("init_args")):
                if isinstance(place, dict):
                    place.pop("sample_rate", None)
    config: Config = {}
    for content in contents:
        config = merge(config, content)
    return config


def _argument(content: Mapping, section: str, name: str) -> Any:
    """An argument that a config gives to `model` or `data`, below `init_args` or directly; None if it does not."""
    spec = content.get(section)
    if not isinstance(spec, Mapping):
        return None
    given = spec.get("init_args")
    return given[name] if isinstance(given, Mapping) and name in given else spec.get(name)


def _keep_shared(contents: Sequence[Config], section: str) -> None:
    """Give each config the last class of a section, with the arguments that this class shares with the one it meant."""
    for content in contents:
        if isinstance(content.get(section), str) and "." in content[section]:
            content[section] = {"class_path": content[section]}
    specs = [content[section] for content in contents if isinstance(content.get(section), dict)]
    named = [str(spec["class_path"]) for spec in specs if "class_path" in spec]
    if len({canonical_path(path) for path in named}) < 2:
        return
    last, current = named[-1], named[0] if section == "data" else ""
    for spec in specs:
        current = str(spec.get("class_path", current))
        if not current or _same_class(current, last):
            continue
        dropped = _not_shared(section, current, last)
        for place in (spec, spec.get("init_args")):
            if isinstance(place, dict):
                for name in dropped & place.keys():
                    del place[name]
        if "class_path" in spec:
            spec["class_path"] = last


def _not_shared(section: str, given: str, last: str) -> set[str]:
    """The arguments of the class `given` that say nothing about the class `last`; none if either is not known."""
    try:
        kinds = [find(path) for path in (given, last)]
    except (InputError, ImportError):  # reported later, with the key
        return set()
    own = accepted_arguments(kinds[0])
    if section == "model":
        bases = [kind for kind in kinds[0].__mro__ if kind in kinds[1].__mro__ and "__init__" in vars(kind)]
        shared = accepted_arguments(bases[0])
    else:
        shared = accepted_arguments(kinds[1])
    return set() if own is None or shared is None else set(own) - set(shared)


def merge(base: Any, over: Any) -> Any:
    """`base` overridden by `over`, by the rules above; neither is changed.

    Raises:
        InputError: a mapping changes an item that a list of classes does not have.
    """
    if isinstance(base, list) and isinstance(over, Mapping) and _names(base):
        return _merge_items(base, over)
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        if isinstance(base, Mapping) and "class_path" in base and isinstance(over, str) and "." in over:
            over = {"class_path": over}  # --model ssl_audio.methods.VICReg
        else:
            return copy.deepcopy(over)
    if "class_path" in over and "class_path" in base and not _same_class(over["class_path"], base["class_path"]):
        return copy.deepcopy(dict(over))
    if "class_path" in base:
        direct = {key: value for key, value in over.items() if key not in SPEC}
        if direct:
            over = {key: value for key, value in over.items() if key in SPEC}
            over["init_args"] = merge(direct, over.get("init_args") or {})
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        if key == "init_args" and value is None:  # a section without content changes nothing
            continue
        merged[key] = merge(merged[key], value) if key in merged else copy.deepcopy(value)
    return merged


def _merge_items(items: Sequence[Mapping], over: Mapping) -> list[Any]:
    named = dict(zip(_names(items), items, strict=True))
    for name, value in over.items():
        if name in named:
            named[name] = merge(named[name], value)
        elif value is not None:
            if not isinstance(value, Mapping) or "class_path" not in value:
                raise InputError(f"{name} is not in the list{suggest(str(name), named)}; it has {', '.join(named)}")
            named[name] = copy.deepcopy(value)
    return [item for item in named.values() if item is not None]


def _names(items: Iterable[Any]) -> list[str]:
    """The names of the items of a list of classes; an empty list for any other."""
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        if not isinstance(item, Mapping) or "class_path" not in item:
            return []
        name = str(item["class_path"]).rpartition(".")[2]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def _same_class(path: Any, other: Any) -> bool:
    return path == other or canonical_path(str(path)) == canonical_path(str(other))
