"""`onnx:<file>`: a network in onnxruntime that takes waveforms or Kaldi filterbanks.

    onnx:model.onnx                                         written by `ssl-audio export`; model.json has the rest
    onnx:voxceleb_resnet34.onnx?front=kaldi80-hamming-scaled-cmn
    onnx:campplus.onnx?front=kaldi80-povey-unit-cmn         3D-Speaker
    onnx:basic_pitch.onnx?rate=22050&output=note            a fixed window; longer clips are cut into windows

The front end of a network is, in this order: the option `front`; what the metadata of the file say (sherpa-onnx); what
the names of its input and output say. The sample rate is: the option `rate`; what the JSON file beside it says; what
the metadata say; 16 kHz for networks that take 80 bands. A guess is logged.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.errors import InputError, suggest
from ssl_audio.export import open_session
from ssl_audio.frontends import KALDI_WINDOWS, KaldiFilterbank
from ssl_audio.hub.address import Address, Option
from ssl_audio.hub.foreign._external import External, described_beside, existing, file_sha256, finished
from ssl_audio.hub.foreign._options import RATE, SHORT_CLIPS
from ssl_audio.hub.levels import as_described
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.extras import install_command

_WAVEFORM = "waveform"
_BANDS = range(24, 161)  # a fixed dimension of this size is the number of bands
_BY_NAME = {  # names of input and output: front end
    ("feats", "embs"): "kaldi80-hamming-scaled-cmn",  # wespeaker
    ("feature", "embedding"): "kaldi80-povey-unit-cmn",  # 3D-Speaker
}
_VECTORS = ("embedding", "embs", "embeddings", "emb")  # names by which an output is chosen among several
_TYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}

logger = logging.getLogger("ssl_audio.hub.foreign")


@dataclass(frozen=True)
class Front:
    """The front end of a network, written as `waveform` or `kaldi<bands>-<window>-<scaled or unit>[-cmn]`.

    Attributes:
        bands: number of bands; 0 for waveforms.
        window: window of the Kaldi filterbank.
        scaled: samples are in the range of 16 bits instead of [-1, 1].
        cmn: the mean over time is subtracted (cepstral mean normalisation).
    """

    bands: int = 0
    window: str = "povey"
    scaled: bool = False
    cmn: bool = False

    @classmethod
    def parse(cls, text: str) -> "Front":
        """Read the written form. Raises ValueError if it is wrong."""
        first, *rest = text.split("-")
        if text == _WAVEFORM:
            return cls()
        bands, cmn = int(first.removeprefix("kaldi")), "cmn" in rest[2:]
        if not first.startswith("kaldi") or bands < 1 or len(rest) != 2 + cmn:
            raise ValueError(text)
        if rest[0] not in KALDI_WINDOWS or rest[1] not in ("scaled", "unit"):
            raise ValueError(text)
        return cls(bands, rest[0], rest[1] == "scaled", cmn)

    def __str__(self) -> str:
        if not self.bands:
            return _WAVEFORM
        return f"kaldi{self.bands}-{self.window}-{'scaled' if self.scaled else 'unit'}" + ("-cmn" if self.cmn else "")


OPTIONS = {
    "front": Option(Front.parse, "waveform, or kaldi80-hamming-scaled-cmn: bands, window (povey, hamming, hanning), "
        "samples scaled to 16 bits or unit, and cmn to subtract the mean over time"),
    "rate": RATE,
    "output": Option(str, "the name of the output to use"),
    "short": SHORT_CLIPS,
}  # fmt: skip


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The model of a network, which runs in onnxruntime on the CPU.

    Raises:
        InputError: there is no such file, the network takes something else than one waveform or filterbank, or an
            option is missing.
    """
    path = existing(address.text, address.rest)
    try:
        session = open_session(path, 1)
    except ModuleNotFoundError as error:
        install = install_command("export")
        raise InputError(f"{address.text} needs {error.name}; install it with: {install}") from error
    facts, beside = session.get_modelmeta().custom_metadata_map, described_beside(path)
    read = _input(address, session)
    front, why = _front(address, options.get("front"), facts, read, session)
    _check_bands(address, front, read)
    rate, known = _rate(address, options.get("rate"), facts, beside, front)
    if front.bands and ("front" not in options or "rate" not in options):  # for waveforms nothing is guessed
        logger.warning(f"{address.text}: takes {front} ({why}) at {rate} Hz ({known})")
    encoder = OnnxEncoder(path, front, read, _output(address, options.get("output"), session), rate, options)
    encoder.sessions[1] = session
    encoder.refer(address.text, file_sha256(path), front=str(front), output=encoder.output, short=encoder.short)
    shortest = beside.get("minimum_samples") if isinstance(beside.get("minimum_samples"), int) else None
    return as_described(finished(encoder, rate, shortest=encoder.window or shortest), beside, address.text)


@dataclass(frozen=True)
class Read:
    """The input of a network.

    Attributes:
        name: name in the graph.
        dtype: type of its numbers.
        rank: number of its dimensions.
        batch: None if it takes any number of clips, else 1.
        time: index of the dimension along time.
        length: size of that dimension; None if it is free.
        bands: size of the remaining dimension; None if it is free, 1 for waveforms.
    """

    name: str
    dtype: torch.dtype
    rank: int
    batch: int | None
    time: int
    length: int | None
    bands: int | None


