"""Training in a plain PyTorch loop: no Lightning CLI, no YAML.

    python examples/plain_pytorch.py               # needs: pip install 'ssl-audio[train]'

A method of `ssl_audio.methods` is a module whose `objective` takes two views of a batch and gives the loss.
"""

import numpy as np
import torch

from ssl_audio.data.synthetic import make_singer, sing
from ssl_audio.encoders import CompactCNN
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import MLP
from ssl_audio.methods import VICReg

RATE, SAMPLES = 16000, 8000  # views of half a second

torch.manual_seed(0)
rng = np.random.default_rng(0)
songs = [sing(make_singer(number), song=0, seconds=2, sample_rate=RATE) for number in range(16)]


def views() -> torch.Tensor:
    """`(batch, samples)`: a random part of each song."""
    starts = rng.integers(len(songs[0]) - SAMPLES, size=len(songs))
    parts = [song[start : start + SAMPLES] for song, start in zip(songs, starts, strict=True)]
    return torch.from_numpy(np.stack(parts))


method = VICReg(
    frontend=LogMelSpectrogram(sample_rate=RATE, n_fft=512, hop_length=256, n_mels=64, normalize="clip_mean"),
    encoder=CompactCNN([16, 32], normalize=True),
    projection=lambda dim: MLP(dim, [64, 64], batch_norm=True),
    gamma=1.0,  # the projection is not of unit length
    covariance_weight=1.0,
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    sample_rate=RATE,
)
optimizer = method.configure_optimizers()
for step in range(30):
    terms = method.objective(views(), views()).terms  # named parts; "loss" is their weighted sum
    optimizer.zero_grad()
    terms["loss"].backward()
    optimizer.step()
    if step % 10 == 9 or step == 0:
        print(f"step {step:2}: " + ", ".join(f"{name} {value.item():.3f}" for name, value in terms.items()))

vector = method.eval().embedding_model().embed(songs[0])
print(f"an embedding: {vector.shape[0]} numbers")
