"""`torchscript:<file>?rate=16000`: a TorchScript program that maps waveforms to vectors or frames.

A program that keeps a state or takes other arguments than the audio is refused. A TorchScript file does not state its
sample rate; the JSON file that `ssl-audio export` writes beside it does, and the `config.yaml` of a model of this
package.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.errors import InputError
from ssl_audio.hub.address import Address
from ssl_audio.hub.foreign._external import External, described_beside, existing, file_sha256, finished
from ssl_audio.hub.foreign._options import RATE, SHORT_CLIPS
from ssl_audio.hub.levels import as_described, level_facts
from ssl_audio.hub.saved import CONFIG
from ssl_audio.hub.torchscript import open_script
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.yaml_files import read_yaml

OPTIONS = {"rate": RATE, "short": SHORT_CLIPS}


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The model of a program.

    Raises:
        InputError: the file is missing or damaged, the sample rate is unknown, or the program takes more than audio.
    """
    path = existing(address.text, address.rest)
    script = open_script(path)
    wanted = [one.name for one in script._c._get_method("forward").schema.arguments[1:] if not one.has_default_value()]
    if len(wanted) != 1:
        raise InputError(
            f"{address.text} takes {', '.join(wanted) or 'nothing'}; only programs that take the audio alone are "
            "supported, without a rate or a state"
        )
    facts = described_beside(path)
    rate = options.get("rate") or _rate(facts) or _rate(_beside(path))
    if rate is None:
        raise InputError(f"{address.text}: its sample rate is unknown; add it, such as ?rate=16000")
    encoder = TorchScriptEncoder(script, options.get("short", "refuse"))
    encoder.refer(address.text, file_sha256(path), short=encoder.short)
    shortest = facts.get("minimum_samples") if isinstance(facts.get("minimum_samples"), int) else None
    model = finished(encoder, rate, shortest=shortest)
    return as_described(model, facts or level_facts(_beside(path).get("model")), address.text)


class TorchScriptEncoder(External):
    """The encoder of a TorchScript program.

    Args:
        script: the program.
        short: see `ClipEncoder`.
    """

    def __init__(self, script: torch.jit.ScriptModule, short: str = "refuse") -> None:
        super().__init__(short)
        self.script = script.eval()

    def call(self, clips: Tensor) -> Any:
        """`(batch, samples)` -> `(batch, dim)` or frames."""
        return self.script(clips)


def _beside(path: Path) -> Mapping[str, Any]:
    """The config of a saved model of ours in the same folder."""
    config = path.with_name(CONFIG)
    return read_yaml(config) if config.is_file() else {}


def _rate(config: Mapping[str, Any]) -> int | None:
    rate = config.get("sample_rate")
    return rate if isinstance(rate, int) else None
