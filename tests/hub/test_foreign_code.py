"""`call:` and `torchscript:` addresses: any callable and any TorchScript file, each written by the test."""

import copy
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
from foreign_code import CLIP, STATISTICS, near, statistics
from helpers import tone
from torch import Tensor, nn

from ssl_audio import load_model
from ssl_audio.embedding import embed_files
from ssl_audio.errors import InputError
from ssl_audio.hub.foreign._external import Turn
from ssl_audio.provenance import fingerprint

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
    assert caplog.text.count("a clip's embedding depends on its batch, so each clip gets its own forward pass") == 1
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
        ("def embed(x):\n    return x.mean()", "returns the shape ()"),
        ("def embed(x):\n    return (x > 0)[:, :3]", "an embedding must have floats"),
        ("def embed(x):\n    return x[:, :3] * float('nan')", "returns NaN or infinite values"),
        (
            "def embed(x):\n    return torch.randn(len(x), 3)",
            "returns another embedding for the same clip in each call",
        ),
        (
            "n = []\ndef embed(x):\n    n.append(1)\n    return x[:, :3] + len(n)",
            "the state that it keeps between calls",
        ),
        (
            "def embed(x):\n    raise RuntimeError('first\\nsecond')",
            "fails on 480000 samples of noise at 16000 Hz: first",
        ),
        ("embed = 3", "cannot be called"),
        ("class embed:\n    def __init__(self, size):\n        pass", "cannot be made without arguments"),
        ("def embed(x):\n    return x[:, :3]\nembed.dim = 5", "states the size 5 but returns 3 numbers"),
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
        (f"call:{code('def embed(x):  return x')}:embed", "its sample rate is unknown"),
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
        (
            f"torchscript:{tmp_path / 'vad.jit'}?rate=16000",
            "takes x, sr; only programs that take the audio alone are supported",
        ),
        (f"torchscript:{tmp_path / 'page.ts'}?rate=16000", "damaged or not a TorchScript file"),
        (f"torchscript:{tmp_path / 'm.ts'}", "its sample rate is unknown"),
        (f"torchscript:{tmp_path / 'absent.ts'}", "no such file"),
    ]:
        with pytest.raises(InputError) as caught:
            load_model(address)
        assert message in str(caught.value) and "\n" not in str(caught.value)
