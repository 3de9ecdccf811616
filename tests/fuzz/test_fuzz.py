"""Damaged files of every kind that is read: it works, or it is one line. Time and memory are bounded.

`pytest -m fuzz --fuzz 200` tries 200 damaged files of each kind (default: 3).
"""

import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from fuzz import mutations
from helpers import tiny_model, tone
from hypothesis import HealthCheck, Phase, given, settings

from ssl_audio import audio, load_model, save_model
from ssl_audio.data.scan import inspect
from ssl_audio.embedding import embed_files
from ssl_audio.errors import InputError

pytestmark = [pytest.mark.fuzz, pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")]

AUDIO = {"wav": "PCM_16", "flac": None, "ogg": None, "mp3": None, "aiff": None, "caf": "FLOAT", "w64": None, "au": None}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good file of each kind."""
    folder = tmp_path_factory.mktemp("fuzz")
    for kind, subtype in AUDIO.items():
        soundfile.write(folder / f"a.{kind}", tone(1.0, 44100), 44100, subtype)
    for singer in range(3):
        for song in range(2):
            audio.write(folder / f"d/s{singer}/{song}.wav", tone(1.0, frequency=200 + 50 * singer, seed=song), 16000)
    save_model(tiny_model(), folder / "model")
    return folder


def attempt(place: Path, name: str, content: bytes, action: Callable[[Path], Any]) -> None:
    """Write the damaged content beside the good file and read it: it works, or it is one line that says something."""
    path = place / name
    path.write_bytes(content)
    try:
        with mutations.bounded():
            action(path)
    except InputError as error:
        assert "\n" not in str(error).strip() and len(str(error)) > 10, str(error)


def of_bytes(place: Path, good: Path, name: str, action: Callable[[Path], Any], examples: int) -> None:
    content = good.read_bytes()

    @_many(examples)
    @given(mutations.changes)
    def check(what: list) -> None:
        attempt(place, name, mutations.changed(content, what), action)

    check()


def of_text(place: Path, good: str, name: str, action: Callable[[Path], Any], examples: int) -> None:
    @_many(examples)
    @given(mutations.edits)
    def check(what: list) -> None:
        attempt(place, name, mutations.edited(good, what).encode("utf-8", "surrogatepass"), action)

    check()


def _many(examples: int) -> settings:
    phases = (Phase.generate, Phase.shrink) if examples > 20 else (Phase.generate,)
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks, phases=phases, database=None)


@cache
def model() -> Any:
    return tiny_model()


@pytest.mark.parametrize("kind", AUDIO)
def test_audio(place, examples, kind):
    def action(path: Path) -> None:
        whole = inspect(path)
        assert len(whole) == 3
        results = list(embed_files(model(), [path], window_seconds=0.3, on_error="report"))
        assert results and all(np.isfinite(r.embedding).all() for r in results if r.embedding is not None)
        part = audio.read(path, 16000, start=100, samples=4000)
        assert part.dtype == np.float32 and len(part) <= 4000 and np.isfinite(part).all()

    of_bytes(place, place / f"a.{kind}", f"damaged.{kind}", action, examples)


def _embeds(path: Path) -> None:
    embedding = load_model(path)(torch.randn(1, 8000) * 0.1)
    assert embedding.ndim == 2


def test_weights_of_a_saved_model(place, examples):
    (place / "m1").mkdir(exist_ok=True)
    (place / "m1/config.yaml").write_bytes((place / "model/config.yaml").read_bytes())
    good = place / "model/model.safetensors"
    of_bytes(place, good, "m1/model.safetensors", lambda path: _embeds(path.parent), examples)


def test_config_of_a_saved_model(place, examples):
    (place / "m2").mkdir(exist_ok=True)
    (place / "m2/model.safetensors").write_bytes((place / "model/model.safetensors").read_bytes())
    text = (place / "model/config.yaml").read_text()
    of_text(place, text, "m2/config.yaml", lambda path: _embeds(path.parent), examples)


def test_checkpoints(place, examples):
    from ssl_audio.encoders import CompactCNN
    from ssl_audio.frontends import LogMelSpectrogram
    from ssl_audio.heads import Projection
    from ssl_audio.methods import Contrastive

    frontend = LogMelSpectrogram(16000, n_fft=512, hop_length=160, n_mels=32)
    encoder = CompactCNN([4, 4], embedding_dim=8)
    method = Contrastive(
        frontend=frontend, encoder=encoder, projection=lambda dim: Projection(dim, 8), sample_rate=16000
    )
    torch.save({"state_dict": method.state_dict(), "model": method.description(), "epoch": 1}, place / "good.ckpt")
    _embeds(place / "good.ckpt")
    of_bytes(place, place / "good.ckpt", "damaged.ckpt", _embeds, examples)


CONFIG = """model:
  class_path: ssl_audio.methods.Contrastive
  init_args:
    frontend: {class_path: ssl_audio.frontends.LogMelSpectrogram, init_args: {n_mels: 32}}
    encoder:
      class_path: ssl_audio.encoders.CompactCNN
      init_args: {channels: [4, 4], embedding_dim: 8}
    projection: {class_path: ssl_audio.heads.Projection, init_args: {dim: 8}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.001}}
    sample_rate: 16000
