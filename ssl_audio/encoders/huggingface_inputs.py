"""From waveforms to what a model of transformers reads: its feature extractor in torch, for any device and gradients.

Each class takes the settings of a `preprocessor_config.json` as a mapping and has

    sample_rate                 of the audio, in Hz
    shortest, window            samples that it needs, and takes at most (None: any number)
    forward(clips)              `(batch, samples)` -> keyword arguments of the model
    frames(samples)             how many frames of the model's output belong to the clip; None: all of them

Extractors of the library itself pad to the longest clip of a batch or draw random crops (CLAP); these do neither.
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
    """What every class here has; see the module.

    Args:
        settings: of the extractor.
    """

    rate = 16000
    shortest: int = 1
    window: int | None = None

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.sample_rate = int(settings.get("sampling_rate", self.rate))

    def frames(self, samples: int) -> int | None:
        """How many frames of the output belong to a clip of so many samples; None: all of them."""
        return None


class WaveInput(ModelInput):
    """wav2vec 2.0 and its kin: the samples, each clip brought to zero mean and unit variance with `do_normalize`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.normalize = bool(settings.get("do_normalize", True))

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        if self.normalize:
            centred = clips - clips.mean(dim=1, keepdim=True)
            clips = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()
        return {"input_values": clips}


class KaldiPairsInput(ModelInput):
    """w2v-BERT 2.0: 80 Kaldi bands, each to zero mean and unit deviation over the clip, frames side by side in pairs.

    A last frame without a partner is left out; the library's extractor pads and masks it.
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
    """Whisper: log mel spectrum of 30 s, shorter clips followed by silence that no vector sees."""

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
        return samples // self.hop // 2  # the second convolution halves them


class SpectrogramTransformerInput(ModelInput):
    """AST: Kaldi bands of the unscaled samples, followed by zeros up to 1,024 frames, then centred and scaled."""

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
        """Of the filterbank, not of the output, whose patches are a picture."""
        return 1 + (samples - self.filterbank.size) // self.filterbank.hop


class ClapInput(ModelInput):
    """CLAP's audio tower: decibels of a mel spectrum of 10 s; shorter clips are repeated, then followed by silence."""

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
        if self.fused:  # another bank, torchaudio's
            from transformers.audio_utils import mel_filter_bank

            bank = mel_filter_bank(size // 2 + 1, bands, low, high, self.sample_rate, norm=None, mel_scale="htk")
            self.mel.mel_basis = torch.from_numpy(bank.T.copy()).float()

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        mel = self.mel(self._filled(clips)).clamp(min=1e-10)
        decibels = (10 * mel.log10()).transpose(1, 2).unsqueeze(1)
        longer = torch.zeros(len(clips), 1, dtype=torch.bool, device=clips.device)  # never longer than the window
        return {"input_features": decibels.repeat(1, 4, 1, 1) if self.fused else decibels, "is_longer": longer}

    def _filled(self, clips: Tensor) -> Tensor:
        there, length = clips.shape[1], self.length
        if self.padding == "repeat":
            return clips.repeat(1, length // there + 1)[:, :length]
        if self.padding == "repeatpad":
            clips = clips.repeat(1, length // there)
        return F.pad(clips, (0, length - clips.shape[1]))


class ExtractorInput(ModelInput):
    """An extractor that came as code with a model, called clip by clip on the CPU.

    Args:
        settings: of the extractor.
        extractor: made of them.
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
            raise InputError(f"its feature extractor gives clips of one length different shapes ({error})") from error
        return {name: value.to(clips.device) for name, value in joined.items()}


INPUTS: dict[str, type[ModelInput]] = {
    "Wav2Vec2FeatureExtractor": WaveInput,
    "SeamlessM4TFeatureExtractor": KaldiPairsInput,
    "WhisperFeatureExtractor": WhisperInput,
    "ASTFeatureExtractor": SpectrogramTransformerInput,
    "ClapFeatureExtractor": ClapInput,
}
"""The library's name of an extractor -> ours."""
