"""What the site is made of besides docs/: files of the repository, the notebook, one reference page a room.

mkdocs calls the `on_` functions (see `hooks` in mkdocs.yml).
"""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"configs.md": "train_configs/README.md", "metadata.md": "metadata/README.md", "changelog.md": "CHANGELOG.md"}
NOTEBOOK = "examples/notebook.ipynb"
WITHOUT_PAGE = {"allocator", "saved", "cli", "commands", "version", "errors"}  # old names, and what is no interface


def rooms() -> list[str]:
    """The modules and packages of `ssl_audio` that have a reference page."""
    found = {
        path.stem for path in (ROOT / "ssl_audio").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    return sorted(name for name in found - WITHOUT_PAGE if not name.startswith("_"))


def on_config(config: Any) -> Any:
    """Add the reference to the navigation."""
    reference = [{"ssl_audio": "reference/ssl_audio.md"}, *({name: f"reference/{name}.md"} for name in rooms())]
    config.nav.insert(-2, {"Reference": reference})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    made = {name: (ROOT / source).read_text(encoding="utf-8") for name, source in PAGES.items()}
    made["tutorials/notebook.md"] = notebook(ROOT / NOTEBOOK)
    made["reference/ssl_audio.md"] = reference_of_the_package()
    made |= {f"reference/{name}.md": reference_of(name) for name in rooms()}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def reference_of(room: str) -> str:
    """A room: what its `__init__` exports, by the path that users write, then what else its modules define."""
    package = ROOT / "ssl_audio" / room
    parts = [f"# ssl_audio.{room}\n\n::: ssl_audio.{room}\n"]
    exported = exports(package / "__init__.py") if package.is_dir() else set()
    for path in sorted(package.rglob("*.py")) if package.is_dir() else ():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names = [name for name in defined(path) if name not in exported]
        if names and path != package / "__init__.py" and "._" not in module.removesuffix(".__init__"):
            module = module.removesuffix(".__init__")
            parts.append(
                f"\n## {module}\n\n::: {module}\n    options: {{members: [{', '.join(names)}], heading_level: 3}}\n"
            )
    return "".join(parts)


def exports(path: Path) -> set[str]:
    """The names in `__all__`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def defined(path: Path) -> list[str]:
    """The public classes and functions that a module defines and documents."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, kinds)]
    return [node.name for node in nodes if not node.name.startswith("_") and ast.get_docstring(node)]


def reference_of_the_package() -> str:
    """The public face: what `import ssl_audio` gives."""
    homes = ("hub.load.load_model", "hub.saved.save_model", "hub.push.push_to_hub", "model.EmbeddingModel")
    options = "    options: {show_root_heading: true, show_root_full_path: false}\n"
    parts = "".join(f"\n::: ssl_audio.{home}\n{options}" for home in homes)
    return f"# ssl_audio\n\nWhat `import ssl_audio` gives; everything is imported on first use.\n{parts}"


def notebook(path: Path) -> str:
    """The cells of a notebook as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def on_post_build(config: Any) -> None:
    """Refuse a site that would load anything from elsewhere."""
    found = [f"{page.name}: {address}" for page in Path(config.site_dir).rglob("*.html") for address in loaded(page)]
    if found:
        raise PluginError(f"pages load from elsewhere, so they need a network: {'; '.join(sorted(set(found))[:10])}")


def loaded(page: Path) -> list[str]:
    """The external addresses that a page loads when it is opened: scripts, styles, images, fonts, frames."""

    class Finder(HTMLParser):
        addresses: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag != "a":
                self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and _external(v)]

    finder = Finder()
    finder.addresses = []
    finder.feed(page.read_text(encoding="utf-8"))
    return finder.addresses


def _external(address: str | None) -> bool:
    return bool(re.match(r"\s*(https?:)?//", address or ""))
