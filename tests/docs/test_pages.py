"""The tables of the documentation name everything that exists, and their figures are those of docs/results.md."""

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest
import soundfile
from helpers import REPOSITORY, tone
from loopback_hub import Repository, loopback_hub
from pages import DOCS

from ssl_audio import encoders, losses, methods
from ssl_audio.cli import COMMANDS
from ssl_audio.data.corpora import CORPORA
from ssl_audio.encoders import EfficientNet
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.singer_identity import save_published
from ssl_audio.model import EmbeddingModel
from ssl_audio.training.arguments import read_arguments
from ssl_audio.training.config import load_config
from ssl_audio.training.config_files import packaged_configs

LOSSES = [name for name in losses.__all__ if name.endswith(("_loss", "_cosines"))]  # others help them


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def block(text: str, name: str) -> str:
    found = re.search(rf"<!-- test: {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"no block is marked {name}"
    return found[1]


def test_the_figures_are_what_their_code_draws():
    draw = importlib.import_module("draw_figures")
    assert {path.stem for path in draw.FOLDER.glob("*.*")} == set(draw.FIGURES)
    for name, function in draw.FIGURES.items():
        assert (draw.FOLDER / f"{name}.svg").read_text(encoding="utf-8") == function(), (
            "run python docs/draw_figures.py"
        )


def test_the_page_of_methods_has_every_method_loss_encoder_and_config():
    text = page("methods")
    abstract = {"SiameseMethod", "Method", "Objective", "Encoder", "Joined", "NearestMean", "Views"}
    abstract |= {"Whitened", "Whitening"}
    for name in {*methods.__all__, *LOSSES, *encoders.__all__} - abstract:
        assert f"`{name}`" in text, name
    stacked = [name for name in packaged_configs() if "/" not in name and name not in ("common", "demo")]
    for name in [*stacked, *(name for name in packaged_configs() if name.startswith("encoder/"))]:
        assert re.search(rf"\| ([^|\n]*, )?`{name}`(, [^|\n]*)? \|", text), name


def test_the_architecture_names_every_room():
    found = {path.stem: path for path in (REPOSITORY / "ssl_audio").iterdir() if path.suffix in ("", ".py")}
    old = {"allocator", "saved"}
    for name, path in found.items():
        if not name.startswith("_") and name not in old:
            assert f"`{name}{'/' if path.is_dir() else '.py'}`" in page("architecture"), name


def test_every_loss_is_cited():
    assert [name for name in LOSSES if f"`{name}" not in page("citations")] == []


@pytest.mark.parametrize("name", ["methods", "pretrained"])
def test_our_figures_are_those_of_the_results(name):
    """A figure of ours is .123 or a percentage; what papers report has a column of its own."""
    text = page(name)
    found = {figure for pair in re.findall(r"EER (\.\d+) \(voices\), (\.\d+) \(singing\)", text) for figure in pair}
    if name == "methods":
        found |= set(re.findall(r"(?:[:d] )(\.\d+|\d+\.\d)(?: %|\)| \()", text))
        assert {"68.8", "42.2", "72.0", "52.8", ".649", ".432"} <= found
    assert len(found) >= 8
    for figure in found:
        assert re.search(rf"(?<![\d.])0?{re.escape(figure)}(?!\d)", page("results")), figure


def test_the_page_of_corpora_has_every_reader_and_every_data_config():
    text = page("datasets")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {*CORPORA, "csv"}
    for row in rows:
        assert len([cell for cell in row.strip("|").split("|") if cell.strip()]) == 5, row  # link, layout, licence
    other = {name for name in packaged_configs() if name.startswith("data/")} - {f"data/{name}" for name in CORPORA}
    assert {name for name in other if f"`{name}`" not in text} == {"data/shards-plain"}  # what data/shards stands on
    assert "VCTK" in text and "NUS-48E" in text


@pytest.fixture
def reader(tmp_path):
    """A folder with two recordings, and a hub that has the published model."""
    for name, frequency in (("one", 220.0), ("other", 330.0)):
        soundfile.write(tmp_path / f"{name}.wav", tone(0.5, 44100, frequency), 44100)
    model = EmbeddingModel(LogMelSpectrogram(), EfficientNet(), level="peak", level_in_forward=False).eval()
    save_published(model, tmp_path / "published")
    with loopback_hub() as hub:
        files = {f"byol/{path.name}": path.read_bytes() for path in (tmp_path / "published").iterdir()}
        hub.repositories["BernardoTorres/singer-identity"] = Repository(files)
        yield tmp_path, hub


@pytest.mark.slow
def test_the_ten_lines_of_python_run(reader):
    folder, hub = reader
    code = block(page("index"), "python")
    assert len([line for line in code.splitlines() if line]) <= 10
    (folder / "ten.py").write_text(code + "assert one.shape == (1000,) and batch.shape == (2, 1000)\n")
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "ten.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("cosine "), done.stderr[-2000:]


def test_the_ten_lines_of_shell_are_commands_with_options_that_exist():
    install, *lines = block(page("index"), "shell").splitlines()
    assert len(lines) == 9 and install.startswith("pip install")
    for line in lines:
        program, name, *words = shlex.split(line)
        assert program == "ssl-audio" and name in COMMANDS
        command = importlib.import_module(f"ssl_audio.commands.{name}")
        if name == "train":
            found = read_arguments(words)
            assert load_config(found.files, found.overrides)["data"]["init_args"]["dataset_dirs"] == ["voices"]
            continue
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        parser.parse_args(words)


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    """In a process, as `make docs` does; docs/hooks.py refuses pages that load from another address."""
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    hooks = importlib.import_module("hooks")
    for room in hooks.rooms():
        text = (tmp_path / "site" / "reference" / f"{room}.html").read_text(encoding="utf-8")
        assert f"ssl_audio.{room}" in text and (len(text) > 20_000 or room == "utils"), room
    assert 'id="ssl_audio.losses.byol_loss"' in (tmp_path / "site/reference/losses.html").read_text(encoding="utf-8")
    assert "Copyright (c) 2023 Bernardo Torres" in (tmp_path / "site/citations.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "tag, external",
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css">', True),
        ('<img src="http://example/picture.png">', True),
        ('<iframe src="https://example"></iframe>', True),
        ('<a href="https://arxiv.org/abs/2006.07733">paper</a>', False),
        ('<img src="figures/byol.svg"><script src="assets/x.js"></script>', False),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(tag, external, tmp_path):
    pytest.importorskip("mkdocs")
    hooks = importlib.import_module("hooks")
    (tmp_path / "page.html").write_text(f"<html><head></head><body>{tag}</body></html>")
    assert bool(hooks.loaded(tmp_path / "page.html")) is external
