"""Runs the blocks of a documentation page as a reader would, one after the other in one folder.

```python```                  runs in one namespace a page
```python title="x.py"```     is written to x.py, likewise other languages
```console```                 `ssl-audio ...` and `python SCRIPT.py ...`, line by line; other languages are only shown
"""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY

from ssl_audio import cli

DOCS = REPOSITORY / "docs"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, title or "", text) of each block, included files in their place."""
    text = re.sub(
        r'--8<-- "([^"]+)"', lambda found: (REPOSITORY / found[1]).read_text(), page.read_text(encoding="utf-8")
    )
    return [(language, title or "", body) for language, title, body in _BLOCK.findall(text)]


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The folder as working folder, in which modules are found; what was imported from it is forgotten afterwards."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def run_page(page: Path, folder: Path) -> dict[str, Any]:
    """Run all blocks in the folder; returns the namespace of the Python blocks."""
    namespace: dict[str, Any] = {"__name__": "page"}
    with working_in(folder):
        for number, (language, title, text) in enumerate(blocks(page), 1):
            if title:
                Path(title).write_text(text, encoding="utf-8")
            elif language == "python":
                exec(compile(text, f"{page.name}, block {number}", "exec"), namespace)
            elif language == "console":
                for line in text.replace("\\\n", " ").splitlines():
                    run_command(line)
    return namespace


def run_command(line: str) -> None:
    """One line of a console block, in this process."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "python":
        name = {"preprocess_dataset.py": "preprocess", "create_speaker_pairs.py": "pairs"}.get(words[1])
        words = ["ssl-audio", name or words[1].removesuffix(".py"), *words[2:]]
    assert words[0] == "ssl-audio", f"{line}: only commands of this package are run"
    assert cli.main(words[1:]) == 0, line
