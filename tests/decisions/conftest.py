"""A tiny model, voices that it tells apart somewhat, and the model calibrated on them by the command."""

from pathlib import Path

import pytest
from helpers import tiny_model, write_voices

from ssl_audio.cli import main
from ssl_audio.hub import save_model


@pytest.fixture(scope="session")
def voices(tmp_path_factory) -> Path:
    return write_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory) -> Path:
    """A model's folder, not calibrated."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    save_model(tiny_model(), folder)
    return folder


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory, plain_model, voices) -> Path:
    """A model's folder with its calibration."""
    folder = tmp_path_factory.mktemp("models") / "calibrated"
    words = ["--model", str(plain_model), "--data", str(voices), "--output", str(folder), "--device", "cpu"]
    assert main(["calibrate", *words]) == 0
    return folder
