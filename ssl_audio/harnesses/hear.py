"""HEAR 2021 (https://hearbenchmark.com): a module with `load_model` and the two functions for embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_audio.harnesses.frames import Frames, embed_clips
from ssl_audio.harnesses.source import Target, load

RATES = (16000, 22050, 32000, 44100, 48000)  # sample rates that HEAR offers, in Hz


class HearModel(Frames):
    """The model that `load_model` returns. It takes audio at `sample_rate`, which is one of the rates of HEAR."""

    def __init__(self, address: str, fingerprint: str) -> None:
        model = load(address, fingerprint)
        rate = next((rate for rate in RATES if rate >= model.sample_rate), RATES[-1])
        super().__init__(load(address, fingerprint, rate) if rate != model.sample_rate else model)
        self.sample_rate = rate
        self.scene_embedding_size = int(self.model.dim)
        self.timestamp_embedding_size = int(self.dim)


def functions(address: str, fingerprint: str) -> tuple[Callable, Callable, Callable]:
    """`load_model`, `get_scene_embeddings` and `get_timestamp_embeddings` for a model."""

    def load_model(path: str = "") -> HearModel:
        """Load the model. `path` is ignored, because the module has the address of the model."""
        return HearModel(address, fingerprint)

    return load_model, get_scene_embeddings, get_timestamp_embeddings


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """`(sounds, samples)` -> `(sounds, scene_embedding_size)` float32."""
    return embed_clips(model.model, audio)


@torch.inference_mode()
def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """`(sounds, samples)` -> `(sounds, frames, timestamp_embedding_size)` and the centres of the frames in ms."""
    frames = model(audio)
    times = torch.from_numpy(1000 * model.times(frames.shape[1])).to(frames)
    return frames, times.expand(len(frames), -1)


def source(target: Target) -> str:
    """The file for HEAR."""
    return f'''"""A model of ssl_audio for HEAR, written by `ssl-audio harness hear`.

    python -m heareval.embeddings.runner THIS_MODULE --tasks-dir tasks
"""

from ssl_audio.harnesses.hear import functions

load_model, get_scene_embeddings, get_timestamp_embeddings = functions({target.arguments})
'''
