"""The feature extractors of transformers in torch, so that they run on any device and have gradients.

Each class takes the settings in `preprocessor_config.json` as a mapping and has

    sample_rate                 sample rate of the audio in Hz
    shortest, window            samples of the shortest and of the longest clip; a window of None is no limit
    forward(clips)              `(batch, samples)` -> keyword arguments of the model
    frames(samples)             number of output frames that belong to a clip of this length; None for all frames

The extractors of transformers pad clips to the longest one in the batch, or draw random crops (CLAP). These do neither.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError
from ssl_audio.frontends import KaldiFilterbank, MelSpectrogram


class ModelInput(nn.Module):
    """The base of all extractors, see the module.

    Args:
        settings: settings of the extractor.
    """

    rate = 16000
    shortest: int = 1
    window: int | None = None

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.sample_rate = int(settings.get("sampling_rate", self.rate))

    def frames(self, samples: int) -> int | None:
        """Number of output frames that belong to a clip of `samples` samples; None for all frames."""
        return None


class WaveInput(ModelInput):
    """wav2vec 2.0 and similar models: samples. With `do_normalize`, each clip gets mean 0 and variance 1."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.normalize = bool(settings.get("do_normalize", True))

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        if self.normalize:
            centred = clips - clips.mean(dim=1, keepdim=True)
            clips = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()
        return {"input_values": clips}


class KaldiPairsInput(ModelInput):
    """w2v-BERT 2.0: 80 Kaldi bands, each with mean 0 and variance 1 over the clip; each two frames are concatenated.

    An odd last frame is left out. The extractor of transformers pads and masks it.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.stride = int(settings.get("stride", 2))
        self.filterbank = KaldiFilterbank(self.sample_rate, int(settings.get("num_mel_bins", 80)))
        self.shortest = self.filterbank.samples_for(max(2, self.stride))

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        features = self.filterbank(clips)
        centred = features - features.mean(dim=2, keepdim=True)
        features = centred / (features.var(dim=2, keepdim=True) + 1e-7).sqrt()
        count = features.shape[2] // self.stride
        pairs = features[:, :, : count * self.stride].transpose(1, 2)
        return {"input_features": pairs.unflatten(1, (count, self.stride)).flatten(2)}


class WhisperInput(ModelInput):
    """Whisper: log mel spectrum of 30 s. Shorter clips are padded with silence, whose frames are not pooled."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.hop = int(settings.get("hop_length", 160))
        self.length = self.window = int(settings.get("chunk_length", 30)) * self.sample_rate
        self.shortest = 2 * self.hop
        bands = int(settings.get("feature_size", 80))
        self.mel = MelSpectrogram(self.sample_rate, int(settings.get("n_fft", 400)), self.hop, bands, 0.0, 8000.0)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        mel = self.mel(F.pad(clips, (0, self.length - clips.shape[1])))[:, :, :-1]
        log_mel = mel.clamp(min=1e-10).log10()
        return {"input_features": (torch.maximum(log_mel, log_mel.amax(dim=(1, 2), keepdim=True) - 8) + 4) / 4}

    def frames(self, samples: int) -> int | None:
        return samples // self.hop // 2  # the second convolution halves the number of frames


class SpectrogramTransformerInput(ModelInput):
    """AST: Kaldi bands of samples in [-1, 1], padded with zeros to 1,024 frames, then centred and scaled."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.length = int(settings.get("max_length", 1024))
        self.mean, self.deviation = float(settings.get("mean", -4.2677393)), float(settings.get("std", 4.5689974))
        self.normalize = bool(settings.get("do_normalize", True))
        bands = int(settings.get("num_mel_bins", 128))
        self.filterbank = KaldiFilterbank(self.sample_rate, bands, window="hanning", scale=1.0)
        self.shortest, self.window = self.filterbank.samples_for(1), self.filterbank.samples_for(self.length)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        features = self.filterbank(clips).transpose(1, 2)
        features = F.pad(features, (0, 0, 0, self.length - features.shape[1]))
        return {"input_values": (features - self.mean) / (2 * self.deviation) if self.normalize else features}

    def frames(self, samples: int) -> int | None:
        """Frames of the filterbank, not of the output: the output is a grid of patches over time and bands."""
        return 1 + (samples - self.filterbank.size) // self.filterbank.hop


class ClapInput(ModelInput):
    """The audio tower of CLAP: mel spectrum of 10 s in decibels. Shorter clips are repeated, then padded with zeros."""

    rate = 48000

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.length = self.window = int(settings.get("max_length_s", 10)) * self.sample_rate
        self.shortest = int(settings.get("hop_length", 480))
        self.fused = settings.get("truncation", "fusion") == "fusion"
        self.padding = settings.get("padding", "repeatpad")
        size, bands = int(settings.get("fft_window_size", 1024)), int(settings.get("feature_size", 64))
        low, high = float(settings.get("frequency_min", 0)), float(settings.get("frequency_max", 14000))
        self.mel = MelSpectrogram(self.sample_rate, size, int(settings.get("hop_length", 480)), bands, low, high)
        if self.fused:  # these models use the mel bank of torchaudio
            from transformers.audio_utils import mel_filter_bank

            bank = mel_filter_bank(size // 2 + 1, bands, low, high, self.sample_rate, norm=None, mel_scale="htk")
            self.mel.mel_basis = torch.from_numpy(bank.T.copy()).float()

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        mel = self.mel(self._filled(clips)).clamp(min=1e-10)
        decibels = (10 * mel.log10()).transpose(1, 2).unsqueeze(1)
        longer = torch.zeros(
            len(clips), 1, dtype=torch.bool, device=clips.device
        )  # clips are never longer than the window
        return {"input_features": decibels.repeat(1, 4, 1, 1) if self.fused else decibels, "is_longer": longer}

    def _filled(self, clips: Tensor) -> Tensor:
        there, length = clips.shape[1], self.length
        if self.padding == "repeat":
            return clips.repeat(1, length // there + 1)[:, :length]
        if self.padding == "repeatpad":
            clips = clips.repeat(1, length // there)
        return F.pad(clips, (0, length - clips.shape[1]))


class ExtractorInput(ModelInput):
    """An extractor whose code belongs to a foreign model. It is called clip by clip, on the CPU.

    Args:
        settings: settings of the extractor.
        extractor: the extractor with these settings.
    """

    def __init__(self, settings: Mapping[str, Any], extractor: Any) -> None:
        super().__init__({"sampling_rate": getattr(extractor, "sampling_rate", self.rate), **settings})
        self.extractor = extractor

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        found: list[Mapping[str, Any]] = [
            self.extractor(np.ascontiguousarray(clip), sampling_rate=self.sample_rate, return_tensors="pt")
            for clip in clips.detach().cpu().numpy()
        ]
        try:
            joined = {name: torch.cat([torch.as_tensor(one[name]) for one in found]) for name in found[0]}
        except RuntimeError as error:
            raise InputError(
                f"the feature extractor of the model returns different shapes for clips of equal length ({error})"
            ) from error
        return {name: value.to(clips.device) for name, value in joined.items()}


INPUTS: dict[str, type[ModelInput]] = {
    "Wav2Vec2FeatureExtractor": WaveInput,
    "SeamlessM4TFeatureExtractor": KaldiPairsInput,
    "WhisperFeatureExtractor": WhisperInput,
    "ASTFeatureExtractor": SpectrogramTransformerInput,
    "ClapFeatureExtractor": ClapInput,
}
"""Name of an extractor in transformers: its class here."""
