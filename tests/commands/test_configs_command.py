"""`ssl-audio configs`: every packaged file is listed in its own words, printed as it is, and copied over nothing."""

import pytest
from helpers import REPOSITORY

from ssl_audio.cli import main
from ssl_audio.training.config import load_config
from ssl_audio.training.config_files import described_configs, packaged_configs

FILES = sorted((REPOSITORY / "train_configs").rglob("*.yaml"))


def test_every_file_is_listed_once_under_its_heading_by_its_own_first_words(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path in FILES:
        name = path.relative_to(REPOSITORY / "train_configs").with_suffix("").as_posix()
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        words = " ".join(line.split()[1:])
        comment = " ".join(part.lstrip("# ") for part in path.read_text().splitlines() if part.startswith("#"))
        assert words.endswith(".") and comment.startswith(words), name
    assert "Data" in lines and "  data/esc50" in "\n".join(lines)
    assert sum(map(len, described_configs().values())) == len(FILES) == len(packaged_configs(sweeps=True))


def test_the_readme_of_the_configs_is_what_the_command_prints(capsys):
    assert main(["configs", "--markdown"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "train_configs" / "README.md").read_text(), (
        "run: ssl-audio configs --markdown > train_configs/README.md"
    )


@pytest.mark.parametrize("name", ["byol", "data/esc50", "recipes/cpc-small.yaml", "sweeps/wavebyol"])
def test_a_file_is_shown_as_it_is(name, capsys):
    assert main(["configs", "show", name]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "train_configs" / name).with_suffix(".yaml").read_text()


def test_a_copy_stacks_like_the_original_and_replaces_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "copy", "clmr"]) == 0
    assert load_config(["common", "clmr.yaml"]) == load_config(["common", "clmr"])
    (tmp_path / "clmr.yaml").write_text("mine")
    capsys.readouterr()
    assert main(["configs", "copy", "clmr"]) == 2
    assert capsys.readouterr().err == "error: clmr.yaml is there already; give another name, or remove it\n"
    assert (tmp_path / "clmr.yaml").read_text() == "mine"
    (tmp_path / "folder").mkdir()
    assert main(["configs", "copy", "clmr", "folder"]) == 0  # as cp does
    assert main(["configs", "copy", "clmr", "new/name.yaml"]) == 0
    original = (REPOSITORY / "train_configs" / "clmr.yaml").read_text()
    assert (tmp_path / "folder" / "clmr.yaml").read_text() == (tmp_path / "new" / "name.yaml").read_text() == original


@pytest.mark.parametrize(
    "words, message",
    [
        (["show"], "which config? give a name: ssl-audio configs show byol"),
        (["copy", "byl"], "there is no packaged config 'byl'; did you mean 'byol'?; ssl-audio configs lists them"),
        (["show", "../pyproject"], "there is no packaged config '../pyproject'"),
    ],
)
def test_a_wrong_name_is_one_line(words, message, capsys):
    assert main(["configs", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
