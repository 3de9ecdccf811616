"""Every command: one spelling of its options in the help, both accepted; examples that can be typed as they stand."""

import argparse
import re
import shlex

import pytest
from helpers import REPOSITORY

from ssl_audio.cli import COMMANDS, main, make_parser, with_underscores
from ssl_audio.training.arguments import read_arguments
from ssl_audio.training.config import find_config

WITH_PARSER = [name for name in COMMANDS if name != "train"]


def values(action: argparse.Action) -> list[str]:
    """Values that the option takes."""
    if action.nargs == 0:
        return []
    return [str(next(iter(action.choices)) if action.choices else 1)]


def required(parser: argparse.ArgumentParser, but: argparse.Action | None = None) -> list[str]:
    """The shortest command line without `but`."""
    words = []
    for action in parser._actions:
        if action is not but and action.required and action.nargs != "*":
            words += [*action.option_strings[-1:], *values(action)]
    return words


@pytest.mark.parametrize("name", WITH_PARSER)
def test_an_option_is_shown_with_underscores_and_accepted_with_hyphens_too(name):
    parser = make_parser(name)
    for action in parser._actions:
        long = [option for option in action.option_strings if option.startswith("--")]
        assert not any("-" in option[2:] for option in long), long
        for spelling in (option for option in long if "_" in option):
            words = [*required(parser, action), spelling, *values(action)]
            hyphens = [word.replace("_", "-") if word == spelling else word for word in words]
            assert hyphens != words
            assert parser.parse_args(with_underscores(hyphens)) == parser.parse_args(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_printed_whole(name, capsys):
    try:
        assert main([name, "--help"]) == 0
    except SystemExit as end:
        assert end.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and "usage:" in text
    assert "option_strings" not in text, "a per-cent sign in a help text that is not doubled"


def test_only_names_of_options_are_changed():
    words = ["--per-artist", "1", "my-song.mp3", "--m3u=to-play/list-1.m3u8", "--two words", "-so", "x-y", "a-b=--c-d"]
    changed = [
        "--per_artist",
        "1",
        "my-song.mp3",
        "--m3u=to-play/list-1.m3u8",
        "--two words",
        "-so",
        "x-y",
        "a-b=--c-d",
    ]
    assert with_underscores([*words, "--", "--left-alone"]) == [*changed, "--", "--left-alone"]
    args = make_parser("recommend").parse_args(with_underscores(["a-b.mp3", "--index", "i-x", "--per-artist=2"]))
    assert (args.songs, args.index, args.per_artist) == (["a-b.mp3"], "i-x", 2)


def test_keys_of_a_training_take_hyphens_and_names_of_callbacks_keep_theirs():
    words = ["--config", "my-config", "--data.batch-size", "4", "--callbacks.my-own.every-n-steps", "my-value"]
    found = read_arguments([*words, "--print-config", "--ckpt-path=a-b.ckpt"])
    assert found.files == ["my-config"] and found.print_config == ()
    assert found.overrides == [
        ("data.batch_size", "4"),
        ("callbacks.my-own.every_n_steps", "my-value"),
        ("ckpt_path", "a-b.ckpt"),
    ]


def examples(name: str) -> list[str]:
    """The command lines among a command's examples."""
    text = __import__(f"ssl_audio.commands.{name.replace('-', '_')}", fromlist=["EXAMPLES"]).EXAMPLES
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("ssl-audio ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_typed_as_they_stand(name, monkeypatch):
    """Every example is parsed, and no shell changes it: neither bash, nor zsh, which takes no comments when typed."""
    monkeypatch.chdir(REPOSITORY)
    lines = examples(name)
    assert any(line.startswith(f"ssl-audio {name} ") for line in lines)
    for line in lines:
        unquoted = re.sub(r"'[^']*'|\"[^\"$`\\]*\"", "", line)
        assert not re.search(r"[][*?{}#$`;&|<>()!\\'\"]", unquoted), line
        for run in re.findall(r"runs/[\w./-]*", line):
            assert re.match(r"runs/[\w-]+/\d+(/|$)", run), f"{line}: a run is a folder with a number"
        _, command, *words = shlex.split(line)
        if command in ("train", "sweep") and "--config" in words:
            for config in (words[i + 1] for i, word in enumerate(words) if word == "--config"):
                assert config.startswith("runs/") or find_config(config)
        if command == "train":
            assert read_arguments(words)
        else:
            end = words.index("--") if "--" in words else len(words)  # the rest are options of `train`
            make_parser(command).parse_args(words[:end])
            assert not words[end + 1 :] or read_arguments(words[end + 1 :])
