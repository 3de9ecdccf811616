"""A network from another package as an encoder: wrapped, checked, trained for two steps, saved, loaded.

    python examples/own_encoder.py                 # needs: pip install 'ssl-audio[train]'

The same class trains from YAML. With this file in the folder where the command is typed, as `own_encoder.py`:

    model:
      encoder: {class_path: own_encoder.EfficientNetB2, init_args: {embedding_dim: 256}}

    ssl-audio train --config common --config contrastive --config own.yaml --data.dataset_dirs '[my_voices]'
"""

import tempfile
from pathlib import Path

import torch
from efficientnet_pytorch import EfficientNet  # any torch module does: timm's, transformers', your own
from torch import Tensor

from ssl_audio import load_model, save_model
from ssl_audio.encoders import Encoder
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import Projection
from ssl_audio.methods import Contrastive
from ssl_audio.testing import check_encoder


class EfficientNetB2(Encoder):
    """EfficientNet-B2 of `efficientnet-pytorch`, which this package does not have.

    Args:
        embedding_dim: size of the embedding.
    """

    minimum_frames = 4  # `check_encoder` says what the shortest input is

    def __init__(self, embedding_dim: int = 256) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim  # stored under its own name: a saved model needs it
        self.dim = embedding_dim
        self.net = EfficientNet.from_name("efficientnet-b2", in_channels=1, num_classes=embedding_dim)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.net(features.unsqueeze(1))


def main() -> None:
    torch.manual_seed(0)
    frontend = LogMelSpectrogram(sample_rate=16000, n_fft=512, hop_length=256, n_mels=64)
    check_encoder(EfficientNetB2(), frontend)  # fails with a sentence if the class breaks a promise of encoders

    method = Contrastive(
        frontend=frontend,
        encoder=EfficientNetB2(embedding_dim=256),
        projection=lambda dim: Projection(dim, 64),
        sample_rate=16000,
    )
    optimizer = method.configure_optimizers()
    for step in range(2):
        clip1, clip2 = 0.1 * torch.randn(2, 4, 16000)  # your two views of four recordings
        loss = method.objective(clip1, clip2).terms["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")

    model = method.eval().embedding_model()
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder) / "model")
        # The config of the saved model names `own_encoder.EfficientNetB2`. Loading it imports that module, which runs
        # code, so it is asked for: trusted=True says that you know where the model comes from.
        again = load_model(Path(folder) / "model", trusted=True)
    clip = 0.1 * torch.randn(16000)
    assert (again.embed(clip) == model.embed(clip)).all()
    print(f"loaded again: the same {again.dim} numbers for the same clip")


if __name__ == "__main__":
    # Under its own name: a saved model names the module of its class, and `__main__` is another module next time.
    import own_encoder

    own_encoder.main()
