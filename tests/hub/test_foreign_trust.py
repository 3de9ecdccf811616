"""Code of others runs only when it is trusted, and never because of a config."""

import pytest
import soundfile
from foreign_code import CLIP, HEAR, XARES
from torch import nn

from ssl_audio import load_model, save_model
from ssl_audio.cli import main
from ssl_audio.config import build
from ssl_audio.errors import InputError
from ssl_audio.export import export_torchscript
from ssl_audio.hub.foreign._importing import CallEncoder
from ssl_audio.hub.foreign.hear import HearEncoder
from ssl_audio.hub.foreign.onnx import OnnxEncoder
from ssl_audio.hub.foreign.table import TableEncoder
from ssl_audio.hub.foreign.torchscript import TorchScriptEncoder
from ssl_audio.hub.foreign.xares import XaresEncoder


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
