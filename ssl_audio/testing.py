"""The contracts of encoders, frontends and methods as checks, for our tests and for classes of your own.

    from ssl_audio.frontends import LogMelSpectrogram
    from ssl_audio.testing import check_encoder

    def test_my_encoder():
        check_encoder(MyEncoder(), LogMelSpectrogram(16000))

A check returns nothing. It raises AssertionError with a sentence that names the fault and what to change. The module
that is given stays as it is: checks work on a copy.
"""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ssl_audio.config import build, describe
from ssl_audio.encoders.base import Encoder
from ssl_audio.frontends import Frontend

if TYPE_CHECKING:
    from ssl_audio.methods import Method

_BATCH = 3


def check_encoder(encoder: Encoder, frontend: Frontend, samples: int = 16000) -> None:
    """Check that an encoder keeps what `ssl_audio.encoders.Encoder` promises.

    - `dim` is the size of the embedding, at any length of clip; `frame_dim`, if it is set, that of `frames`;
    - in evaluation mode an embedding is finite, also of silence, the same each time, and independent of the other
      clips in the batch;
    - the shortest clip that `minimum_frames` promises is embedded;
    - `describe` and `build` make the encoder again: same state dict, equal embeddings;
    - in training mode every trainable parameter gets a finite gradient.

    Args:
        encoder: in any mode, on the CPU.
        frontend: makes the features that the encoder reads.
        samples: of the clips; longer ones are taken where the encoder's minimum asks for it.

    Raises:
        AssertionError: the first of these that does not hold.
    """
    name = type(encoder).__name__
    encoder = copy.deepcopy(encoder).eval()
    dim: Any = getattr(encoder, "dim", None)
    _require(isinstance(dim, int) and dim > 0, f"{name}.dim is {dim!r}; set it to the size of the embedding")
    minimum = encoder.minimum_frames
    _require(
        isinstance(minimum, int) and minimum > 0,
        f"{name}.minimum_frames is {minimum!r}; set it to the shortest input along time, in the frontend's frames",
    )
    shortest = frontend.samples_for(minimum)
    length = max(samples, 2 * shortest)

    def embed(clips: Tensor) -> Tensor:
        return encoder(frontend(clips))

    for size in (length, length + 1, 2 * length + 7):
        features = frontend(_clips(size))
        embeddings = _run(partial(encoder, features), f"{name} fails on features {tuple(features.shape)}")
        _require_shape(f"{name} of {_BATCH} clips of {size} samples", embeddings, (_BATCH, dim), "dim")
        if encoder.frame_dim is not None:
            _check_frames(name, encoder, features)
    _check_values(name, embed, length, "embedding")
    short = _run(lambda: embed(_clips(shortest)), f"{name} fails at its minimum_frames of {minimum}; raise it")
    _require_shape(f"{name} of the shortest clip, {shortest} samples,", short, (_BATCH, dim), "dim")
    _check_rebuilt(name, encoder, lambda module: module(frontend(_clips(length))))
    _check_gradients(name, encoder, lambda module: module(frontend(_clips(length, batch=4))).square().sum())