class OnnxEncoder(External):
    """The encoder of an ONNX file.

    Several threads may call it at the same time. A call uses as many threads as torch has in the calling thread.

    Args:
        path: the file.
        front: the front end.
        read: the input of the network.
        output: name of the output.
        rate: sample rate in Hz.
        options: options of the address.
    """

    def __init__(
        self, path: Path, front: Front, read: Read, output: str, rate: int, options: Mapping[str, Any]
    ) -> None:
        fixed = read.length is not None
        super().__init__(options.get("short", "pad" if fixed else "refuse"), read.batch is None, locked=False)
        self.path, self.front, self.read, self.output = path, front, read, output
        scale = 32768.0 if front.scaled else 1.0
        self.filterbank: KaldiFilterbank | None = None
        if front.bands:
            self.filterbank = KaldiFilterbank(rate, front.bands, window=front.window, scale=scale, cmn=front.cmn)
        if read.length is not None:
            self.window = self.filterbank.samples_for(read.length) if self.filterbank else read.length
        self.sessions: dict[int, Any] = {}

    def call(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)` or frames."""
        x = clips
        if self.filterbank is not None:
            x = self.filterbank(clips)
            x = x if self.read.time == 2 else x.transpose(1, 2)
        elif self.read.rank == 3:
            x = clips.unsqueeze(1 if self.read.time == 2 else 2)
        feed = {self.read.name: x.to(self.read.dtype).cpu().contiguous().numpy()}
        return torch.from_numpy(self._session().run([self.output], feed)[0])

    def _session(self) -> Any:
        threads = torch.get_num_threads()
        if threads not in self.sessions:
            self.sessions[threads] = open_session(self.path, threads)
        return self.sessions[threads]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sessions": {}}  # sessions cannot be copied; a copy opens its own


def _input(address: Address, session: Any) -> Read:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(f"{one.name} {one.shape}" for one in inputs)
        raise InputError(
            f"{address.text} takes {len(inputs)} inputs ({names}); only networks with one input are supported"
        )
    one = inputs[0]
    shape = [size if isinstance(size, int) else None for size in one.shape]
    if one.type not in _TYPES or len(shape) not in (2, 3) or shape[0] not in (None, 1):
        raise InputError(
            f"{address.text} takes {one.name}, {one.type} of shape {one.shape}; it must be floats of shape "
            "(batch, samples), (batch, frames, bands) or (batch, bands, frames)"
        )
    if len(shape) == 2:
        return Read(one.name, _TYPES[one.type], 2, shape[0], 1, shape[1], 1)
    middle, last = shape[1:]
    time = 2 if middle == 1 or (middle in _BANDS and last not in _BANDS) else 1
    return Read(one.name, _TYPES[one.type], 3, shape[0], time, shape[time], shape[3 - time])


def _front(
    address: Address, asked: Front | None, facts: Mapping[str, str], read: Read, session: Any
) -> tuple[Front, str]:
    """The front end of the network, and the source of this information.

    Raises:
        InputError: it is unknown, or not supported.
    """
    if asked is not None:
        return asked, "as given"
    framework = facts.get("framework", "").lower()
    if framework == "nemo":
        raise InputError(
            f"{address.text} is a NeMo model; its mel spectrum is not supported, take a file of wespeaker or 3D-Speaker"
        )
    if read.bands != 1 and "normalize_samples" in facts:
        window = "hamming" if framework == "wespeaker" else "povey"
        cmn = facts.get("feature_normalize_type") == "global-mean"
        return Front(read.bands or 80, window, facts["normalize_samples"] == "0", cmn), "by its metadata"
    if read.bands == 1:
        return Front(), "by the shape of its input"
    for names, front in _BY_NAME.items():
        if names == (read.name, session.get_outputs()[0].name) and read.bands in (None, 80):
            return Front.parse(front), f"by its names {names[0]} and {names[1]}"
    shape = session.get_inputs()[0].shape
    raise InputError(
        f"{address.text} takes features of shape {shape}, but their kind is unknown; add front=, such as "
        "?front=kaldi80-hamming-scaled-cmn (wespeaker) or kaldi80-povey-unit-cmn (3D-Speaker)"
    )


def _rate(
    address: Address, asked: int | None, facts: Mapping[str, str], beside: Mapping[str, Any], front: Front
) -> tuple[int, str]:
    """The sample rate in Hz, and the source of this information.

    Raises:
        InputError: it is unknown, or the option differs from the file.
    """
    told = beside.get("sample_rate") or facts.get("sample_rate")
    if told is not None and asked is not None and asked != int(told):
        raise InputError(f"{address.text} takes {told} Hz, not {asked}; leave rate out, because audio is resampled")
    if asked is not None:
        return asked, "as given"
    if told is not None:
        return int(told), "by its metadata"
    if front.bands == 80:
        return 16000, "usual for 80 bands"
    raise InputError(f"{address.text}: its sample rate is unknown; add it, such as ?rate=16000")


def _check_bands(address: Address, front: Front, read: Read) -> None:
    if bool(front.bands) != (read.bands != 1) or (front.bands and read.bands not in (None, front.bands)):
        reads = "a waveform" if read.bands == 1 else f"{read.bands or 'any number of'} bands"
        raise InputError(
            f"{address.text}: front is {front}, but the network takes {reads}; change front, or leave it out"
        )


def _output(address: Address, asked: str | None, session: Any) -> str:
    names = [one.name for one in session.get_outputs()]
    if asked is not None:
        if asked not in names:
            raise InputError(f"{address.text}: has no output {asked!r}{suggest(asked, names)}")
        return asked
    known = [name for name in names if name in _VECTORS]
    if len(names) > 1 and not known:
        raise InputError(f"{address.text} has the outputs {', '.join(names)}; choose one, such as ?output={names[0]}")
    return (known or names)[0]
