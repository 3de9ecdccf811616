"""A disk that is full in the middle of writing: one line, status 2, and nothing half-written."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import tiny_model, tone

from ssl_audio import audio, save_model
from ssl_audio.cli import main

COMMANDS = {
    "embed parquet": "embed d --model m --output e.parquet",
    "embed npz": "embed d --model m --output e.npz",
    "index": "index d --model m --output new.index",
    "recommend": "recommend d/s0/0.wav --index l.index --m3u p.m3u8 --json",
    "map": "map --index l.index --output map.html",
    "pairs": "pairs -r d -o meta -p 400",
    "preprocess": "preprocess --dataset_root_dir . --dataset_name d --segment_length 1 --sample_rate 16000",
    "cache": "cache d --sample_rate 16000 --store st",
    "shard": "shard d --output shards --sample_rate 16000",
    "evaluate": "evaluate --model m --data d --output report --no_baselines --probe none --draws 100",
    "probe": "probe --model m --corpus folder --root d --output probed --no_baselines --clip 1 --draws 5",
    "export torchscript": "export --model m --format torchscript --output m.ts",
}


@contextmanager
def files_end_at(size: int):
    """No file of this process can grow beyond `size` bytes; the system's answer is that of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_model(tiny_model(), folder / "m")
    for singer in range(4):
        for song in range(4):
            clip = tone(2.0, frequency=150 + 40 * singer, seed=10 * singer + song)
            audio.write(folder / f"d/s{singer}/{song}.wav", clip, 16000)
    os.chdir(folder)
    assert main(["index", "d", "--model", "m", "--output", "l.index"]) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(place, monkeypatch, capsys, command):
    monkeypatch.chdir(place)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    with files_end_at(0 if "recommend" in command else 700):
        status = main(command.split())
    said = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert said[-1].startswith("error: ") and "File too large" in said[-1], said
    assert not [line for line in said if "Traceback" in line]
    assert not list(Path().rglob(".partial-*"))
    assert all(path.read_bytes() == content for path, content in before.items())
