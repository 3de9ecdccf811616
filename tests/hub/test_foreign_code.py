"""Addresses of code: TorchScript, torch.hub, HEAR, X-ARES and any callable, each written by the test."""

import copy
import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import tone
from torch import Tensor, nn

from ssl_audio import load_model, save_model
from ssl_audio.cli import main
from ssl_audio.config import build
from ssl_audio.embedding import embed_files
from ssl_audio.errors import InputError
from ssl_audio.export import export_torchscript
from ssl_audio.hub.foreign._external import Turn
from ssl_audio.hub.foreign._importing import CallEncoder
from ssl_audio.hub.foreign.hear import HearEncoder
from ssl_audio.hub.foreign.onnx import OnnxEncoder
from ssl_audio.hub.foreign.table import TableEncoder
from ssl_audio.hub.foreign.torchscript import TorchScriptEncoder
from ssl_audio.hub.foreign.xares import XaresEncoder
from ssl_audio.provenance import fingerprint

CLIP = tone(1.0)
STATISTICS = "torch.stack([x.mean(1), x.square().mean(1), x.abs().amax(1)], 1)"


def statistics(clip: np.ndarray) -> np.ndarray:
    return np.array([clip.mean(), np.square(clip).mean(), np.abs(clip).max()])


def near(vector: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(vector, expected, atol=1e-6)


@pytest.fixture
def code(tmp_path):
    """`code(text, name)` writes a Python file of other people and gives its path; each has a name of its own."""
    numbers = itertools.count()

    def write(text: str, name: str | None = None) -> Path:
        path = tmp_path / (name or f"theirs{next(numbers)}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import numpy as np\nimport torch\nfrom torch import nn\n" + text)
        return path

    return write


# --- callables


@pytest.mark.parametrize(
    "body, options",
    [
        (f"def embed(x):\n    return {STATISTICS}", "rate=16000"),
        (f"def embed(x, sample_rate):\n    assert sample_rate == 16000\n    return {STATISTICS}", "rate=16000"),
        (f"def embed(x, rate=8000):\n    assert rate == 8000\n    return {STATISTICS}", "rate=16000"),
        (f"def embed(x):\n    return {STATISTICS}\nembed.sample_rate = 16000\nembed.dim = 3", ""),
        (f"class embed(nn.Module):\n  sample_rate = 16000\n  def forward(self, x):\n    return {STATISTICS}", ""),
        ("def embed(x):\n    x = np.ascontiguousarray(x)\n    assert type(x) is np.ndarray\n"
         "    return np.stack([x.mean(1), (x**2).mean(1), np.abs(x).max(1)], 1)", "rate=16000&input=array"),
        ("def embed(x):\n    if not isinstance(x, np.ndarray):\n        raise TypeError('an array')\n"
         "    return np.stack([x.mean(1), (x**2).mean(1), np.abs(x).max(1)], 1)", "rate=16000"),
        (f"def embed(x):\n    return {STATISTICS}[:, None].repeat(1, 5, 1)", "rate=16000"),
    ],
)  # fmt: skip
def test_any_callable_of_clips_is_a_model(body, options, code):
    model = load_model(f"call:{code(body)}:embed?{options}", trusted=True)
    near(model.embed(CLIP), statistics(CLIP))
    assert (model.sample_rate, model.dim, model.minimum_samples, model.licence) == (16000, 3, 1, "unknown")


def test_a_module_is_found_by_its_name_and_a_file_may_import_from_its_folder(code, tmp_path, monkeypatch):
    code(f"def statistics(x):\n    return {STATISTICS}", "beside_it.py")
    path = code("import beside_it\nclass Holder:\n    embed = staticmethod(beside_it.statistics)")
    near(load_model(f"call:{path}:Holder.embed?rate=16000", trusted=True).embed(CLIP), statistics(CLIP))
    assert str(tmp_path) not in sys.path
    monkeypatch.syspath_prepend(str(tmp_path))
    near(load_model("call:beside_it:statistics?rate=16000", trusted=True).embed(CLIP), statistics(CLIP))


def test_the_shortest_clip_is_found_by_trial_and_shorter_ones_are_treated_as_asked(code):
    body = "def embed(x):\n    return x.unfold(1, 1000, 1000).amax(1)[:, :3]"
    strict, repeat, pad = (
        load_model(f"call:{code(body)}:embed?rate=16000{option}", trusted=True)
        for option in ("", "&short=repeat", "&short=pad")
    )
    assert (strict.minimum_samples, repeat.minimum_samples, pad.minimum_samples) == (1000, 1, 1)
    clip = CLIP[:2]
    near(repeat.embed(clip), np.array([clip[0], clip[1], clip[0]]))
    near(pad.embed(clip), np.array([clip[0], clip[1], 0]))
    with pytest.raises(InputError, match="too short"):
        strict.embed(clip)
    assert len({fingerprint(model) for model in (strict, repeat, pad)}) == 3


def test_a_model_that_depends_on_its_batch_is_run_one_clip_at_a_time_and_says_so(code, caplog, tmp_path):
    body = "def embed(x):\n    y = torch.stack([x.mean(1), x.square().mean(1)], 1)\n    return y + y.mean(0)"
    model = load_model(f"call:{code(body)}:embed?rate=16000", trusted=True)
    assert caplog.text.count("a clip's embedding depends on its batch, so that clips pass one at a time") == 1
    clips = [tone(1.0, frequency=f) for f in (200, 300, 400)]
    alone = [2 * statistics(clip)[:2] for clip in clips]
    near(model(torch.from_numpy(np.stack(clips))).numpy(), alone)
    for i, clip in enumerate(clips):
        soundfile.write(tmp_path / f"{i}.wav", clip, 16000, subtype="FLOAT")
    found = embed_files(model, sorted(tmp_path.glob("*.wav")), batch_size=3)
    near(np.stack([one.embedding for one in found]), alone)


def test_a_function_that_takes_one_clip_alone_is_given_one(code):
    body = "def embed(x):\n    assert len(x) == 1\n    return x[:, :2]"
    model = load_model(f"call:{code(body)}:embed?rate=16000", trusted=True)
    near(model(torch.from_numpy(np.stack([CLIP, CLIP + 1]))).numpy(), [CLIP[:2], CLIP[:2] + 1])


def test_calls_never_overlap_whatever_threads_they_come_from(code, tmp_path):
    body = (
        "import time\nbusy = []\ndef embed(x):\n    assert not busy\n    busy.append(1)\n    time.sleep(.005)\n"
        "    busy.pop()\n    return x[:, :2]"
    )
    model = load_model(f"call:{code(body)}:embed?rate=16000", trusted=True)
    clips = torch.randn(12, 1000)
    with ThreadPoolExecutor(6) as pool:
        found = torch.cat(list(pool.map(model, clips.split(1))))
    assert torch.equal(found, clips[:, :2])


def test_a_turn_gives_one_thread_all_of_torchs_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        turn, seen, held = Turn(), [], []

        def work(_):
            torch.set_num_threads(1)
            with turn.taken():
                seen.append(torch.get_num_threads())
                held.append(threading.get_ident())
                time.sleep(0.01)
            return torch.get_num_threads()

        with ThreadPoolExecutor(3) as pool:
            assert set(pool.map(work, range(3))) == {1}
        assert seen == [2, 2, 2]
        assert copy.deepcopy(turn).lock is not turn.lock
    finally:
        torch.set_num_threads(before)


def test_what_is_no_embedding_is_refused_in_one_line(code):
    for body, message in [
        ("def embed(x):\n    return x.mean()", "gives the shape ()"),
        ("def embed(x):\n    return (x > 0)[:, :3]", "an embedding is made of floats"),
        ("def embed(x):\n    return x[:, :3] / 0", "gives NaN or infinite values"),
        ("def embed(x):\n    return torch.randn(len(x), 3)", "gives one clip another embedding each time"),
        ("n = []\ndef embed(x):\n    n.append(1)\n    return x[:, :3] + len(n)", "keeps a state between calls"),
        (
            "def embed(x):\n    raise RuntimeError('first\\nsecond')",
            "fails on 480000 samples of noise at 16000 Hz: first",
        ),
        ("embed = 3", "cannot be called"),
        ("class embed:\n    def __init__(self, size):\n        pass", "cannot be made without arguments"),
        ("def embed(x):\n    return x[:, :3]\nembed.dim = 5", "says that its size is 5 and gives 3 numbers"),
        ("def embed(x):\n    return x[:, :3]\nembed.sample_rate = 8000", "takes 8000 Hz, not 16000"),
        ("def other(x):\n    return x[:, :3]", "has no 'embed'"),
        ("import a_package_that_is_not_there\n", "needs a_package_that_is_not_there; install it first"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
    ]:
        with pytest.raises(InputError) as caught:
            load_model(f"call:{code(body)}:embed?rate=16000", trusted=True)
        assert message in str(caught.value) and "\n" not in str(caught.value), body
    for address, message in [
        ("call:no_such_module_here:f?rate=16000", "there is no module 'no_such_module_here'"),
        ("call:nowhere.py:f?rate=16000", "nowhere.py: no such file"),
        ("call:json", "write call:<module or path.py>:<name>"),
        (f"call:{code('def embed(x):  return x')}:embed", "nothing says at which rate it takes audio"),
    ]:
        with pytest.raises(InputError, match=message.replace("(", r"\(")):
            load_model(address, trusted=True)


# --- TorchScript


class Scripted(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * torch.stack([x.mean(1), x.square().mean(1), x.abs().amax(1)], 1)


class Detector(nn.Module):
    def forward(self, x: Tensor, sr: int) -> Tensor:
        return x[:, :1] * sr


def test_a_torchscript_file(tmp_path):
    paths = [tmp_path / f"{gain}.ts" for gain in (1, 2)]
    for gain, path in enumerate(paths, 1):
        torch.jit.save(torch.jit.script(Scripted(float(gain))), path)
    one, other = (load_model(f"torchscript:{path}?rate=16000") for path in paths)
    near(one.embed(CLIP), statistics(CLIP))
    near(other.embed(CLIP), 2 * statistics(CLIP))
    assert str(one.encoder.script) == str(other.encoder.script) and fingerprint(one) != fingerprint(other)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, torch.from_numpy(np.stack([CLIP] * 6)).split(1)))
    near(torch.cat(found).numpy(), [statistics(CLIP)] * 6)


def test_torchscript_that_asks_for_more_than_audio_is_refused_in_one_line(tmp_path):
    torch.jit.save(torch.jit.script(Detector()), tmp_path / "vad.jit")
    (tmp_path / "page.ts").write_text("<html>not found</html>")
    torch.jit.save(torch.jit.script(Scripted(1.0)), tmp_path / "m.ts")
    for address, message in [
        (f"torchscript:{tmp_path / 'vad.jit'}?rate=16000", "asks for x, sr; only programs of one waveform fit"),
        (f"torchscript:{tmp_path / 'page.ts'}?rate=16000", "damaged or not a TorchScript file"),
        (f"torchscript:{tmp_path / 'm.ts'}", "nothing says at which rate"),
        (f"torchscript:{tmp_path / 'absent.ts'}", "no such file"),
    ]:
        with pytest.raises(InputError) as caught:
            load_model(address)
        assert message in str(caught.value) and "\n" not in str(caught.value)


# --- torch.hub, HEAR, X-ARES


def test_a_torch_hub_folder(code, tmp_path):
    code(f"class Net(nn.Module):\n    sample_rate = 16000\n    def forward(self, x):\n        return {STATISTICS}\n"
         "def small(pretrained=False):\n    return Net()\ndef broken():\n    raise OSError('no weights')",
         "hub/hubconf.py")  # fmt: skip
    model = load_model(f"torchhub:{tmp_path / 'hub'}?entry=small", trusted=True)
    near(model.embed(CLIP), statistics(CLIP))
    (tmp_path / "empty").mkdir()
    for address, message in [
        (f"torchhub:{tmp_path / 'hub'}", r"which of its models\? add it, such as \?entry=NAME"),
        (f"torchhub:{tmp_path / 'hub'}?entry=large", "cannot be loaded: Cannot find callable large"),
        (f"torchhub:{tmp_path / 'hub'}?entry=broken", "cannot be loaded: no weights"),
        (f"torchhub:{tmp_path / 'empty'}?entry=small", "has no hubconf.py"),
        ("torchhub:a/b/c/d?entry=small", "no such folder, and no owner/repository on GitHub"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_model(address, trusted=True)
        assert "\n" not in str(caught.value)


HEAR = """
class Model(nn.Module):
    sample_rate, scene_embedding_size, timestamp_embedding_size = 16000, 3, 2
    def __init__(self, gain):
        super().__init__()
        self.register_buffer("gain", gain)
def load_model(path=""):
    return Model(torch.load(path) if path else torch.ones(1))
def get_scene_embeddings(x, model):
    return model.gain * torch.stack([x.mean(1), x.square().mean(1), x.abs().amax(1)], 1)
def get_timestamp_embeddings(x, model):
    frames = x.unfold(1, 400, 160)
    times = torch.arange(frames.shape[1]) * 10.0
    return torch.stack([frames.mean(2), frames.amax(2)], 2), times.repeat(len(x), 1)
"""


def test_a_hear_module(code, tmp_path):
    path = code(HEAR)
    model = load_model(f"hear:{path}", trusted=True)
    near(model.embed(CLIP), statistics(CLIP))
    assert (model.sample_rate, model.dim, model.encoder.frame_dim) == (16000, 3, 2)
    frames = model.frames(torch.from_numpy(CLIP)[None])
    near(frames[0, 7].numpy(), np.array([CLIP[1120:1520].mean(), CLIP[1120:1520].max()]))
    torch.save(2 * torch.ones(1), tmp_path / "weights.pt")
    louder = load_model(f"hear:{path}?weights={tmp_path / 'weights.pt'}", trusted=True)
    near(louder.embed(CLIP), 2 * statistics(CLIP))
    assert fingerprint(louder) != fingerprint(model)
    for text, message in [
        (
            HEAR.replace("Model(nn.Module)", "Model")
            .replace("super().__init__()", "")
            .replace("self.register_buffer(", "setattr(self, "),
            "only those of torch fit",
        ),
        (HEAR.replace("get_scene_embeddings", "get_scenes"), "has no 'get_scene_embeddings'"),
        (HEAR.replace("scene_embedding_size, t", "other, t"), None),
        (HEAR.replace("16000, 3, 2", "16000, 4, 2"), "says that its size is 4 and gives 3"),
        (
            HEAR.replace("    return Model(", "    raise OSError('weights are gone')\n    return Model("),
            "weights are gone",
        ),
    ]:
        address = f"hear:{code(text)}"
        if message is None:
            near(load_model(address, trusted=True).embed(CLIP), statistics(CLIP))
            continue
        with pytest.raises(InputError, match=message) as caught:
            load_model(address, trusted=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"absent.pt: no such file"):
        load_model(f"hear:{path}?weights={tmp_path / 'absent.pt'}", trusted=True)


XARES = """
class ToyEncoder(nn.Module):
    sampling_rate, output_dim, hop_size_in_ms = 16000, 2, 10
    def forward(self, x):
        frames = x.unfold(1, 400, 160)
        return torch.stack([frames.mean(2), frames.amax(2)], 2)
"""


def test_an_x_ares_encoder(code):
    model = load_model(f"xares:{code(XARES)}", trusted=True)
    frames = np.lib.stride_tricks.sliding_window_view(CLIP, 400)[::160]
    near(model.embed(CLIP), np.array([frames.mean(1).mean(), frames.max(1).mean()]))
    near(model.frames(torch.from_numpy(CLIP)[None])[0].numpy(), np.stack([frames.mean(1), frames.max(1)], 1))
    assert (model.sample_rate, model.dim, model.minimum_samples) == (16000, 2, 400)
    for text, message in [
        (XARES + "class SecondEncoder(ToyEncoder):\n    pass\n", "has 2 classes whose name ends in Encoder"),
        (XARES.replace("ToyEncoder", "Toy"), "has 0 classes"),
        (XARES.replace("sampling_rate, ", "other, "), "nothing says at which rate"),
        (XARES.replace("def forward", "def __init__(self, size):\n        pass\n    def forward"), "cannot be made"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_model(f"xares:{code(text)}", trusted=True)
        assert "\n" not in str(caught.value)


# --- trust


def test_code_runs_only_when_it_is_trusted(code, tmp_path, capsys):
    """Every kind of address that imports code, from Python and from a command; the marker proves that none ran."""
    marker = f"open({str(tmp_path / 'it ran')!r}, 'w').close()\n"
    module = code(marker + HEAR + XARES)
    code(marker + "def small():\n    return None", "hub/hubconf.py")
    soundfile.write(tmp_path / "clip.wav", CLIP, 16000)
    addresses = [f"call:{module}:load_model?rate=16000", f"hear:{module}", f"xares:{module}"]
    addresses += [f"torchhub:{tmp_path / 'hub'}?entry=small"]
    output = str(tmp_path / "out.parquet")
    for address in addresses:
        with pytest.raises(InputError, match="runs code that is not part of ssl_audio") as caught:
            load_model(address)
        assert "\n" not in str(caught.value)
        assert main(["embed", str(tmp_path / "clip.wav"), "--model", address, "--output", output]) == 2
        assert "add --trusted" in capsys.readouterr().err
    assert not (tmp_path / "it ran").exists()
    assert main(["embed", str(tmp_path / "clip.wav"), "--model", addresses[2], "--trusted", "--output", output]) == 0
    assert (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    "kind, arguments",
    [
        (CallEncoder, {"function": "os:system"}),
        (HearEncoder, {"model": "evil", "scene": "evil:scene"}),
        (XaresEncoder, {"model": "evil.py"}),
        (TorchScriptEncoder, {"script": "evil.ts"}),
        (OnnxEncoder, {"path": "evil.onnx", "front": None, "read": None, "output": "y", "rate": 1, "options": {}}),
        (TableEncoder, {"names": ["a"], "values": [[1.0]]}),
    ],
)
def test_no_config_makes_an_encoder_of_foreign_code(kind, arguments):
    encoder = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}
    model = {
        "class_path": "ssl_audio.model.EmbeddingModel",
        "init_args": {"frontend": {"class_path": "ssl_audio.frontends.Waveform"}, "encoder": encoder},
    }
    for spec in (encoder, model):
        with pytest.raises(InputError, match="which calls code outside ssl_audio"):
            build(spec)


@pytest.mark.parametrize(
    "path",
    ["ssl_audio.hub.foreign.call.load", "ssl_audio.hub.load_model", "ssl_audio.hub.foreign._importing.import_code"],
)
def test_no_config_calls_what_loads_foreign_code(path):
    with pytest.raises(InputError, match="not a torch module"):
        build({"class_path": path, "init_args": {}})


def test_every_encoder_that_stays_outside_is_known_to_be_refused():
    """A kind of address that is added is in the test above, or this fails."""
    from importlib import import_module

    from ssl_audio.encoders.outside import Outside
    from ssl_audio.hub.address import schemes

    for scheme in schemes():
        for one in vars(import_module(f"ssl_audio.hub.foreign.{scheme}")).values():
            if isinstance(one, type) and issubclass(one, Outside):
                assert one.by_address


def test_what_is_called_is_neither_saved_exported_nor_trained(code, tmp_path):
    model = load_model(f"xares:{code(XARES)}", trusted=True)
    for action, what in [
        (lambda: save_model(model, tmp_path / "saved"), "saved"),
        (lambda: export_torchscript(model, tmp_path / "model.ts"), "exported"),
        (lambda: nn.Sequential(model).train(), "trained"),
    ]:
        with pytest.raises(InputError, match=f"theirs0.py cannot be {what}") as caught:
            action()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "saved").exists() and not (tmp_path / "model.ts").exists()
