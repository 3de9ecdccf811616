"""`onnx:` addresses of toy networks written node by node, beside numpy and kaldi-native-fbank."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tone

from ssl_audio import load_model, save_model
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.export import describe_onnx, export_onnx
from ssl_audio.frontends import LogMelSpectrogram, Waveform
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = pytest.importorskip("onnx.helper")

FLOAT = 1
WEIGHTS = np.random.default_rng(0).standard_normal((80, 6)).astype(np.float32)
CLIP = tone(1.0)


def write(path: Path, nodes: list, inputs: dict, outputs: dict, constants: dict | None = None, facts=None) -> Path:
    """An ONNX file; `inputs` and `outputs` are {name: shape}."""
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "toy",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in (facts or {}).items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    onnx.save(model, path)
    return path


def features_net(path: Path, names=("feats", "embs"), shape=("B", "T", 80), weights=WEIGHTS, facts=None) -> Path:
    """The mean over time of the squared features, times weights: (B, T, bands) or (B, bands, T) -> (B, 6)."""
    time = 1 if shape[2] == 80 else 2
    nodes = [
        ("Mul", [names[0], names[0]], ["square"]),
        ("ReduceMean", ["square", "axis"], ["mean"], {"keepdims": 0}),
        ("MatMul", ["mean", "w"], [names[1]]),
    ]
    return write(path, nodes, {names[0]: shape}, {names[1]: ("B", 6)}, {"axis": np.array([time]), "w": weights}, facts)


def waveform_net(path: Path, shape=("B", "S"), facts=None) -> Path:
    """Mean and mean square of the samples: -> (B, 2)."""
    axes = np.array(range(1, len(shape)))
    nodes = [
        ("ReduceMean", ["audio", "axes"], ["mean"], {"keepdims": 0}),
        ("Mul", ["audio", "audio"], ["square"]),
        ("ReduceMean", ["square", "axes"], ["power"], {"keepdims": 0}),
        ("Unsqueeze", ["mean", "one"], ["a"]),
        ("Unsqueeze", ["power", "one"], ["b"]),
        ("Concat", ["a", "b"], ["embedding"], {"axis": 1}),
    ]
    constants = {"axes": axes, "one": np.array([1])}
    return write(path, nodes, {"audio": shape}, {"embedding": (shape[0], 2)}, constants, facts)


def statistics(clip: np.ndarray) -> np.ndarray:
    return np.array([clip.mean(), np.square(clip).mean()])


def near(vector: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(vector, other, rtol=0, atol=1e-3 * np.abs(other).max())


def kaldi(clip: np.ndarray, window: str, scale: float, bands: int = 80) -> np.ndarray:
    """(frames, bands) by kaldi-native-fbank."""
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type = 0, window
    options.frame_opts.samp_freq, options.mel_opts.num_bins = 16000, bands
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, (clip * scale).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def expected(features: np.ndarray, cmn: bool = False) -> np.ndarray:
    """What `features_net` makes of them."""
    return np.square(features - features.mean(axis=0) * cmn).mean(axis=0) @ WEIGHTS


@pytest.mark.parametrize(
    "front, window, scale, cmn",
    [
        ("kaldi80-hamming-scaled-cmn", "hamming", 32768, True),
        ("kaldi80-povey-unit", "povey", 1, False),
        ("kaldi80-hanning-scaled", "hanning", 32768, False),
    ],
)
def test_a_network_of_filterbanks_gets_kaldis(front, window, scale, cmn, tmp_path):
    model = load_model(f"onnx:{features_net(tmp_path / 'net.onnx', ('x', 'y'))}?front={front}&rate=16000")
    near(model.embed(CLIP), expected(kaldi(CLIP, window, scale), cmn))
    assert (model.sample_rate, model.dim, model.minimum_samples) == (16000, 6, 400)


def test_what_is_read_is_known_by_names_or_by_metadata_and_is_said(tmp_path, caplog):
    sherpa = {"framework": "wespeaker", "sample_rate": "16000", "normalize_samples": "0", "output_dim": "6"}
    cases = [
        (("feats", "embs"), {}, "kaldi80-hamming-scaled-cmn (by its names feats and embs) at 16000 Hz (usual"),
        (("feature", "embedding"), {}, "kaldi80-povey-unit-cmn (by its names feature and embedding) at 16000 Hz"),
        (("x", "y"), {**sherpa, "feature_normalize_type": "global-mean"}, "kaldi80-hamming-scaled-cmn (by its meta"),
        (("x", "y"), {**sherpa, "framework": "3d-speaker", "normalize_samples": "1"}, "kaldi80-povey-unit (by its"),
    ]
    for names, facts, said in cases:
        caplog.clear()
        model = load_model(f"onnx:{features_net(tmp_path / 'net.onnx', names, facts=facts)}")
        assert said in caplog.text
        assert model.sample_rate == 16000
    near(model.embed(CLIP), expected(kaldi(CLIP, "povey", 1)))


def test_bands_may_come_first(tmp_path):
    path = features_net(tmp_path / "net.onnx", ("x", "y"), ("B", 80, "T"))
    model = load_model(f"onnx:{path}?front=kaldi80-povey-scaled")
    near(model.embed(CLIP), expected(kaldi(CLIP, "povey", 32768)))


@pytest.mark.parametrize("shape", [("B", "S"), ("B", 1, "S"), ("B", "S", 1)])
def test_a_network_of_waveforms_gets_the_samples(shape, tmp_path):
    model = load_model(f"onnx:{waveform_net(tmp_path / 'net.onnx', shape)}?rate=8000")
    np.testing.assert_allclose(model.embed(CLIP), statistics(CLIP), atol=1e-6)
    assert (model.sample_rate, model.dim) == (8000, 2)
    clips = torch.from_numpy(np.stack([CLIP, CLIP[::-1] * 0.5]))
    np.testing.assert_allclose(model(clips), [statistics(CLIP), statistics(CLIP * 0.5)], atol=1e-6)


def test_a_fixed_window_slides_over_long_clips_and_is_filled_up_for_short_ones(tmp_path, caplog):
    path = waveform_net(tmp_path / "net.onnx", (1, 6000, 1))
    model = load_model(f"onnx:{path}?rate=16000")
    parts = [CLIP[:6000], CLIP[6000:12000], CLIP[-6000:]]
    np.testing.assert_allclose(model.embed(CLIP), np.mean([statistics(part) for part in parts], axis=0), atol=1e-6)
    np.testing.assert_allclose(model.embed(CLIP[:3000]), statistics(np.pad(CLIP[:3000], (0, 3000))), atol=1e-6)
    assert caplog.text.count("mean over windows of this length") == 1 and model.minimum_samples == 1
    repeated = load_model(f"onnx:{path}?rate=16000&short=repeat").embed(CLIP[:4000])
    np.testing.assert_allclose(repeated, statistics(np.tile(CLIP[:4000], 2)[:6000]), atol=1e-6)
    strict = load_model(f"onnx:{path}?rate=16000&short=refuse")
    with pytest.raises(InputError, match="needs at least 6000"):
        strict.embed(CLIP[:3000])


def test_a_batch_of_one_passes_clips_one_at_a_time(tmp_path):
    model = load_model(f"onnx:{waveform_net(tmp_path / 'net.onnx', (1, 'S'))}?rate=16000")
    clips = 0.1 * torch.randn(3, 5000)
    np.testing.assert_allclose(model(clips), [statistics(clip) for clip in clips.numpy()], atol=1e-6)


def test_frames_are_averaged_and_an_output_is_chosen_by_name(tmp_path):
    nodes = [
        ("ReduceMean", ["audio", "one"], ["m"], {"keepdims": 1}),
        ("Identity", ["m"], ["first"]),
        ("Unsqueeze", ["audio", "two"], ["frames"]),
    ]
    path = write(
        tmp_path / "net.onnx", nodes, {"audio": ("B", "S")}, {"first": ("B", 1), "frames": ("B", "S", 1)},
        {"one": np.array([1]), "two": np.array([2])},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"has the outputs first, frames; choose one, such as \?output=first"):
        load_model(f"onnx:{path}?rate=16000")
    for output in ("first", "frames"):
        np.testing.assert_allclose(
            load_model(f"onnx:{path}?rate=16000&output={output}").embed(CLIP), [CLIP.mean()], atol=1e-6
        )
    with pytest.raises(InputError, match="has no output 'frame'; did you mean 'frames'"):
        load_model(f"onnx:{path}?rate=16000&output=frame")


def test_two_files_of_equal_structure_have_two_fingerprints_and_a_file_may_move(tmp_path):
    one = features_net(tmp_path / "one.onnx")
    other = features_net(tmp_path / "other.onnx", weights=WEIGHTS + 1)
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "again.onnx"
    moved.write_bytes(one.read_bytes())
    marks = [fingerprint(load_model(f"onnx:{path}")) for path in (one, other, moved)]
    assert marks[0] == marks[2] != marks[1]
    assert fingerprint(load_model(f"onnx:{one}?front=kaldi80-povey-unit")) != marks[0]
    assert fingerprint(load_model(f"onnx:{one}?short=pad")) != marks[0]


def test_threads_and_copies_give_the_same(tmp_path):
    model = load_model(f"onnx:{features_net(tmp_path / 'net.onnx')}")
    clips = 0.1 * torch.randn(16, 8000, generator=torch.Generator().manual_seed(0))
    together = model(clips)
    with ThreadPoolExecutor(4) as pool:
        alone = torch.cat(list(pool.map(model, clips.split(1))))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(copy.deepcopy(model)(clips), together)


def test_it_is_called_and_neither_saved_exported_nor_trained(tmp_path):
    from ssl_audio.methods.supervised import Supervised

    address = f"onnx:{features_net(tmp_path / 'net.onnx')}"
    model = load_model(address)
    for action, what in [
        (lambda: save_model(model, tmp_path / "saved"), "saved"),
        (lambda: export_onnx(model, tmp_path / "again.onnx"), "exported"),
        (lambda: model.train(), "trained"),
        (lambda: Supervised(Waveform(), model.encoder, sample_rate=16000, weights=address), "trained"),
    ]:
        with pytest.raises(InputError, match=f"net.onnx cannot be {what}") as caught:
            action()
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]


@pytest.mark.slow
def test_our_own_export_needs_no_option(tmp_path):
    torch.manual_seed(0)
    ours = EmbeddingModel(LogMelSpectrogram(16000, 512, 160, 32), CompactCNN([8, 8], 12), 16000, level="peak").eval()
    export_onnx(ours, tmp_path / "ours.onnx")
    describe_onnx(ours, tmp_path / "ours.onnx")
    model = load_model(f"onnx:{tmp_path / 'ours.onnx'}")
    for clip in (CLIP, 0.1 * CLIP, 0.01 * CLIP):  # the level is set in the graph
        np.testing.assert_allclose(model.embed(clip), ours.embed(CLIP), atol=1e-5)
        np.testing.assert_allclose(model.encoder(torch.tensor(clip)[None])[0], ours.embed(CLIP), atol=1e-5)
    assert (model.sample_rate, model.minimum_samples, model.dim) == (16000, ours.minimum_samples, 12)


def test_what_the_file_cannot_tell_is_asked_for_in_one_line(tmp_path):
    state = {"input": ("B", "S"), "state": (2, "B", 128), "sr": (1,)}
    stateful = write(tmp_path / "vad.onnx", [("Identity", ["input"], ["out"])], state, {"out": ("B", "S")})
    picture = write(
        tmp_path / "4d.onnx", [("Identity", ["x"], ["y"])], {"x": ("B", 1, 96, 64)}, {"y": ("B", 1, 96, 64)}
    )
    mean = ("ReduceMean", ["x"], ["y"], {"keepdims": 0})
    scalar = write(tmp_path / "0d.onnx", [mean], {"x": ("B", "S")}, {"y": ()})
    zero_by_zero = [("ReduceMean", ["x", "a"], ["m"]), ("Sub", ["m", "m"], ["z"]), ("Div", ["z", "z"], ["y"])]
    shapes = {"x": ("B", "S")}, {"y": ("B", 1)}
    nan = write(tmp_path / "nan.onnx", zero_by_zero, *shapes, {"a": np.array([1])})
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "vad.onnx").read_bytes()[:40])
    waveform, nemo = waveform_net(tmp_path / "w.onnx"), {"framework": "nemo"}
    rated = waveform_net(tmp_path / "rated.onnx", facts={"sample_rate": "16000"})
    unknown = features_net(tmp_path / "u.onnx", ("x", "y"))
    for address, message in [
        (f"onnx:{stateful}", "takes 3 inputs (input ['B', 'S'], state"),
        (f"onnx:{picture}", "it must be floats of shape (batch, samples), (batch, frames, bands)"),
        (f"onnx:{scalar}?rate=16000", "returns the shape ()"),
        (f"onnx:{nan}?rate=16000", "returns NaN or infinite values"),
        (f"onnx:{tmp_path / 'cut.onnx'}", "onnxruntime cannot load it"),
        (f"onnx:{tmp_path / 'none.onnx'}", "no such file"),
        (f"onnx:{waveform}", "its sample rate is unknown; add it, such as ?rate=16000"),
        (f"onnx:{rated}?rate=8000", "takes 16000 Hz, not 8000"),
        (f"onnx:{unknown}", "their kind is unknown; add front=, such as ?front=kaldi80-hamming-scaled-cmn"),
        (
            f"onnx:{unknown}?front=kaldi40-povey-unit&rate=16000",
            "front is kaldi40-povey-unit, but the network takes 80",
        ),
        (f"onnx:{unknown}?front=waveform", "front is waveform, but the network takes 80 bands"),
        (f"onnx:{waveform}?front=kaldi80-povey-unit", "the network takes a waveform"),
        (f"onnx:{unknown}?front=mel", "front=mel is wrong; it must be waveform, or kaldi80-hamming-scaled-cmn"),
        (f"onnx:{features_net(tmp_path / 'n.onnx', facts=nemo)}", "is a NeMo model"),
    ]:
        with pytest.raises(InputError) as caught:
            load_model(address)
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_json_file_of_another_model_says_nothing(tmp_path):
    path = waveform_net(tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text(json.dumps({"model": "other.onnx", "sample_rate": 8000}))
    with pytest.raises(InputError, match="its sample rate is unknown"):
        load_model(f"onnx:{path}")
    (tmp_path / "net.json").write_text(json.dumps({"model": "net.onnx", "sample_rate": 8000, "minimum_samples": 100}))
    model = load_model(f"onnx:{path}")
    assert (model.sample_rate, model.minimum_samples) == (8000, 100)
