"""`onnx:<file>`: a network in onnxruntime that reads waveforms or Kaldi filterbanks.

    onnx:model.onnx                                         what `ssl-audio export` wrote: the rest is in model.json
    onnx:voxceleb_resnet34.onnx?front=kaldi80-hamming-scaled-cmn
    onnx:campplus.onnx?front=kaldi80-povey-unit-cmn         3D-Speaker's
    onnx:basic_pitch.onnx?rate=22050&output=note            a fixed window, which slides over longer clips

What a network reads is taken from `front`, else from the file's metadata (sherpa-onnx), else from the names of its
input and output, and is printed. Its rate is taken from `rate`, the JSON file beside it, or the metadata; networks that
read 80 bands are taken to be for 16 kHz.
"""

import json
import logging
import os
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
from ssl_audio.hub.foreign._external import External, existing, file_sha256, finished
from ssl_audio.hub.foreign._options import RATE, SHORT_CLIPS
from ssl_audio.hub.levels import as_described
from ssl_audio.model import EmbeddingModel

_WAVEFORM = "waveform"
_BANDS = range(24, 161)  # what a fixed dimension means that is neither a batch nor a window
_BY_NAME = {  # names of input and output -> front end
    ("feats", "embs"): "kaldi80-hamming-scaled-cmn",  # wespeaker
    ("feature", "embedding"): "kaldi80-povey-unit-cmn",  # 3D-Speaker
}
_VECTORS = ("embedding", "embs", "embeddings", "emb")  # outputs that are taken where there are several
_TYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}

logger = logging.getLogger("ssl_audio.hub.foreign")


@dataclass(frozen=True)
class Front:
    """What a network reads: `waveform`, or `kaldi<bands>-<window>-<scaled or unit>[-cmn]`.

    Attributes:
        bands: 0 for waveforms.
        window: of Kaldi's filterbank.
        scaled: samples in steps of 16 bits, not in [-1, 1].
        cmn: the mean over time is subtracted.
    """

    bands: int = 0
    window: str = "povey"
    scaled: bool = False
    cmn: bool = False

    @classmethod
    def parse(cls, text: str) -> "Front":
        """From its name; raises ValueError."""
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
        "samples scaled to 16 bits or unit, and cmn where the mean over time is subtracted"),
    "rate": RATE,
    "output": Option(str, "the name of the output to take"),
    "short": SHORT_CLIPS,
}  # fmt: skip


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The network in onnxruntime, on the CPU.

    Raises:
        InputError: no such file, no network of one waveform or filterbank, or something that must be asked for.
    """
    path = existing(address.text, address.rest)
    try:
        session = open_session(path, 1)
    except ModuleNotFoundError as error:
        install = "pip install 'ssl-audio[export]'"
        raise InputError(f"{address.text} needs {error.name}; install it with: {install}") from error
    facts, beside = session.get_modelmeta().custom_metadata_map, _beside(path)
    read = _input(address, session)
    front, why = _front(address, options.get("front"), facts, read, session)
    _check_bands(address, front, read)
    rate, known = _rate(address, options.get("rate"), facts, beside, front)
    if front.bands and ("front" not in options or "rate" not in options):  # a waveform is seen, not guessed
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
        name: in the graph.
        dtype: of its numbers.
        rank: of its shape.
        batch: None if any number of clips passes, else 1.
        time: dimension along time.
        length: of that dimension, where it is fixed.
        bands: fixed size of the other one; None where it may be anything, 1 for waveforms.
    """

    name: str
    dtype: torch.dtype
    rank: int
    batch: int | None
    time: int
    length: int | None
    bands: int | None


class OnnxEncoder(External):
    """See `load`. Threads that call it at once share no lock; each uses as many threads as torch has in it.

    Args:
        path: of the file.
        front, read: what the network reads.
        output: the output's name.
        rate: in Hz.
        options: of the address.
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
        return {**self.__dict__, "sessions": {}}  # they are opened again where a copy is used


def _input(address: Address, session: Any) -> Read:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(f"{one.name} {one.shape}" for one in inputs)
        raise InputError(f"{address.text} asks for {len(inputs)} inputs ({names}); only networks of one waveform fit")
    one = inputs[0]
    shape = [size if isinstance(size, int) else None for size in one.shape]
    if one.type not in _TYPES or len(shape) not in (2, 3) or shape[0] not in (None, 1):
        raise InputError(
            f"{address.text} reads {one.name}, {one.type} of shape {one.shape}; it must be floats of shape "
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
    """What the network reads, and how that is known."""
    if asked is not None:
        return asked, "as given"
    framework = facts.get("framework", "").lower()
    if framework == "nemo":
        raise InputError(f"{address.text} is NeMo's, whose mel spectrum is not Kaldi's; such files are not supported")
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
        f"{address.text} reads features of shape {shape}, and nothing says which; add front=, such as "
        "?front=kaldi80-hamming-scaled-cmn (wespeaker) or kaldi80-povey-unit-cmn (3D-Speaker)"
    )


def _rate(
    address: Address, asked: int | None, facts: Mapping[str, str], beside: Mapping[str, Any], front: Front
) -> tuple[int, str]:
    """The rate in Hz, and how it is known."""
    told = beside.get("sample_rate") or facts.get("sample_rate")
    if told is not None and asked is not None and asked != int(told):
        raise InputError(f"{address.text}: its file says {told} Hz, not {asked}; leave rate out, audio is resampled")
    if asked is not None:
        return asked, "as given"
    if told is not None:
        return int(told), "by its metadata"
    if front.bands == 80:
        return 16000, "usual for 80 bands"
    raise InputError(f"{address.text}: nothing says at which rate it takes audio; add it, such as ?rate=16000")


def _check_bands(address: Address, front: Front, read: Read) -> None:
    if bool(front.bands) != (read.bands != 1) or (front.bands and read.bands not in (None, front.bands)):
        reads = "a waveform" if read.bands == 1 else f"{read.bands or 'any number of'} bands"
        raise InputError(f"{address.text}: front is {front}, and the network reads {reads}")


def _output(address: Address, asked: str | None, session: Any) -> str:
    names = [one.name for one in session.get_outputs()]
    if asked is not None:
        if asked not in names:
            raise InputError(f"{address.text}: has no output {asked!r}{suggest(asked, names)}")
        return asked
    known = [name for name in names if name in _VECTORS]
    if len(names) > 1 and not known:
        raise InputError(f"{address.text} has the outputs {', '.join(names)}; say which, such as ?output={names[0]}")
    return (known or names)[0]


def _beside(path: Path) -> dict[str, Any]:
    """What `export.describe_onnx` wrote beside a file of ours."""
    described = path.with_suffix(".json")
    if not described.is_file():
        return {}
    try:
        found = json.loads(described.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("model") == os.path.basename(path) else {}
