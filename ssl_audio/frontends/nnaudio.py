"""Any layer of nnAudio as a frontend."""

import copy
import inspect
import io
import warnings
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError, suggest
from ssl_audio.frontends.base import Frontend, check_length
from ssl_audio.frontends.mel import check_log, normalized

_INVERSE = ("Griffin_Lim", "iSTFT", "STFTBase")  # no features of a waveform
_LONGEST = 1 << 22  # samples; a layer that takes no clip of this length takes none
_RATES = ("sr", "fs")  # names of the sample rate in nnAudio


class NnAudio(Frontend):
    """A layer of `nnAudio.features`: MelSpectrogram, MFCC, Gammatonegram, STFT, CQT, VQT, and the variants of CQT.

    The features are what the layer gives, in float32 also under autocast; with `log_offset`, their logarithm. What is
    trainable in the layer (`trainable_mel`, `trainable_STFT`, `trainable`, ...) is trained with the encoder and saved
    with it.

    Frames and the shortest clip are not computed from formulas: they are read from the shapes that the layer gives on
    torch's meta device, which computes no values. So they are exact for every layer and every option.

    Args:
        layer: class of the layer, such as `CQT` or `nnAudio.features.CQT`.
        sample_rate: of the audio in Hz; the layer gets it as `sr`.
        options: further arguments of the layer, such as `{hop_length: 256, n_bins: 60}`. Layers with an
            `output_format` give magnitudes.
        log_offset: added before the logarithm; None takes no logarithm.
        normalize: rule for the values of each clip, as in `LogMelSpectrogram`.

    Raises:
        InputError: nnAudio has no such layer, or the layer refuses its options.

    Example:
        >>> frontend = NnAudio("CQT", 16000, {"hop_length": 256, "fmin": 110.0, "n_bins": 48}, log_offset=1e-6)
        >>> frontend(torch.randn(2, 16000)).shape, frontend.minimum_samples
        (torch.Size([2, 48, 63]), 2049)
    """

    def __init__(
        self,
        layer: str = "MelSpectrogram",
        sample_rate: int = 22050,
        options: dict[str, Any] | None = None,
        log_offset: float | None = None,
        normalize: str = "none",
    ) -> None:
        super().__init__()
        check_log(1.0 if log_offset is None else log_offset, normalize)
        self.layer = layer
        self.sample_rate = sample_rate
        self.options = options
        self.log_offset = log_offset
        self.normalize = normalize
        self.transform = _make(layer, sample_rate, options or {})
        self._frames = _FrameCount(self.transform)
        self.minimum_samples = self._frames.shortest(1)

    def frames(self, samples: int) -> int:
        """The number of frames of a clip of `samples` samples; 0 if the clip is too short."""
        return self._frames(samples)

    def samples_for(self, frames: int) -> int:
        return self._frames.shortest(frames)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, bands, frames)`, float32.

        Raises:
            InputError: the clips are shorter than `minimum_samples`.
        """
        check_length(waveforms, self.minimum_samples, self.minimum_samples)
        with torch.autocast(waveforms.device.type, enabled=False):
            features = self.transform(waveforms.float())
            if self.log_offset is not None:
                features = torch.log(features + self.log_offset)
            return normalized(features, self.normalize)


class _FrameCount:
    """The frames that a layer gives for a number of samples, from its shapes on the meta device."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = copy.deepcopy(layer).to("meta")
        self.counted: dict[int, int] = {}
        self.reason = ""

    def __call__(self, samples: int) -> int:
        if samples not in self.counted:
            self.counted[samples] = self._count(samples)
        return self.counted[samples]

    def _count(self, samples: int) -> int:
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of short clips
                return int(self.layer(torch.empty(1, samples, device="meta")).shape[-1])
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            self.reason = " ".join(str(error).split())
            return 0

    def shortest(self, frames: int) -> int:
        """The least number of samples that gives `frames` frames: more samples never give fewer frames."""
        low, high = 0, 1024
        while self(high) < frames:
            low, high = high, 2 * high
            if high > max(_LONGEST, frames << 16):
                raise InputError(f"the layer gives no features of a clip of {low} samples: {self.reason}")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self(middle) >= frames else (middle, high)
        return high


def _make(name: str, sample_rate: int, options: dict[str, Any]) -> nn.Module:
    """The layer, silent, with magnitudes. Raises InputError: see `NnAudio`."""
    kind = _find(name)
    names, own = _accepted(kind), inspect.signature(kind).parameters
    rate = next((key for key in _RATES if key in names), None)
    for key in options:
        if key not in names:
            raise InputError(f"options.{key} is no argument of nnAudio's {kind.__name__}{suggest(key, names)}")
        if key == rate:
            raise InputError(f"options.{key} is the sample rate; give it as sample_rate")
    given = {"verbose": False, "output_format": "Magnitude", **({rate: sample_rate} if rate else {})}
    given = {key: value for key, value in given.items() if key in own} | options
    if given.get("output_format", "Magnitude") != "Magnitude":
        raise InputError(f"options.output_format is {given['output_format']!r}; encoders take 'Magnitude'")
    try:
        with redirect_stdout(io.StringIO()):  # some layers print although verbose is false
            return kind(**given)
    except Exception as error:  # nnAudio checks its arguments by whatever fails first
        reason = " ".join(str(error).split())
        raise InputError(f"nnAudio's {kind.__name__} refuses its options {options}: {reason}") from error


def _accepted(kind: type[nn.Module]) -> list[str]:
    """Names of the arguments of a layer, with those that it passes on as **kwargs to a mel spectrogram or an STFT."""
    parameters = inspect.signature(kind).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if len(names) == len(parameters):
        return names
    further = "STFT" if "n_fft" in names else "MelSpectrogram"
    return list(dict.fromkeys([*names, *_accepted(_find(further))]))


def _find(name: str) -> type[nn.Module]:
    import nnAudio.features

    module, _, short = name.rpartition(".")
    layers = [
        key
        for key, kind in vars(nnAudio.features).items()
        if inspect.isclass(kind) and issubclass(kind, nn.Module) and key not in _INVERSE
    ]
    if short not in layers or module.split(".")[0] not in ("", "nnAudio"):
        raise InputError(f"layer is {name!r}, no layer of nnAudio.features with features{suggest(short, layers)}")
    return getattr(nnAudio.features, short)
