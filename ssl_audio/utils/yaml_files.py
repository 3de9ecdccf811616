"""Reading of YAML: scalars as in YAML 1.2, an error for a duplicate key, errors in one line."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from ssl_audio.errors import InputError


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a file. An empty file gives an empty mapping.

    Raises:
        InputError: the file is missing, is not YAML, or holds something else than a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid YAML ({error}); save it in UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    content = parse_yaml(text, f"{path}:")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not keys with values")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text.

    Args:
        text: YAML.
        where: the start of the message if it is not YAML.

    Raises:
        InputError: the text is not YAML, or a key is given twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise InputError(f"{where} not valid YAML ({' '.join(str(error).split())})") from error


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does: dates, 12:30, 0123, 1_000, yes and no are text, 1e-4 is a number.

    Merge keys (`<<: *name`) work. A key that is given twice is refused.
    """

    yaml_implicit_resolvers = {}  # type: ignore[misc] # noqa: RUF012  # without those of YAML 1.1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+|[-+]?([0-9]+\.[0-9]*|\.[0-9]+)"
     r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.lstrip("+"))
    base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
