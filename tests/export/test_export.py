"""Exports, run by what will run them: onnxruntime and the TorchScript interpreter, beside the model in PyTorch."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from ssl_audio import encoders, export
from ssl_audio.baselines import mfcc_statistics
from ssl_audio.cli import main
from ssl_audio.commands.export import error_rates
from ssl_audio.errors import InputError
from ssl_audio.frontends import DecibelMelSpectrogram, KaldiFilterbank, LogMelSpectrogram, Waveform
from ssl_audio.heads import MLP
from ssl_audio.hub import load_model
from ssl_audio.hub.saved import save_model
from ssl_audio.model import EmbeddingModel

RATE = 16000
MEL = {"sample_rate": RATE, "n_fft": 512, "hop_length": 160, "n_mels": 32}


def mel(normalize="band"):
    return LogMelSpectrogram(**MEL, normalize=normalize)


def kaldi(**arguments):
    return KaldiFilterbank(RATE, MEL["n_mels"], cmn=True, **arguments)


def views():
    """Three views of a small model, less the nearest of two means."""
    start = EmbeddingModel(mel(), encoders.CompactCNN(channels=[8], embedding_dim=16), RATE)
    return encoders.Whitened(encoders.Views(start, ["plain", "speech", "level"]), encoders.NearestMean(16, 2))


# Small enough to export in seconds; EfficientNet is what is published, so it is the real b0.
MODELS = {
    "CAMPlusPlus": lambda: (kaldi(), encoders.CAMPlusPlus([1, 1], 8, 8, 4, 16, MEL["n_mels"])),
    "CPC": lambda: (Waveform(), encoders.CPC(channels=16, heads=2, feedforward=16, max_distance=8)),
    "CompactCNN": lambda: (mel(), encoders.CompactCNN(channels=[8, 8], embedding_dim=16)),
    "Whitened": lambda: (mel(), encoders.Whitened(encoders.CompactCNN([8, 8], 16), encoders.Whitening(16))),
    "ECAPATDNN": lambda: (kaldi(), encoders.ECAPATDNN(16, 16, MEL["n_mels"], "speechbrain")),
    "FastResNet34": lambda: (mel("band_mean"), encoders.FastResNet34([1, 1], 8, 16)),
    "ERes2Net": lambda: (mel(), encoders.ERes2Net([1, 1, 1], 8, MEL["n_mels"])),
    "EfficientNet": lambda: (mel("clip_max"), encoders.EfficientNet(embedding_dim=64)),
    "MobileNetV3": lambda: (mel(), encoders.MobileNetV3("small", 0.25)),
    "PatchTransformer": lambda: (
        mel(),
        encoders.PatchTransformer(MEL["n_mels"], [[8, 8]], embedding_dim=32, depth=1, heads=2, mlp_dim=32),
    ),
    "ResNet18": lambda: (kaldi(snip_edges=False), encoders.ResNet18([1], 8, 16, MEL["n_mels"])),
    "ResNet34": lambda: (kaldi(), encoders.ResNet34([1, 1], 8, 16, MEL["n_mels"])),
    "ResNet50": lambda: (DecibelMelSpectrogram(**MEL), encoders.ResNet50(blocks=[1, 1, 1, 1], width=8)),
    "SampleCNN": lambda: (Waveform(), encoders.SampleCNN(channels=[8, 8, 8, 8])),
    "SampleCNNXL": lambda: (Waveform(), encoders.SampleCNNXL(channels=[8, 16, 16])),
    "ShortChunkCNN": lambda: (mel("none"), encoders.ShortChunkCNN(channels=[8, 8, 8])),
    "SincNet": lambda: (Waveform(), encoders.SincNet(channels=[8, 8, 8], embedding_dim=16, sample_rate=RATE)),
    "VisionTransformer": lambda: (
        mel(),
        encoders.VisionTransformer(64, 16, embedding_dim=32, depth=1, heads=2, head_dim=8, mlp_dim=32),
    ),
    "Views": lambda: (Waveform(), views()),
    "Joined": lambda: (Waveform(), encoders.Joined(views(), mfcc_statistics(RATE), encoders.Whitening(40), 0.2)),
    "WaveBYOL": lambda: (Waveform(), encoders.WaveBYOL(channels=48)),
}


def make(name):
    torch.manual_seed(0)
    frontend, encoder = MODELS[name]()
    model = EmbeddingModel(frontend, encoder, sample_rate=RATE)
    model.train()
    with torch.no_grad():  # running statistics that are not those of an untrained network
        for _ in range(3):
            model(torch.randn(4, max(model.minimum_samples, RATE)) * 0.1)
    return model.eval()


# Exported in tests/encoders/test_packaged.py and tests/hub/test_foreign_hf.py, with weights of others.
OF_OTHERS = {"AISFX", "HuggingFace", "Musicnn", "Resemblyzer"}


def test_every_encoder_is_exported_here():
    assert set(MODELS) == set(encoders.__all__) - {"Encoder", "NearestMean", "Whitening"} - OF_OTHERS


LARGE = ("CAMPlusPlus", "ECAPATDNN")  # graphs of many nodes: more than 5 s


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in MODELS]
)
def onnx_export(request, tmp_path_factory):
    model = make(request.param)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, export.export_onnx(model, path)


def shapes(model):
    least = max(model.minimum_samples, RATE // 2)
    return [(1, least + 100), (1, 3 * RATE), (5, least + 100), (5, 3 * RATE)]


def clips(batch, samples):
    """Noise that starts with digital silence, where only the floors of logarithms and roots are left."""
    audio = torch.randn(batch, samples, generator=torch.Generator().manual_seed(samples)) * 0.05
    audio[:, : samples // 4] = 0
    return audio


def close(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= export.TOLERANCE * np.abs(expected).max()


def test_onnx_gives_what_pytorch_gives_for_any_batch_and_length(onnx_export):
    model, written = onnx_export
    session = onnxruntime.InferenceSession(written.path)
    assert [item.name for item in session.get_inputs() + session.get_outputs()] == ["audio", "embedding"]
    assert [isinstance(size, str) for size in session.get_inputs()[0].shape] == [True, True]  # both are free
    for batch, samples in shapes(model):
        audio = clips(batch, samples)
        with torch.inference_mode():
            close(session.run(None, {"audio": audio.numpy()})[0], model(audio).numpy())
    assert written.size == os.path.getsize(written.path) == sum(f.stat().st_size for f in written.path.parent.iterdir())
    assert written.opset == onnx.load(written.path).opset_import[0].version and f"opset {written.opset}" in str(written)


def paths_in(file):
    """Folders and source files of this machine whose names are in a file."""
    content = file.read_bytes()
    names = (os.path.dirname(encoders.__file__), os.path.dirname(torch.__file__), os.path.expanduser("~"), ".py")
    return [name for name in names if len(name) > 2 and name.encode() in content]


def test_an_onnx_file_holds_no_path_of_this_machine(onnx_export):
    assert paths_in(onnx_export[1].path) == []


@pytest.mark.parametrize("name", MODELS)
def test_torchscript_gives_what_pytorch_gives_for_any_batch_and_length(name, tmp_path):
    model = make(name)
    written = export.export_torchscript(model, tmp_path / "model.ts")
    script = torch.jit.load(written.path)
    for batch, samples in shapes(model):
        audio = clips(batch, samples)
        with torch.inference_mode():
            close(script(audio).numpy(), model(audio).numpy())


def test_torchscript_runs_without_this_package(tmp_path):
    model = make("CompactCNN")
    export.export_torchscript(model, tmp_path / "model.ts")
    audio = torch.randn(2, RATE)
    torch.save(audio, tmp_path / "audio.pt")
    code = (
        "import torch, sys\n"
        "out = torch.jit.load('model.ts')(torch.load('audio.pt'))\n"
        "assert not any(name.startswith('ssl_audio') for name in sys.modules)\n"
        "torch.save(out, 'out.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    with torch.inference_mode():
        close(torch.load(tmp_path / "out.pt").numpy(), model(audio).numpy())


def test_a_head_goes_along(tmp_path):
    model = make("CompactCNN")
    headed = EmbeddingModel(model.frontend, model.encoder, RATE, MLP(model.dim, [24, 12])).eval()
    export.export_onnx(headed, tmp_path / "model.onnx")
    assert onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"audio": np.zeros((2, RATE), "f4")})[
        0
    ].shape == (2, 12)


class PythonBranch(encoders.Encoder):
    """Takes another path for long clips: a tracer sees only one of the two."""

    dim = 32

    def forward(self, features):
        mean = features.mean(dim=2)
        return mean * 2 if int(features.shape[2]) > 150 else mean


class Refuses(encoders.Encoder):
    dim = 1

    def forward(self, features):
        return torch.from_numpy(features.numpy().mean((1, 2), keepdims=True)[..., 0])


@pytest.mark.parametrize("write", [export.export_onnx, export.export_torchscript])
@pytest.mark.parametrize("encoder", [PythonBranch, Refuses])
def test_an_export_that_differs_is_refused_and_leaves_no_file(write, encoder, tmp_path):
    model = EmbeddingModel(mel(), encoder(), RATE).eval()
    target = tmp_path / "model.bin"
    target.write_bytes(b"the file that was there before")
    with pytest.raises(InputError, match=encoder.__name__) as refusal:
        write(model, target)
    assert "\n" not in str(refusal.value)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the file that was there before"]


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    model = make("SampleCNN").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export.export_onnx(model, tmp_path / "model.onnx")
    export.export_torchscript(model, tmp_path / "model.ts")
    assert model.training and any(isinstance(module, nn.MaxPool1d) for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_int8_is_smaller_near_and_keeps_the_frontend(tmp_path):
    torch.manual_seed(0)
    model = EmbeddingModel(mel(), encoders.CompactCNN(channels=[64, 128], embedding_dim=256), RATE).eval()
    full = export.export_onnx(model, tmp_path / "full.onnx")
    small = export.quantize_onnx(model, full.path, tmp_path / "small.onnx")
    assert small.size < full.size / 2
    assert 0.95 < small.cosine < 1 and full.difference < small.difference < 0.3
    graph = onnx.load(small.path).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("ConvInteger") == 4 and "MatMulInteger" in operators
    assert "MatMul" in operators  # the mel bank, in floating point
    assert paths_in(small.path) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(make("CompactCNN"), folder)
    return folder


def test_the_command_writes_what_load_model_reads(saved, capsys):
    assert main(["export", "--model", str(saved), "--format", "torchscript", "--output", str(saved / "model.ts")]) == 0
    assert "torchscript" in capsys.readouterr().out
    audio = torch.randn(3, RATE)
    with torch.inference_mode():
        expected = load_model(saved)(audio).numpy()
        close(load_model(saved, torchscript=True)(audio).numpy(), expected)


def test_the_command_reports_what_int8_costs(saved, singers, tmp_path, capsys):
    trials = tmp_path / "trials.txt"
    names = [[f"singer {singer}/song{song}.wav" for song in range(4)] for singer in range(5)]
    lines = [f"1,{name[0]},{name[k]}\n" for name in names for k in (1, 2, 3)]
    lines += [f"0,{names[i][0]},{names[j][1]}\n" for i in range(5) for j in range(5) if i != j]
    trials.write_text("".join(lines))
    arguments = ["export", "--model", str(saved), "--format", "onnx", "--output", str(tmp_path / "small.onnx")]
    assert main([*arguments, "--quantize", "int8", "--trials", str(trials), "--data", str(singers)]) == 0
    out = capsys.readouterr().out
    assert "onnx int8, opset" in out and "cosine" in out
    model = load_model(saved)
    before, after = error_rates([model, export.OnnxModel(tmp_path / "small.onnx", model)], trials, singers)
    assert f"{before:.4f} -> {after:.4f}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "torchscript", "--quantize", "int8"], "--format onnx"),
        (["--format", "onnx", "--trials", "t.txt"], "--data"),
        (["--format", "onnx", "--quantize", "int8", "--data", "d"], "--trials"),
    ],
)
def test_combinations_that_make_no_sense(saved, tmp_path, capsys, arguments, message):
    assert main(["export", "--model", str(saved), "--output", str(tmp_path / "x"), *arguments]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
