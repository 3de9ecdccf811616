"""Files that version 0.1.0 wrote load, give what they gave, and are gone on with, whatever has moved since.

tests/data/made_by_0_1/make.sh made them. A failure here means that somebody's saved models no longer work: mend the
code (`config.MOVED`, `config.ADDED`), never these files.
"""

import csv
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from helpers import TESTS

from ssl_audio import cli, load_model
from ssl_audio.audio import read
from ssl_audio.config import ADDED, MOVED, canonical_path, find
from ssl_audio.downstream.features import Features, _key_in_0_1, extract
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint, fingerprint_in_0_1, made_by
from ssl_audio.retrieval.index import Index

MADE = TESTS / "data" / "made_by_0_1"
RUNS = ("contrastive", "byol", "supervised", "cpc")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what 0.1.0 made, beside the recordings that it was made from; the working folder."""
    shutil.copytree(MADE, tmp_path / "made")
    runpy.run_path(str(MADE / "recordings.py"))["write_recordings"](tmp_path / "made" / "recordings")
    monkeypatch.chdir(tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(MADE / "expected.npz") as arrays:
        return dict(arrays)


LOADERS: dict[str, Callable[[], EmbeddingModel]] = {
    "contrastive": lambda: load_model("runs/contrastive/0/checkpoints/best.ckpt"),
    "contrastive_projection": lambda: load_model("runs/contrastive/0/checkpoints/last.ckpt", projection=True),
    "byol_middle": lambda: load_model("runs/byol/0/checkpoints/middle.ckpt"),
    "supervised_classes": lambda: load_model("runs/supervised/0", projection=True),
    "cpc": lambda: load_model("runs/cpc/0"),
    "saved": lambda: load_model("saved"),
    "probe": lambda: load_model("probe/model"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_model_gives_the_vector_that_it_gave(name: str, folder: Path, expected: dict[str, np.ndarray]) -> None:
    clip = torch.from_numpy(read("recordings/singer2/song1.wav", 8000))[None]
    with torch.inference_mode():
        vector = LOADERS[name]()(clip)[0].numpy()
    np.testing.assert_allclose(vector, expected[name], rtol=1e-4, atol=1e-5)


def test_what_0_1_computed_can_be_named(folder: Path, expected: dict[str, np.ndarray]) -> None:
    """The fingerprint in its tables and indexes, and the name of its cached features."""
    model = load_model("saved")
    assert fingerprint_in_0_1(model) == expected["fingerprint_of_saved"]
    assert made_by(model, str(expected["fingerprint_of_saved"])) and made_by(model, fingerprint(model))
    assert not made_by(load_model("runs/byol/0"), str(expected["fingerprint_of_saved"]))
    assert _key_in_0_1(model, [Path("/missing.wav")], 0.5, None) == expected["features_of_missing_file"]


@pytest.mark.parametrize("run", RUNS)
def test_a_checkpoint_in_the_middle_of_an_epoch_resumes_to_the_weights_of_the_end(run: str, folder: Path) -> None:
    old = folder / "runs" / run / "0"
    arguments = ["--config", str(old / "config.yaml"), "--ckpt_path", str(old / "checkpoints" / "middle.ckpt")]
    assert cli.main(["train", *arguments]) == 0
    new = folder / "runs" / run / "1"
    after = torch.load(new / "checkpoints" / "last.ckpt", weights_only=True)
    ended = torch.load(old / "checkpoints" / "last.ckpt", weights_only=True)
    assert after["global_step"] == ended["global_step"]
    assert after["state_dict"].keys() == ended["state_dict"].keys()
    # Near, not equal to the bit as on one machine: where a gradient is zero, Adam makes whole steps of rounding errors.
    losses, again = _losses(old), _losses(new)
    assert len(again) >= 2 and again.keys() < losses.keys()
    np.testing.assert_allclose(list(again.values()), [losses[step] for step in again], rtol=1e-2)


def _losses(run: Path) -> dict[str, float]:
    """The training loss by step."""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["step"]: float(row["loss/train_step"]) for row in rows if row["loss/train_step"]}


@pytest.mark.parametrize("run", RUNS)
def test_a_runs_config_and_checkpoint_are_said_to_agree(run: str, folder: Path) -> None:
    checkpoint, config = f"runs/{run}/0/checkpoints/last.ckpt", f"runs/{run}/0/config.yaml"
    assert cli.main(["convert", "--checkpoint", checkpoint, "--config", config, "--output", "converted"]) == 0
    assert load_model("converted").dim == load_model(checkpoint).dim


def test_a_table_of_embeddings_holds_what_the_model_gives(folder: Path) -> None:
    model = load_model("saved")
    table = pq.read_table("table.parquet")
    assert made_by(model, table.schema.metadata[b"model"].decode())
    with torch.inference_mode():
        for path, embedding in zip(table["path"].to_pylist(), table["embedding"].to_pylist(), strict=True):
            clip = torch.from_numpy(read(f"recordings/{path}", 8000))[None]
            np.testing.assert_allclose(model(clip)[0].numpy(), embedding, rtol=1e-4, atol=1e-5)


def test_an_index_answers_and_is_updated(folder: Path) -> None:
    before = Index.load("library.index", root="recordings").embeddings
    shutil.copytree("recordings/singer0", "recordings/singer6")
    (folder / "recordings" / "singer1" / "song0.wav").unlink()
    arguments = ["index", "recordings", "--model", "saved", "--output", "library.index", "--moved"]
    assert cli.main(arguments) == 0
    index = Index.load("library.index", model=load_model("saved"))
    assert len(index) == 18 + 3 - 1
    names = [Path(path).relative_to(folder / "recordings").as_posix() for path in index.paths]
    vectors = dict(zip(names, index.embeddings, strict=True))
    np.testing.assert_allclose(vectors["singer6/song2.wav"], vectors["singer0/song2.wav"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(vectors["singer0/song2.wav"], before[2])  # not made anew
    assert Path(index.recommend("recordings/singer6/song2.wav", n=1)[0].path).name == "song2.wav"


def test_an_onnx_file_gives_what_the_model_gives(folder: Path, expected: dict[str, np.ndarray]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession("onnx/model.onnx")
    clip = read("recordings/singer2/song1.wav", 8000)[None]
    (vector,) = session.run(None, {session.get_inputs()[0].name: clip})
    np.testing.assert_allclose(vector[0], expected["contrastive"], rtol=1e-3, atol=1e-4)


def test_cached_features_are_read_and_not_computed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("saved")
    paths = sorted((folder / "recordings").glob("*/*.wav"))
    cache = folder / "features"
    cache.mkdir()
    shutil.copy("features.parquet", cache / f"{_key_in_0_1(model, paths, 0.5, None)}.parquet")
    monkeypatch.setattr(EmbeddingModel, "forward", lambda *_: pytest.fail("computed again"))
    features: Features = extract(model, paths, 0.5, cache=cache)
    assert features.values.shape == (36, 6)


def test_shards_are_trained_from(folder: Path) -> None:
    config = ["--config", "runs/contrastive/0/config.yaml", "--trainer.max_epochs", "1"]
    arguments = [*config, "--data.class_path", "ssl_audio.data.sharded.ShardDataModule"]
    data = "{shards: shards, sample_rate: 8000, nr_samples: 4000, batch_size: 4, num_workers: 0, eval_frac: 0.34}"
    assert cli.main(["train", *arguments, "--data.init_args", data]) == 0


def test_every_class_that_a_saved_file_names_is_found() -> None:
    def paths(value) -> list[str]:
        if isinstance(value, dict):
            own = [value["class_path"]] if "class_path" in value else []
            return own + [path for item in value.values() for path in paths(item)]
        return [path for item in value for path in paths(item)] if isinstance(value, list) else []

    named = {path for file in MADE.rglob("config.yaml") for path in paths(yaml.safe_load(file.read_text()))}
    for run in RUNS:
        checkpoint = torch.load(MADE / "runs" / run / "0" / "checkpoints" / "last.ckpt", weights_only=True)
        named |= set(paths(checkpoint["model"]))
    assert len(named) > 20
    for path in named:
        assert isinstance(find(path), type), path


def test_moved_classes_are_where_the_table_says() -> None:
    for old, new in MOVED.items():
        assert isinstance(find(new), type), new
        assert canonical_path(old) == canonical_path(new)
    for path in ADDED:
        assert canonical_path(path) == path, f"ADDED names {path} by another than its shortest path"
