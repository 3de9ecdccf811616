"""From files to embeddings: each depends on its clip alone and comes in order, whatever the formats and the batches."""

import itertools
import threading

import numpy as np
import pytest
import torch
from helpers import tiny_frontend, tiny_model, tone

from ssl_audio import audio
from ssl_audio.embedding.files import embed_files, window_starts
from ssl_audio.encoders import SincNet
from ssl_audio.errors import InputError
from ssl_audio.frontends import Waveform
from ssl_audio.model import EmbeddingModel

RATE = 16000


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    return tiny_model(frontend=tiny_frontend(normalize="band")).train()


@pytest.fixture
def recordings(tmp_path, write_tone):
    """Lengths, rates and formats mixed; three of one length."""
    plan = [(1.0, 16000, "wav"), (0.4, 16000, "flac"), (1.0, 16000, "wav"), (2.3, 44100, "ogg"), (1.0, 16000, "flac")]
    plan += [(1.7, 8000, "wav"), (0.4, 16000, "wav"), (0.9, 48000, "flac"), (3.1, 22050, "wav")]
    return [
        write_tone(tmp_path / f"{i}.{kind}", seconds=seconds, sample_rate=rate, frequency=150 + 40 * i, seed=i)
        for i, (seconds, rate, kind) in enumerate(plan)
    ]


def one_by_one(model, paths):
    """The obvious loop: read, resample, one clip a forward."""
    model.eval()
    with torch.inference_mode():
        return np.stack([model(torch.from_numpy(audio.read(path, RATE))[None])[0].numpy() for path in paths])


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_equals_the_obvious_loop_in_order_for_any_batch_size(model, recordings, batch_size):
    expected = one_by_one(model, recordings)
    results = list(embed_files(model, recordings, batch_size=batch_size, workers=3))
    assert [result.path for result in results] == recordings
    assert [result.index for result in results] == list(range(len(recordings)))
    close(np.stack([result.embedding for result in results]), expected)
    for result in results:
        assert result.start == 0 and result.end == pytest.approx(audio.info(result.path).seconds, abs=2e-4)
        assert result.embedding.dtype == np.float32


def test_neighbours_do_not_matter(model, recordings):
    expected = {result.path: result.embedding for result in embed_files(model, recordings)}
    for order in itertools.islice(itertools.permutations(recordings), 0, 300, 100):
        for result in embed_files(model, order, batch_size=4):
            close(result.embedding, expected[result.path])


def test_agrees_with_embed_of_the_model(model, recordings):
    expected = np.stack([model.embed(path) for path in recordings])
    close(np.stack([result.embedding for result in embed_files(model, recordings)]), expected)


def test_windows_are_the_slices_of_the_whole_file(model, tmp_path, write_tone):
    path = write_tone(tmp_path / "long.flac", seconds=7.25, sample_rate=44100)
    whole = audio.read(path, RATE)
    results = list(embed_files(model, [path], window_seconds=1.5, hop_seconds=0.5))
    starts = [0.5 * i for i in range(12)] + [7.25 - 1.5]
    assert [result.start for result in results] == pytest.approx(starts, abs=1e-4)
    assert [result.end for result in results] == pytest.approx([start + 1.5 for start in starts], abs=1e-4)
    begins = [round(result.start * RATE) for result in results]
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(np.stack([whole[at : at + 24000] for at in begins]))).numpy()
    np.testing.assert_allclose(np.stack([r.embedding for r in results]), expected, atol=1e-3 * np.abs(expected).max())
    (mean,) = embed_files(model, [path], window_seconds=1.5, hop_seconds=0.5, aggregate="mean")
    close(mean.embedding, np.stack([result.embedding for result in results]).mean(0))
    assert (mean.start, mean.end) == (0, pytest.approx(7.25, abs=1e-4))


def test_a_long_file_is_read_in_pieces_with_the_same_windows(model, tmp_path, write_tone, monkeypatch):
    path = write_tone(tmp_path / "long.wav", seconds=9.3)
    at_once = [result.embedding for result in embed_files(model, [path], window_seconds=1, hop_seconds=0.7)]
    monkeypatch.setattr("ssl_audio.embedding.files.CHUNK_SECONDS", 2.0)
    pieces = list(embed_files(model, [path], window_seconds=1, hop_seconds=0.7))
    close(np.stack([result.embedding for result in pieces]), np.stack(at_once))
    assert [r.start for r in pieces] == sorted(r.start for r in pieces)
    (mean,) = embed_files(model, [path], window_seconds=1, hop_seconds=0.7, aggregate="mean")
    close(mean.embedding, np.stack(at_once).mean(0))


