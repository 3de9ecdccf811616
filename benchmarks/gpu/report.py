"""The results as JSON, and the table that people read."""

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import SECTIONS, Row
from ssl_audio.utils.files import write_text

RESULTS, TABLE = "results.json", "README.md"
COMMAND = "python -m benchmarks gpu --minutes 10 --output docs/gpu"


def read(output: Path) -> dict[str, Any] | None:
    """What an earlier run left: {"machine", "smoke", "rows": {name: result}}."""
    path = output / RESULTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write(output: Path, content: dict[str, Any], rows: list[Row]) -> None:
    """Both files, each whole or not at all."""
    write_text(output / RESULTS, json.dumps(content, indent=1) + "\n")
    write_text(output / TABLE, table(content, rows))


def table(content: dict[str, Any], rows: list[Row]) -> str:
    """The page: the machine, a table a section, and what was not measured with the reason."""
    machine = content["machine"]
    device, processor, code = machine["device"], machine["processor"], machine["code"] or {}
    name = device.get("name", "no accelerator: the CPU")
    lines = [
        "# On an accelerator",
        "",
        f"`{COMMAND}` wrote this page and [{RESULTS}]({RESULTS}), which holds all that identifies the machine.",
        "",
        f"- device: {name}" + (f", {device['memory_gb']} GB" if "memory_gb" in device else ""),
        f"- processor: {processor['name']}, {processor['cores']} cores; {machine['memory_gb']} GB memory",
        f"- torch {machine['packages']['torch']}, CUDA {machine['torch']['cuda']}; {machine['date']}; "
        f"commit {(code.get('commit') or 'unknown')[:12]}{' with changes' if code.get('changed_files') else ''}",
        "",
    ]
    if content["smoke"]:
        lines += ["**A smoke test: tiny sizes, to see that every row runs. The figures mean nothing.**", ""]
    missing: dict[str, list[str]] = {}
    for section, title in SECTIONS.items():
        figures: list[dict[str, Any]] = []
        for row in rows:
            if row.section != section:
                continue
            result = content["rows"].get(row.name, {"status": "not run"})
            if result["status"] == "done":
                figures += result["figures"]
            else:
                reason = f"{result['status']}{': ' + result['error'] if 'error' in result else ''}"
                missing.setdefault(reason, []).append(row.name)
        if figures:
            lines += [f"## {title}", "", "| what | figure | memory | goal | note |", "|---|---:|---:|---|---|"]
            lines += [_line(figure) for figure in figures] + [""]
    if missing:
        lines += ["## Not measured", ""]
        lines += [f"- {reason}: {', '.join(names)}" for reason, names in missing.items()] + [""]
    return "\n".join(lines)


def _line(figure: dict[str, Any]) -> str:
    memory = "" if figure["memory_gb"] is None else f"{figure['memory_gb']:.1f} GB"
    goal = figure["goal"] + {True: ": met", False: ": **missed**", None: ""}[figure["met"]]
    return f"| {figure['what']} | {_number(figure['value'])} {figure['unit']} | {memory} | {goal} | {figure['note']} |"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}" if 0.9 < value <= 1 else f"{value:.3g}"
