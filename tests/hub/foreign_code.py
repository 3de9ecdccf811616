"""Code as others write it, for addresses that import code, and what it computes of a clip."""

import numpy as np
from helpers import tone

CLIP = tone(1.0)
STATISTICS = "torch.stack([x.mean(1), x.square().mean(1), x.abs().amax(1)], 1)"


def statistics(clip: np.ndarray) -> np.ndarray:
    return np.array([clip.mean(), np.square(clip).mean(), np.abs(clip).max()])


def near(vector: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(vector, expected, atol=1e-6)


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

XARES = """
class ToyEncoder(nn.Module):
    sampling_rate, output_dim, hop_size_in_ms = 16000, 2, 10
    def forward(self, x):
        frames = x.unfold(1, 400, 160)
        return torch.stack([frames.mean(2), frames.amax(2)], 2)
"""