def check_frontend(frontend: Frontend, samples: int = 16000) -> None:
    """Check that a frontend keeps what `ssl_audio.frontends.Frontend` promises.

    - `(batch, samples)` gives `(batch, bands, frames)` or `(batch, samples)`: one number of bands, more frames for more
      samples;
    - features are finite, also of silence, the same each time, and independent of the other clips in the batch;
    - `minimum_samples` works, and `samples_for(frames)` samples give at least so many frames;
    - `describe` and `build` make the frontend again: same state dict, equal features;
    - the features pass a finite gradient on to the waveform, and to every trainable parameter.

    Args:
        frontend: in any mode, on the CPU.
        samples: of the clips; longer ones are taken where the frontend's minimum asks for it.

    Raises:
        AssertionError: the first of these that does not hold.
    """
    name = type(frontend).__name__
    frontend = copy.deepcopy(frontend).eval()
    minimum = frontend.minimum_samples
    _require(
        isinstance(minimum, int) and minimum > 0,
        f"{name}.minimum_samples is {minimum!r}; set it to the shortest clip that it takes",
    )
    length = max(samples, 2 * minimum)
    features = _run(lambda: frontend(_clips(length)), f"{name} fails on {_BATCH} clips of {length} samples")
    shape = tuple(features.shape)
    _require(
        features.ndim in (2, 3) and len(features) == _BATCH,
        f"{name} gives {shape} for {_BATCH} clips; expected (batch, bands, frames) or (batch, samples)",
    )
    longer = frontend(_clips(2 * length))
    _require(
        longer.shape[1:-1] == features.shape[1:-1] and longer.shape[-1] > features.shape[-1],
        f"{name} gives {tuple(longer.shape)} for clips twice as long as those that give {shape}; "
        "only the last size may change with the length, and it must grow",
    )
    _check_values(name, frontend, length, "feature")
    _run(lambda: frontend(_clips(minimum)), f"{name} fails at its minimum_samples of {minimum}; raise it")
    for frames in (1, 2, 5, 40):
        least = frontend.samples_for(frames)
        _require(
            least >= minimum and frontend(_clips(least)).shape[-1] >= frames,
            f"{name}.samples_for({frames}) is {least}, which is too short: it must give {frames} frames and be at "
            f"least minimum_samples, {minimum}",
        )
    _check_rebuilt(name, frontend, lambda module: module(_clips(length)))
    clips = _clips(length).requires_grad_()
    _check_gradients(name, frontend, lambda module: module(clips).square().sum())
    _require(
        clips.grad is not None and bool(clips.grad.isfinite().all()),
        f"{name} passes no finite gradient on to the waveform; compute the features with torch, without detach",
    )


def check_method(method: "Method", samples: int | None = None, batch_size: int = 4) -> None:
    """Check that a training method, with its network, keeps what `ssl_audio.methods` promises.

    - a training step gives one finite loss, the same one when the step is repeated;
    - every trainable parameter gets a finite gradient from it;
    - a validation step gives a finite loss;
    - the checkpoint's description is plain data, from which the embedding model is made again: same state dict, equal
      embeddings.

    Args:
        method: with a small frontend, encoder and projection, on the CPU; no trainer is needed.
        samples: of a clip. None: a second, or the shortest clip of the model if that is longer.
        batch_size: clips, or pairs of clips.

    Raises:
        AssertionError: the first of these that does not hold.
    """
    name = type(method).__name__
    method = copy.deepcopy(method)
    samples = samples or max(method.sample_rate, method.embedding_model().minimum_samples)
    step = f"a training step of {name} on {batch_size} pairs of {samples} samples"
    losses = []
    for draws in (0, 5):  # whatever torch's generator was used for before
        tried = copy.deepcopy(method).train()
        torch.rand(draws)
        losses.append(_run(partial(_loss, tried, samples, batch_size, "training_step"), f"{step} fails"))
    loss = losses[0].detach()
    _require(loss.ndim == 0, f"{step} gives a loss of shape {tuple(loss.shape)}; it must be one number")
    _require(bool(loss.isfinite()), f"{step} gives the loss {loss.item()}; it must be finite")
    _require(
        bool(loss == losses[1].detach()),
        f"{step} repeated gives another loss; draw from torch's generators alone, which the base seeds for each step",
    )
    _check_gradients(name, method, lambda module: _loss(module, samples, batch_size, "training_step"))
    with torch.no_grad():
        value = _run(
            lambda: _loss(method.eval(), samples, batch_size, "validation_step"), f"a validation step of {name} fails"
        )
    _require(bool(value.isfinite()), f"a validation step of {name} gives the loss {value}; it must be finite")
    checkpoint: dict[str, Any] = {}
    _run(lambda: method.on_save_checkpoint(checkpoint), f"{name} cannot be saved")
    _require("model" in checkpoint, f"{name}.on_save_checkpoint keeps no 'model'; call super().on_save_checkpoint")
    _check_rebuilt(
        f"the embedding model of {name}",
        method.embedding_model().eval(),
        lambda module: module(_clips(samples, batch_size)),
    )