@pytest.mark.parametrize(("total", "window", "hop"), [(10, 4, 2), (11, 4, 3), (4, 4, 4), (9, 4, 4), (30, 3, 7)])
def test_windows_have_one_length_stay_inside_and_end_with_the_file(total, window, hop):
    starts = window_starts(total, window, hop)
    assert (starts == sorted(set(starts)) and starts[0] == 0 and starts[-1] + window == total) or hop > window
    assert all(0 <= start <= total - window for start in starts)
    if hop <= window:
        assert set(range(total)) == {start + i for start in starts for i in range(window)}


def test_a_file_shorter_than_the_window_is_one_clip(model, recordings):
    results = list(embed_files(model, recordings[1:2], window_seconds=2.0))
    assert len(results) == 1 and results[0].end == pytest.approx(0.4, abs=1e-3)
    close(results[0].embedding, one_by_one(model, recordings[1:2])[0])


def test_bad_files_are_reported_in_their_place_and_the_rest_is_embedded(model, recordings, tmp_path):
    broken, short, nan = tmp_path / "broken.wav", tmp_path / "short.wav", tmp_path / "nan.wav"
    broken.write_bytes(b"not audio at all")
    audio.write(short, tone(0.01), RATE)
    audio.write(nan, np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    paths = [recordings[0], broken, recordings[1], short, nan, tmp_path / "missing.wav", recordings[2]]
    results = list(embed_files(model, paths, on_error="report"))
    assert [result.path for result in results] == paths
    assert [result.error is None for result in results] == [True, False, True, False, False, False, True]
    assert all((result.embedding is None) == (result.error is not None) for result in results)
    assert all(str(result.path) in result.error for result in results if result.error)
    assert "too short" in results[3].error and "NaN" in results[4].error
    close(np.stack([results[i].embedding for i in (0, 2, 6)]), one_by_one(model, recordings[:3]))

    iterator = embed_files(model, paths)
    assert next(iterator).path == recordings[0]
    with pytest.raises(InputError, match=r"broken\.wav"):
        next(iterator)


def test_odd_real_files_give_an_embedding_or_one_sentence(model, shared):
    paths = audio.find_audio_files(shared / "data" / "fixtures")
    for settings in ({}, {"window_seconds": 1.0, "aggregate": "mean"}):
        results = list(embed_files(model, paths, on_error="report", **settings))
        assert [result.path for result in results] == paths
        good = [result for result in results if result.error is None]
        assert len(good) > len(paths) / 3
        assert all(np.isfinite(result.embedding).all() for result in good)
        assert all("\n" not in result.error for result in results if result.error)


def test_leaves_the_model_the_threads_and_the_caller_as_they_were(model, recordings):
    model.train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    threads, before = torch.get_num_threads(), threading.active_count()
    iterator = embed_files(model, recordings)
    next(iterator)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    iterator.close()  # a caller that stops early
    assert [module.training for module in model.modules()] == modes
    assert torch.get_num_threads() == threads
    for thread in threading.enumerate():
        if thread.name.startswith(("read", "forward")):
            thread.join(timeout=10)
    assert threading.active_count() == before
    model.eval()


class Endless:
    """Iterates over the first path once, then over the second for ever, and counts."""

    def __init__(self, first, rest):
        self.paths, self.taken = itertools.chain([first], itertools.repeat(rest)), 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        if self.taken > 1000:
            raise AssertionError("1000 files were taken ahead")
        return next(self.paths)


def test_only_a_bounded_number_of_files_is_taken_ahead(model, recordings):
    paths = Endless(recordings[0], recordings[0])
    iterator = embed_files(model, paths, batch_size=2, workers=2)
    for _ in range(20):
        next(iterator)
    iterator.close()
    assert paths.taken < 100


def test_a_rare_length_does_not_hold_back_the_others(model, recordings):
    """Its batch never fills; it is sent alone after a while, and results go on."""
    iterator = embed_files(model, Endless(recordings[3], recordings[0]), batch_size=2)
    assert next(iterator).path == recordings[3]
    iterator.close()


def test_encoders_of_raw_waveforms(recordings):
    torch.manual_seed(0)
    raw = EmbeddingModel(Waveform(), SincNet(channels=[8, 8, 8], embedding_dim=16), sample_rate=RATE)
    expected = one_by_one(raw, recordings)
    got = np.stack([result.embedding for result in embed_files(raw, recordings)])
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop_seconds": 1.0}, "window_seconds"),
        ({"window_seconds": -1}, "window_seconds must be above 0"),
        ({"window_seconds": 1, "hop_seconds": 0}, "hop_seconds must be above 0"),
        ({"window_seconds": 0.001}, "too short"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": -1}, "workers"),
        ({"aggregate": "median"}, "aggregate"),
        ({"on_error": "ignore"}, "on_error"),
    ],
)
def test_impossible_settings_are_refused_at_the_call(model, settings, message):
    with pytest.raises(InputError, match=message):
        embed_files(model, [], **settings)
