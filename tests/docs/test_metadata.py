"""What `metadata/` holds and what its README says can be done with it."""

import re
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import REPOSITORY

from ssl_audio.cli import run_command
from ssl_audio.data.synthetic import write_dataset
from ssl_audio.encoders import CompactCNN
from ssl_audio.evaluation.trials import read_trials
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub import save_model
from ssl_audio.model import EmbeddingModel

METADATA = REPOSITORY / "metadata"
README = (METADATA / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    found = re.search(rf"<!-- test: {name} -->\n *```console\n(.*?)```", README, re.DOTALL)
    assert found, f"metadata/README.md has no block marked {name}"
    return found[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder with a copy of metadata/."""
    shutil.copytree(METADATA, tmp_path / "metadata")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_is_tested_without_naming_the_folder_of_lists(place, capsys):
    make, evaluate = block("example").splitlines()
    subprocess.run(make.replace("python", sys.executable, 1), shell=True, check=True)
    torch.manual_seed(0)
    frontend = LogMelSpectrogram(16000, n_fft=512, hop_length=256, n_mels=40)
    save_model(EmbeddingModel(frontend, CompactCNN([8, 8], embedding_dim=16), 16000).eval(), place / "my-model")
    words = evaluate.split()
    assert words[:2] == ["ssl-audio", "eval"] and run_command("eval", words[2:]) == 0
    assert re.search(r"my-model +example +\d+\.\d\d %", capsys.readouterr().out)
    written = {path.relative_to(place / "metadata").as_posix() for path in (place / "metadata").rglob("*.*")}
    assert {"eer_123.csv", "rank_123.csv", "my-model_123.json", "example/my-model/scores_features.csv"} <= written


def test_the_example_names_singers_that_are_the_same_everywhere(tmp_path):
    trials = read_trials(METADATA / "example" / "speaker_pairs.txt")
    assert len(trials) == 16 and trials.labels.sum() == 8 and len(set(trials.singers)) == 4
    written = {path.relative_to(tmp_path).as_posix() for path in write_dataset(tmp_path, 4, 3, seconds=0.1)}
    assert set(trials.files) <= written


def test_the_published_lists_unpack_to_what_the_reader_takes(place):
    subprocess.run(block("published"), shell=True, check=True)
    for name, trials, alone, files in (("vocalset", 20000, 35, 6031), ("m4singer", 20000, 17, 14381)):
        listed = read_trials(place / "metadata" / f"{name}_renamed_split_4s" / "speaker_pairs.txt")
        assert (len(listed), len(listed.files), len(set(listed.singers))) == (trials, files, 20)
        assert f"{alone} trials pair a recording with itself" in listed.note()
        assert len(listed.same_singer_pairs()) == listed.labels.sum() - alone
    assert "Copyright (c) 2023 Bernardo Torres" in (METADATA / "published" / "NOTICE").read_text()
