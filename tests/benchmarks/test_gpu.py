"""`python -m benchmarks gpu`: every kind of row on a CPU, resuming, rows that hang or take their process with them."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from helpers import REPOSITORY

from benchmarks.gpu import machine, report
from benchmarks.gpu.command import main
from benchmarks.gpu.figures import Figure, Setting
from benchmarks.gpu.rows import METHODS, NOT_TIMED, SECTIONS, Row, rows
from benchmarks.gpu.worker import Worker

pytest.importorskip("pytorch_lightning")


def command(*arguments):
    words = [sys.executable, "-m", "benchmarks", "gpu", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, env=environment, timeout=580)


@pytest.mark.slow
def test_every_kind_of_row_runs_on_a_cpu_and_once_only(tmp_path, capsys):
    done = command("--smoke", "--output", tmp_path)
    log = (tmp_path / "log.txt").read_text() if (tmp_path / "log.txt").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log[-2000:]
    content = json.loads((tmp_path / "results.json").read_text())
    expected = [row.name for row in rows() if row.in_smoke]
    assert list(content["rows"]) == expected  # most important first
    assert {result["status"] for result in content["rows"].values()} == {"done"}
    assert content["smoke"] and content["machine"]["packages"]["torch"] and content["machine"]["processor"]["cores"]
    page = (tmp_path / "README.md").read_text()
    assert all(f"## {title}" in page for title in SECTIONS.values()) and "The figures mean nothing" in page
    for figures in (result["figures"] for result in content["rows"].values()):
        assert figures and all(figure["value"] > 0 for figure in figures)

    smoke = ["--smoke", "--output", str(tmp_path)]
    assert main(smoke) == 0 and len(capsys.readouterr().out.splitlines()) == 1  # nothing was left to do
    del content["rows"][expected[-1]]
    content["rows"]["nearest"] = {"status": "timed out", "seconds": 1.0}
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert main([*smoke, "--only", "nearest"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("nearest: ") and "1 not run" in out

    content["machine"]["device"]["name"] = "another"
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert main(smoke) == 2
    error = capsys.readouterr().err
    assert "another machine" in error and "--restart" in error


def test_without_a_device_only_a_smoke_test_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--output", str(tmp_path)]) == 2
    assert "--smoke" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_no_row_starts_when_the_time_is_up(tmp_path, capsys):
    assert main(["--smoke", "--minutes", "0", "--output", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    assert "- not run: " in page and all(row.name in page for row in rows() if row.in_smoke)


# --- rows that the worker meets below; it finds them by their dotted path


def good(setting, value):
    return [Figure("good", value, "items/s")]


def sleeps(setting):
    time.sleep(600)


def dies(setting):
    os._exit(3)


def fails(setting):
    raise ValueError("two\nlines")


def lacks(setting):
    import a_package_that_nobody_has  # noqa: F401


@pytest.mark.slow
def test_a_row_that_hangs_dies_or_fails_is_one_lost_row(tmp_path):
    worker = Worker(Setting("cpu", True, tmp_path, 1), tmp_path / "log.txt")

    def run(name, limit=60.0, **arguments):
        return worker.run(Row(name, "step", f"{__name__}.{name}", arguments), limit)

    try:
        assert run("good", value=3.0)["figures"][0]["value"] == 3.0
        result = run("sleeps", 0.5)
        assert result["status"] == "timed out" and result["seconds"] < 30
        assert run("good", value=4.0)["status"] == "done"
        assert run("dies")["error"] == "the process ended; see log.txt"
        assert run("fails") | {"seconds": 0} == {"status": "failed", "error": "ValueError: two", "seconds": 0}
        assert run("lacks")["error"] == "needs a_package_that_nobody_has, which is not installed"
        assert run("good", value=5.0)["status"] == "done"
    finally:
        worker.close()


def test_rows_have_names_of_their_own_and_methods_are_configs():
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names) and {row.section for row in rows()} == set(SECTIONS)
    folder = REPOSITORY / "train_configs"
    trained = {p.stem for p in folder.glob("*.yaml") if "class_path" in (_read(p).get("model") or {})}
    assert trained <= {*METHODS, *NOT_TIMED, "demo"}, "a method of train_configs is missing in benchmarks.gpu.rows"


def _read(path):
    return yaml.safe_load(path.read_text()) or {}


def test_the_table_says_what_was_met_missed_and_not_run():
    listed = [Row("a", "step", ""), Row("b", "step", ""), Row("c", "disk", ""), Row("d", "disk", "")]
    figures = [
        Figure("fits", 12.0, "items/s", 23.4, "24 GB", True, "note"),
        Figure("slow", 45678.0, "times", None, "90 %", False),
        Figure("cosine", 0.99912345, ""),
    ]
    results = {
        "a": {"status": "done", "seconds": 1, "figures": [vars(figure) for figure in figures]},
        "b": {"status": "failed", "seconds": 1, "error": "OutOfMemoryError: no"},
        "c": {"status": "timed out", "seconds": 1},
    }
    about = machine.describe("cpu")
    page = report.table({"machine": about, "smoke": False, "rows": results}, listed)
    assert "| fits | 12 items/s | 23.4 GB | 24 GB: met | note |" in page
    assert "| slow | 45,678 times |  | 90 %: **missed** |  |" in page and "| cosine | 0.999123  |" in page
    assert "- failed: OutOfMemoryError: no: b" in page and "- timed out: c" in page and "- not run: d" in page
    assert "mean nothing" not in page and machine.same(about, machine.describe("cpu"))