data:
  class_path: ssl_audio.data.AudioDataModule
  init_args: {dataset_dirs: [d], sample_rate: 16000, nr_samples: 8000, batch_size: 2, num_workers: 0}
trainer:
  max_epochs: 1
  logger: false
  accelerator: cpu
callbacks:
  finite: {class_path: ssl_audio.callbacks.FiniteLoss}
seed_everything: 0
"""


def test_configs_of_trainings(place, examples, monkeypatch):
    from ssl_audio.training.cli import TrainCLI
    from ssl_audio.training.config import load_config

    monkeypatch.chdir(place)
    of_text(place, CONFIG, "train.yaml", lambda path: TrainCLI(load_config([str(path)]), ["train"]), examples)


def test_indexes(place, examples):
    from ssl_audio.retrieval import Index

    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    Index.from_embeddings(vectors, [f"t{i}" for i in range(20)]).save(place / "good.index")

    def action(path: Path) -> None:
        assert len(Index.load(path).recommend(0, 3)) <= 3

    of_bytes(place, place / "good.index", "damaged.index", action, examples)


NAMES = [f"s{i // 2}/{i % 2}.wav" for i in range(6)]


def test_tables_of_labels(place, examples):
    from ssl_audio.evaluation.labels import read_labels

    text = "path,label,fold\n" + "".join(f"{name},{'ab'[i % 2]},{i % 2}\n" for i, name in enumerate(NAMES))
    of_text(place, text, "labels.csv", lambda path: read_labels(path, "label", fold="fold", root=place / "d"), examples)


def test_manifests(place, examples):
    from ssl_audio.evaluation.recordings import find_recordings

    text = "path,singer,gender,song\n" + "".join(f"{name},{name[:2]},{'mf'[i % 2]},x\n" for i, name in enumerate(NAMES))
    of_text(place, text, "manifest.csv", lambda path: find_recordings(place / "d", path), examples)


def test_lists_of_trials(place, examples):
    from ssl_audio.evaluation.trials import check_decidable, check_files, read_trials

    def action(path: Path) -> None:
        trials = read_trials(path, place / "d")
        check_decidable(trials)
        check_files(trials, place / "d", progress=False)

    text = "1,s0/0.wav,s0/1.wav\n0,s0/0.wav,s1/1.wav\n1,s1/0.wav,s1/1.wav\n0,s2/0.wav,s1/0.wav\n"
    of_text(place, text, "trials.txt", action, examples)


def test_lists_of_files(place, examples):
    from ssl_audio.embedding.table import files_to_embed

    def action(path: Path) -> None:
        files = [source.file for source in files_to_embed(str(path))]
        list(embed_files(model(), files, on_error="report"))

    of_text(place, "".join(f"d/{name}\n" for name in NAMES), "list.txt", action, examples)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_tables_of_embeddings(place, examples, suffix):
    from ssl_audio.cli import main

    good = place / f"good{suffix}"
    assert main(["embed", str(place / "d"), "--model", str(place / "model"), "--output", str(good)]) == 0
    names = [place / "d" / name for name in NAMES]
    of_bytes(
        place, good, f"damaged{suffix}", lambda path: list(embed_files(load_model(f"table:{path}"), names)), examples
    )


def test_indexes_of_shards(place, examples):
    from ssl_audio.cli import main
    from ssl_audio.data.sources import Shards

    assert main(["shard", str(place / "d"), "--output", str(place / "shards"), "--sample_rate", "16000"]) == 0
    (name,) = [path.name for path in (place / "shards").glob("*.json")]
    text = json.dumps(json.loads((place / "shards" / name).read_text()), indent=0)

    def action(path: Path) -> None:
        source = Shards(str(path.parent))
        if problem := source.problem(16000, ""):
            raise InputError(problem)
        source.scan()

    of_text(place, text, f"shards/{name}", action, examples)


def test_records_of_runs(place, examples):
    (place / "run/checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}}, place / "run/checkpoints/last.ckpt")
    text = json.dumps({"best_checkpoint": "checkpoints/last.ckpt", "steps": 3, "epochs": 1}, indent=0)

    def action(path: Path) -> None:
        with pytest.raises(InputError):
            load_model(path.parent)

    of_text(place, text, "run/run.json", action, examples)


def test_facts_that_a_scan_keeps(place, examples):
    from ssl_audio.data.scan import cache_path, scan_folder

    scan_folder(place / "d", progress=False)
    good = cache_path(place / "d")
    text = good.read_text().replace(", ", ",\n")

    def action(path: Path) -> None:
        facts = scan_folder(place / "d", progress=False)
        assert [fact.path for fact in facts] == NAMES

    os.makedirs(good.parent, exist_ok=True)
    of_text(good.parent, text, good.name, action, examples)
