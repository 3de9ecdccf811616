"""Frontend, encoder and loading: the mel layer beside nnAudio's own, embedding beside the published system's pieces."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

Row = tuple[str, float, float, str]


def rows() -> Iterator[Row]:
    """`(what, seconds of the plain way, our seconds, note)`."""
    torch.manual_seed(0)
    yield mel()
    yield network()
    yield first_embedding()


def mel() -> Row:
    from nnAudio.features import MelSpectrogram as Plain

    from ssl_audio.frontends import MelSpectrogram

    plain, ours = Plain(verbose=False), MelSpectrogram()
    clips = 0.1 * torch.randn(16, 4 * 44100)
    with torch.inference_mode():
        baseline, seconds = fastest(lambda: plain(clips), lambda: ours(clips))
        difference = (plain(clips) - ours(clips)).abs().max() / plain(clips).max()
    return "mel, 16 clips of 4 s at 44.1 kHz", baseline, seconds, f"largest difference {difference:.0e} of the maximum"


def network() -> Row:
    """A training step of the encoder, beside the same network with the library's own activation and padding."""
    from efficientnet_pytorch import EfficientNet as Plain

    from ssl_audio.encoders import EfficientNet

    ours = EfficientNet().train()
    plain = nn.Sequential(Image(), Plain.from_name("efficientnet-b0")).train()
    features = torch.randn(8, 128, 345)

    def step(model: nn.Module) -> Callable[[], None]:
        return lambda: model(features).square().mean().backward()

    baseline, seconds = fastest(step(plain), step(ours), repeats=2)
    return "EfficientNet-B0, forward and backward, 8 clips of 4 s", baseline, seconds, "plain: efficientnet-pytorch"


def first_embedding() -> Row:
    """From a folder on disk to the first embedding of a clip of 4 s; plain: unpickle, build, load, one forward pass."""
    from efficientnet_pytorch import EfficientNet as Plain
    from nnAudio.features import MelSpectrogram as PlainMel

    from ssl_audio import EmbeddingModel, load_model, save_model
    from ssl_audio.encoders import EfficientNet
    from ssl_audio.frontends import LogMelSpectrogram

    clip = 0.1 * torch.randn(4 * 44100)

    def build_plain() -> nn.Module:
        return nn.Sequential(PlainMel(verbose=False), Image(), Plain.from_name("efficientnet-b0")).eval()

    with tempfile.TemporaryDirectory() as folder:
        save_model(EmbeddingModel(LogMelSpectrogram(), EfficientNet()), folder)
        weights = Path(folder) / "plain.pt"
        torch.save(build_plain().state_dict(), weights)

        @torch.inference_mode()
        def plain() -> None:
            model = build_plain()
            model.load_state_dict(torch.load(weights))
            model(clip[None])

        baseline, seconds = fastest(plain, lambda: load_model(folder).embed(clip))
    return "b0 from disk to first embedding", baseline, seconds, "after the imports"


class Image(nn.Module):
    """A spectrogram as an RGB image, as the published system does it."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        image = features.unsqueeze(1).repeat(1, 3, 1, 1)
        return (image - image.new_tensor([0.485, 0.456, 0.406])[:, None, None]) / 0.225


def fastest(plain: Callable[[], object], ours: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """The shortest time of each, taken in turn, so that a busy machine slows both."""
    plain(), ours()
    times: list[list[float]] = [[], []]
    for _ in range(repeats):
        for function, into in zip((plain, ours), times, strict=True):
            start = time.perf_counter()
            function()
            into.append(time.perf_counter() - start)
    return min(times[0]), min(times[1])
