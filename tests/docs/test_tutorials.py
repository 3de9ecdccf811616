"""The tutorials, the notebook and the examples run as they stand."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib
import pyarrow.parquet as pq
import pytest
from helpers import REPOSITORY
from pages import DOCS, blocks, run_page, working_in

from ssl_audio.data.synthetic import write_dataset

TUTORIALS = DOCS / "tutorials"
EXAMPLES = REPOSITORY / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which a reader has followed the first tutorial."""
    folder = tmp_path_factory.mktemp("reader")
    run_page(TUTORIALS / "singer_embeddings.md", folder)
    return folder


def test_singer_embeddings(trained):
    assert (trained / "runs/contrastive/0/checkpoints/last.ckpt").is_file()
    assert "contrastive-0" in (trained / "metadata/eer_123.csv").read_text()
    assert pq.read_table(trained / "embeddings.parquet").num_rows == 32


def test_similar_sounds(trained, capsys):
    page = run_page(TUTORIALS / "similar_sounds.md", trained)
    assert page["index"].recommend(trained / "voices/low-000/song-01.wav", n=3)
    assert (trained / "map.html").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert printed.count("voices/") >= 3 and "precision" in printed


def test_tagging(trained, capsys):
    page = run_page(TUTORIALS / "tagging.md", trained)
    assert page["model"].head.classes == ["high", "low"]
    assert {path.suffix for path in (trained / "tags").iterdir()} == {".png", ".json"}
    assert "untrained" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["own_data", "own_encoder", "own_loss", "plain_pytorch"])
def test_a_tutorial_runs(name, tmp_path, capsys):
    run_page(TUTORIALS / f"{name}.md", tmp_path)
    printed = capsys.readouterr().out
    if name == "own_encoder":
        assert "the config names the class 'my_encoder.Recurrent'" in printed and "(32,)" in printed
    if name == "plain_pytorch":
        losses = [float(line.split("loss ")[1].split(",")[0]) for line in printed.splitlines() if "loss " in line]
        assert losses[-1] < 0.9 * losses[0]


def test_every_tutorial_is_among_them():
    tried = {"singer_embeddings", "similar_sounds", "tagging", "own_data", "own_encoder", "own_loss", "plain_pytorch"}
    assert {path.stem for path in TUTORIALS.glob("*.md")} == tried


def test_the_notebook_runs_from_top_to_bottom_and_keeps_no_output(tmp_path, capsys):
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    backend, namespace = matplotlib.get_backend(), {"__name__": "__main__"}
    matplotlib.use("Agg")
    try:
        with working_in(tmp_path):
            for number, cell in enumerate(cells):
                if cell["cell_type"] == "code":
                    assert not cell["outputs"]
                    exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
    finally:
        namespace["plt"].close("all")
        matplotlib.use(backend)
    assert namespace["losses"][-1] < 0.7 * namespace["losses"][0]
    assert len(namespace["index"].recommend(tmp_path / namespace["files"][0], n=3)) == 3


def test_a_network_of_another_package_is_wrapped_trained_saved_and_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)  # as `python examples/own_encoder.py` has it
    with working_in(tmp_path):
        runpy.run_path(str(EXAMPLES / "own_encoder.py"), run_name="__main__")
    assert capsys.readouterr().out.endswith("loaded again: the same 256 numbers for the same clip\n")


def test_the_installed_command_finds_a_class_in_the_folder_where_it_is_typed(tmp_path):
    """As the tutorial says; in a process, because `python train.py` and a test have more on their path."""
    for _, title, text in blocks(TUTORIALS / "own_encoder.md"):
        if title:
            (tmp_path / title).write_text(text)
    list(write_dataset(tmp_path / "voices", n_singers=10, n_songs=2, seconds=2))
    command = [Path(sys.executable).with_name("ssl-audio"), "train"]
    words = [
        "--config",
        "common",
        "--config",
        "contrastive",
        "--config",
        "recurrent.yaml",
        "--trainer.enable_progress_bar",
        "false",
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    words = ["embed", "voices", "--model", "runs/contrastive/0", "--trusted", "--output", "table.npz"]
    done = subprocess.run([command[0], *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "table.npz").is_file(), done.stderr[-2000:]
    assert "class_path: my_encoder.Recurrent" in (tmp_path / "runs/contrastive/0/config.yaml").read_text()