def _loss(method: Any, samples: int, batch_size: int, step: str) -> Tensor:
    first, second = (_clips(samples, batch_size, seed) for seed in (1, 2))
    batch = {
        "clip1": first,
        "clip2": 0.5 * first + 0.5 * second,  # views have something in common
        "clip": first,
        "target": torch.arange(batch_size) % 2,
        "group_name": [str(i) for i in range(batch_size)],
        "index": torch.arange(batch_size),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*`self.log.*")  # there is no trainer to log to
        if step == "training_step":
            method.on_train_batch_start(batch, 0)
        result = getattr(method, step)(batch, 0)
    return result["loss"]


def _clips(samples: int, batch: int = _BATCH, seed: int = 0) -> Tensor:
    """`(batch, samples)` noise, from soft to loud, so that what is scaled by the batch shows."""
    noise = torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))
    return 0.2 * noise * torch.logspace(-2, 0, batch).unsqueeze(1)


def _check_frames(name: str, encoder: Encoder, features: Tensor) -> None:
    frames = _run(lambda: encoder.frames(features), f"{name}.frames fails on features {tuple(features.shape)}")
    _require(
        frames.ndim == 3 and frames.shape[0] == len(features) and frames.shape[2] == encoder.frame_dim,
        f"{name}.frames gives {tuple(frames.shape)}; expected ({len(features)}, frames, frame_dim {encoder.frame_dim})",
    )
    _require(
        1 <= frames.shape[1] <= features.shape[-1],
        f"{name}.frames gives {frames.shape[1]} frames for {features.shape[-1]}; expected at least 1 and no more than "
        "came in",
    )


def _check_values(name: str, function: Callable[[Tensor], Tensor], length: int, what: str) -> None:
    """Finite, the same each time, independent of the neighbours in the batch."""
    clips = _clips(length)
    with torch.no_grad():
        together, again = function(clips), function(clips)
        alone = _run(lambda: torch.cat([function(clip.unsqueeze(0)) for clip in clips]), f"{name} fails on one clip")
        silent = _run(lambda: function(torch.zeros(_BATCH, length)), f"{name} fails on silence")
    _require(bool(together.isfinite().all()), f"{name} gives {what}s that are not finite")
    _require(
        bool(silent.isfinite().all()),
        f"{name} gives {what}s of silence that are not finite; add a small number before a division or a logarithm",
    )
    _require(
        torch.equal(together, again),
        f"{name} gives two {what}s for one clip in evaluation mode; it must draw nothing there (dropout, noise)",
    )
    difference, scale = (together - alone).abs().max().item(), together.abs().max().item()
    _require(
        difference <= 1e-4 * scale + 1e-6,
        f"a clip's {what} of {name} depends on the other clips in the batch: alone it differs by {difference:.2g} "
        f"(values reach {scale:.2g}); normalise each clip by its own statistics",
    )


def _check_rebuilt(name: str, module: nn.Module, run: Callable[[nn.Module], Tensor]) -> None:
    """`describe` -> `build` makes the module again."""
    description = _run(lambda: describe(module), f"{name} cannot be saved")
    again = _run(
        lambda: build(description, trusted=True),
        f"{name} cannot be made again from its description; store every argument under its own name, unchanged, and "
        "define the class in a module that can be imported",
    )
    _run(
        lambda: again.load_state_dict(module.state_dict()),
        f"{name} made again from its description has another state dict; store every argument under its own name, "
        "unchanged",
    )
    with torch.no_grad():
        same = torch.equal(run(again.eval()), run(module.eval()))
    _require(
        same,
        f"{name} made again from its description, with the same state dict, gives other values; keep what it computes "
        "with in arguments, parameters and buffers",
    )


def _check_gradients(name: str, module: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
    """Every trainable parameter gets a finite gradient in training mode."""
    module = copy.deepcopy(module).train()
    value = _run(lambda: loss(module), f"{name} fails in training mode")
    if any(parameter.requires_grad for parameter in module.parameters()) or value.requires_grad:
        _run(value.backward, f"{name} passes no gradient on in training mode")
    trainable = [(key, parameter) for key, parameter in module.named_parameters() if parameter.requires_grad]
    without = [key for key, parameter in trainable if parameter.grad is None]
    _require(
        not without, f"{name} has parameters that get no gradient: {', '.join(without[:5])}; use them or remove them"
    )
    odd = [key for key, parameter in trainable if not parameter.grad.isfinite().all()]  # type: ignore[union-attr]
    _require(not odd, f"{name} has parameters whose gradient is not finite: {', '.join(odd[:5])}")


def _require_shape(what: str, values: Any, expected: tuple[int, ...], attribute: str) -> None:
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    _require(shape == expected, f"{what} gives {shape}; its {attribute} promises {expected}")


def _run(function: Callable[[], Any], sentence: str) -> Any:
    """What the function returns; its error becomes an AssertionError that begins with the sentence."""
    try:
        return function()
    except Exception as error:
        raise AssertionError(f"{sentence}: {' '.join(str(error).split())[:300]}") from error


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)
