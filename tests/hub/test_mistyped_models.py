"""Models that are named wrongly: one line, at once, with a remedy that works."""

import shutil
import socket
from pathlib import Path

import pytest
from helpers import tiny_model

from ssl_audio import load_model, save_model
from ssl_audio.cli import main
from ssl_audio.errors import InputError
from ssl_audio.hub.place import find_checkpoint
from ssl_audio.provenance import fingerprint
from ssl_audio.weights import first_not_finite


def test_a_mistyped_run_is_not_asked_for_on_the_hub(tmp_path, monkeypatch):
    def connect(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(6), "runs/contrastive")
    with pytest.raises(InputError, match=r"^runs/contrastiv: no such file or folder; did you mean 'contrastive'\?$"):
        load_model("runs/contrastiv")
    for name in ("m.ts", "run/", "m.safetensors"):
        with pytest.raises(InputError, match="no such file or folder"):
            load_model(name)


def test_a_torchscript_file_of_export_is_read_as_its_message_says(tmp_path, capsys, write_tone):
    save_model(tiny_model(6), tmp_path / "model")
    script, tone = str(tmp_path / "m.ts"), str(write_tone(tmp_path / "a.wav"))
    assert main(["export", "--model", str(tmp_path / "model"), "--format", "torchscript", "--output", script]) == 0
    command = ["embed", tone, "--output", str(tmp_path / "e.npz"), "--model"]
    assert main([*command, script]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(f"name it torchscript:{script}")
    assert main([*command, f"torchscript:{script}"]) == 0


def test_convert_does_not_replace_a_file_by_a_folder(tmp_path, capsys):
    folder = Path(__file__).parents[1] / "data" / "made_by_0_1" / "runs" / "byol" / "0"
    (tmp_path / "there").write_text("mine")
    assert main(["convert", "--checkpoint", str(folder), "--output", str(tmp_path / "there")]) == 2
    assert "there: is a file; give another folder" in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "mine"


def test_weights_that_are_not_finite_are_refused_wherever_a_model_is_loaded(tmp_path, capsys, write_tone):
    model = tiny_model(6)
    model.encoder.projection.weight.data[0, 0] = float("nan")
    assert first_not_finite(model) == "encoder.projection.weight"
    save_model(model, tmp_path / "m")
    tone = str(write_tone(tmp_path / "a.wav"))
    assert main(["embed", tone, "--model", str(tmp_path / "m"), "--output", str(tmp_path / "e.npz")]) == 2
    assert "weights are not finite (encoder.projection.weight)" in capsys.readouterr().err
    assert not (tmp_path / "e.npz").exists()


def test_the_name_of_a_run_stands_for_its_newest_version(tmp_path, caplog):
    stored = Path(__file__).parents[1] / "data" / "made_by_0_1" / "runs"
    for number, run in (("2", "contrastive/0"), ("10", "byol/0")):
        shutil.copytree(stored / run, tmp_path / "mine" / number)
    (tmp_path / "mine" / "11").mkdir()  # has not saved a checkpoint yet
    found = load_model(tmp_path / "mine")
    assert fingerprint(found) == fingerprint(load_model(stored / "byol" / "0"))
    assert f"holds 2 runs; the newest is taken, {tmp_path / 'mine' / '10'}" in caplog.text
    assert find_checkpoint(tmp_path / "mine").parent.parent.name == "10"
