"""What the tests of serving share: a model with a library and its index."""

from pathlib import Path

import pytest
import torch
from helpers import tone
from servers import RATE

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.encoders import CompactCNN
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.saved import save_model
from ssl_audio.model import EmbeddingModel


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> tuple[Path, EmbeddingModel]:
    """A folder with a saved model, a library of 12 tones, its index, and the model itself."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    frontend = LogMelSpectrogram(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=32, normalize="band")
    model = EmbeddingModel(frontend, CompactCNN(channels=[8, 8], embedding_dim=16), sample_rate=RATE).eval()
    save_model(model, folder / "model")
    for i in range(12):
        audio.write(folder / "library" / "abc"[i % 3] / f"{i}.wav", tone(frequency=110.0 + 40 * i, seed=i), RATE)
    arguments = ["--model", str(folder / "model"), "--output", str(folder / "library.index")]
    assert main(["index", str(folder / "library"), *arguments]) == 0
    return folder, model
