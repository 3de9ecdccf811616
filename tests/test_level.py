"""A recording has one vector at any level, whichever way it reaches the model."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from helpers import tiny_frontend, tiny_model, tone
from torch import Tensor, nn

from ssl_audio import load_model
from ssl_audio.cli import main
from ssl_audio.config import describe
from ssl_audio.downstream.features import extract
from ssl_audio.downstream.tags import load_tagger, tag_file
from ssl_audio.embedding import embed_files
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.encoders import CPC
from ssl_audio.errors import InputError
from ssl_audio.export import describe_onnx, export_torchscript
from ssl_audio.frontends import Waveform
from ssl_audio.harnesses.frames import Frames, embed_clips
from ssl_audio.heads import ProbeHead
from ssl_audio.hub.levels import as_described, as_tested
from ssl_audio.hub.saved import save_model
from ssl_audio.level import leveled, set_level
from ssl_audio.model import EmbeddingModel
from ssl_audio.retrieval import Index
from ssl_audio.serving import Service
from ssl_audio.transcription import LinearHead, Transcriber
from ssl_audio.wav2rec import Wav2Rec

LEVELS = (0.0, -20.0, -40.0)  # dB


class HalfPeak(nn.Module):
    """A rule of one's own."""

    def forward(self, clips: Tensor) -> Tensor:
        return set_level(clips, "peak") / 2


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording at three levels, in floats, so that only the level differs."""
    folder = tmp_path_factory.mktemp("level") / "library"
    folder.mkdir()
    clip = tone(2.0) * np.linspace(0.2, 1.0, 32000, dtype=np.float32)
    for level in LEVELS:
        soundfile.write(folder / f"{-level:02.0f}.wav", clip * 10 ** (level / 20), 16000, "FLOAT")
    return folder


def paths_of(library: Path) -> list[Path]:
    return sorted(library.glob("*.wav"))


@pytest.fixture(scope="module", params=[True, False], ids=["in forward", "outside of forward"])
def model(request: pytest.FixtureRequest) -> EmbeddingModel:
    """A model that hears the level, with the rule where new models and where published ones have it."""
    return tiny_model(frontend=tiny_frontend(log_offset=1e-2)).with_parts(level="peak", level_in_forward=request.param)


@pytest.fixture(scope="module")
def saved(model: EmbeddingModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model, folder)
    return folder


def clips_of(library: Path) -> list[np.ndarray]:
    return [soundfile.read(path, dtype="float32")[0] for path in paths_of(library)]


def by_command(library: Path, saved: Path, tmp: Path) -> np.ndarray:
    table = tmp / "table.parquet"
    assert main(["embed", str(library), "--model", str(saved), "--output", str(table)]) == 0
    return np.stack(pq.read_table(table)["embedding"].to_pylist())


def by_index(library: Path, saved: Path, tmp: Path, window: float | None) -> np.ndarray:
    index = Index.build(load_model(saved), library, window_seconds=window, metric="euclidean", progress=False)
    index.save(tmp / f"library-{window}.index")
    again = Index.load(tmp / f"library-{window}.index", load_model(saved))
    assert again.settings["level"] == "peak"
    again.remove([paths_of(library)[0]])
    nearest = again.recommend(soundfile.read(paths_of(library)[0], dtype="float32")[0])  # audio in memory
    assert len(nearest) == 2 and all(abs(hit.score) < 1e-4 for hit in nearest)
    return index.embeddings


def by_torchscript(library: Path, saved: Path, tmp: Path) -> np.ndarray:
    export_torchscript(load_model(saved), saved / "model.ts")
    return embed_recordings(load_model(saved, torchscript=True), paths_of(library), progress=None)


def by_harness(library: Path, saved: Path, tmp: Path) -> np.ndarray:
    clips = torch.from_numpy(np.stack(clips_of(library)))
    return embed_clips(load_model(saved), clips).numpy()


def by_embed_files(library: Path, saved: Path, tmp: Path) -> np.ndarray:
    return np.stack([result.embedding for result in embed_files(load_model(saved), paths_of(library))])


DOORS: dict[str, Callable[[Path, Path, Path], np.ndarray]] = {
    "model.embed(path)": lambda library, saved, tmp: np.stack(
        [load_model(saved).embed(path) for path in paths_of(library)]
    ),
    "model.embed(array)": lambda library, saved, tmp: load_model(saved).embed(np.stack(clips_of(library))),
    "embed_files": by_embed_files,
    "embed": by_command,
    "evaluate, eval, Verification": lambda library, saved, tmp: embed_recordings(
        EvalProtocol(load_model(saved)), paths_of(library), progress=None
    ),
    "index, recommend": partial(by_index, window=None),
    "probe": lambda library, saved, tmp: extract(load_model(saved), paths_of(library), 2.0, cache=tmp).values,
    "serve": lambda library, saved, tmp: np.stack(
        [one.embedding for one in Service(load_model(saved), "m", device="cpu").embed([paths_of(library)])[0]]
    ),
    "harness": by_harness,
    "wav2rec": lambda library, saved, tmp: Wav2Rec(saved, normalize=False, device="cpu").get_projection(
        np.stack(clips_of(library))
    ),
    "TorchScript": by_torchscript,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_recording_has_one_vector_at_any_level(
    door: str, library: Path, model: EmbeddingModel, saved: Path, tmp_path: Path
) -> None:
    found = DOORS[door](library, saved, tmp_path)
    loudest = set_level(torch.from_numpy(clips_of(library)[0])[None], "peak")
    with torch.inference_mode():
        expected = model(loudest).numpy()
    np.testing.assert_allclose(found, np.repeat(expected, 3, axis=0), rtol=1e-3, atol=1e-4)


def test_without_a_rule_the_level_is_heard(library: Path, model: EmbeddingModel) -> None:
    loud, _, soft = model.with_parts(level="none").embed(np.stack(clips_of(library)))
    assert np.abs(loud - soft).max() > 0.1 * np.abs(loud).max()


def test_windows_have_the_level_of_the_window(library: Path, saved: Path, tmp_path: Path) -> None:
    vectors = by_index(library, saved, tmp_path, window=0.7)
    np.testing.assert_allclose(vectors, vectors[[0, 0, 0]], rtol=1e-3, atol=1e-4)


def test_tags_are_those_at_any_level(library: Path, model: EmbeddingModel, tmp_path: Path) -> None:
    save_model(model.with_parts(head=ProbeHead(model.dim, ["a", "b", "c"])), tmp_path / "tagger")
    tagger = load_tagger(tmp_path / "tagger")
    found = [tag_file(tagger, path, 0.7, device="cpu").scores for path in paths_of(library)]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=1e-4)


@pytest.mark.parametrize("inside", [True, False])
def test_notes_are_those_at_any_level(library: Path, inside: bool) -> None:
    torch.manual_seed(0)
    encoder = EmbeddingModel(Waveform(), CPC(channels=8, context="none"), 16000, level="peak", level_in_forward=inside)
    reader = Transcriber([encoder], LinearHead(int(encoder.encoder.frame_dim or 0), 128), [], 8000).eval()
    found = [reader.probabilities(clip).astype(np.float32) for clip in clips_of(library)]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=2e-3)


def test_frames_have_the_level_of_the_whole_clip_whatever_the_chunks(library: Path) -> None:
    torch.manual_seed(0)
    encoder = EmbeddingModel(Waveform(), CPC(channels=8, context="none"), 16000, level="peak").eval()
    clips = torch.from_numpy(np.stack(clips_of(library)))
    with torch.inference_mode():
        whole, chunks = encoder.frames(clips), Frames(encoder, chunk_seconds=0.5)(clips)
    assert (chunks - chunks[:1]).abs().max() < 1e-3
    middle = slice(20, -20)  # a chunk's edge is padded where the clip goes on
    assert (chunks[:, middle].mean(1) - whole[:, middle].mean(1)).abs().max() < 0.05 * whole.abs().max()


def test_the_json_of_an_export_says_who_sets_the_level(model: EmbeddingModel, tmp_path: Path) -> None:
    facts = json.loads(describe_onnx(model, tmp_path / "model.onnx").read_text())
    assert (facts["level"], facts["level_in_graph"]) == ("peak", model.level_in_forward)
    foreign = as_described(tiny_model(), facts, "onnx:model.onnx")
    assert (foreign.level, foreign.level_in_forward) == ("peak", model.level_in_forward)
    with pytest.raises(InputError, match=r"onnx:model.onnx: the file does not set the level by my\.Rule"):
        as_described(tiny_model(), {"level": "my.Rule", "level_in_graph": False}, "onnx:model.onnx")


# --- the rule itself


def test_a_rule_is_idempotent_and_leaves_silence() -> None:
    clips = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [1e-6], [0.0]])
    once = set_level(clips, "peak")
    assert once.abs().amax(1).tolist() == [1.0, 1.0, 0.0]
    assert torch.equal(set_level(once, "peak"), once) and set_level(clips, "none") is clips


def test_a_clip_is_scaled_once(model: EmbeddingModel) -> None:
    clips = torch.randn(2, 16000)
    assert (leveled(model, clips) is clips) == model.level_in_forward


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(InputError, match="level is 'loud'; it must be peak or none, or a module"):
        tiny_model().with_parts(level="loud")


def test_a_class_is_a_rule_too(library: Path, tmp_path: Path) -> None:
    model = tiny_model(frontend=tiny_frontend(log_offset=1e-2))
    save_model(model.with_parts(level=HalfPeak()), tmp_path / "half")
    with pytest.raises(InputError, match=r"HalfPeak.*not part of ssl_audio"):
        load_model(tmp_path / "half")
    loaded = load_model(tmp_path / "half", trusted=True)
    assert isinstance(loaded.level, HalfPeak)
    found = embed_recordings(loaded, paths_of(library), progress=None)
    expected = model.embed(0.5 * clips_of(library)[0] / np.abs(clips_of(library)[0]).max())
    np.testing.assert_allclose(found, [expected] * 3, rtol=1e-3, atol=1e-4)


# --- models and files that state none


def old(model: EmbeddingModel) -> dict[str, Any]:
    """The description of a model as 0.1 wrote it."""
    described = describe(model)
    arguments = {name: value for name, value in described["init_args"].items() if not name.startswith("level")}
    return {**described, "init_args": arguments}


def test_an_old_model_is_treated_as_it_was_tested_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            treated = as_tested(tiny_model(), tmp_path / "old", old(model))
    assert (treated.level, treated.level_in_forward) == ("peak", False)
    (record,) = caplog.records
    assert f"{tmp_path / 'old'} states no level rule" in record.message
    clips = 0.01 * torch.randn(2, 16000)
    assert torch.equal(treated(clips), model(clips))  # the outputs for a tensor stay


@pytest.mark.parametrize(
    "fitted",
    [tiny_model(head=ProbeHead(16, ["a", "b"])), EmbeddingModel(Waveform(), CPC(channels=8, context="none"), 16000)],
    ids=["a classifier", "CPC"],
)
def test_what_was_fitted_on_clips_at_their_own_level_keeps_it(fitted: EmbeddingModel, tmp_path: Path) -> None:
    assert as_tested(fitted, tmp_path, old(fitted)).level == "none"


def test_a_model_saved_again_keeps_its_rule(model: EmbeddingModel, saved: Path, tmp_path: Path) -> None:
    save_model(load_model(saved), tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert (again.level, again.level_in_forward) == ("peak", model.level_in_forward)


def test_an_interrupted_table_of_another_level_is_not_continued(library: Path, saved: Path, tmp_path: Path) -> None:
    from ssl_audio.embedding.table import EmbeddingTable, files_to_embed

    settings: dict[str, Any] = {"window_seconds": None, "hop_seconds": None, "aggregate": None}
    arguments = (files_to_embed(str(library)), tmp_path / "table.parquet", settings)
    table = EmbeddingTable(load_model(saved), *arguments)
    table.write_shards(table.missing())
    written = table.parts / "settings.json"
    written.write_text(json.dumps({k: v for k, v in json.loads(written.read_text()).items() if k != "level"}))
    with pytest.raises(InputError, match=r"level none.*level peak; delete it with --restart"):
        EmbeddingTable(load_model(saved), *arguments)
    EmbeddingTable(load_model(saved), *arguments, restart=True)
