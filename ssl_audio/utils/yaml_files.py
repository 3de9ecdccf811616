"""Reading of YAML: numbers as in YAML 1.2, an error for a duplicate key, errors in one line."""

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
        raise InputError(f"{path}: not valid YAML ({error})") from error
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
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{where} not valid YAML ({' '.join(str(error).split())})") from error


class _Loader(yaml.SafeLoader):
    """Reads numbers as in YAML 1.2 (PyYAML takes `1e-4` for text), and refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)
