"""`${data.sample_rate}` in a config: the value of another key."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from ssl_audio.errors import InputError

_REFERENCE = re.compile(r"\$\{([^${}]*)\}")
_MISSING = object()


def interpolate(config: dict[str, Any]) -> dict[str, Any]:
    """The config with each `${a.b.c}` replaced by the value of that key, `init_args` implied.

    A string that is one reference gets the value with its type; within other text, the value is written out.

    >>> interpolate({"data": {"init_args": {"rate": 8000}}, "x": ["${data.rate}", "at ${data.rate}"]})
    {'data': {'init_args': {'rate': 8000}}, 'x': [8000, 'at 8000']}

    Raises:
        InputError: there is no such key, or a reference leads back to itself.
    """
    return _resolved(config, config, ())


def _resolved(value: Any, config: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolved(item, config, above) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, config, above) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    if whole := _REFERENCE.fullmatch(value):
        return _value(whole[1].strip(), config, above)
    return _REFERENCE.sub(lambda found: str(_value(found[1].strip(), config, above)), value)


def _value(key: str, config: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if key in above:
        raise InputError(f"${{{key}}} leads back to itself, by way of {', '.join(above)}; write its value")
    if ":" in key:
        remedy = 'for an environment variable, give the key on the command line: --KEY "$NAME"'
        raise InputError(f"${{{key}}}: only keys of the config are read; {remedy}")
    found: Any = config
    for part in key.split("."):
        if isinstance(found, Mapping) and part not in found:
            found = found.get("init_args")
        found = found.get(part, _MISSING) if isinstance(found, Mapping) else _MISSING
    if found is _MISSING:
        raise InputError(f"${{{key}}}: no stacked file sets {key}; set it, or write the value instead")
    return _resolved(copy.deepcopy(found), config, (*above, key))
