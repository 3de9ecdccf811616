"""A training step, contrastive with EfficientNet-B0, 16 pairs of 4 s at 44.1 kHz, on the CPU.

The plain way, with the same libraries: nnAudio's mel layer, `efficientnet_pytorch` as it comes, a forward pass a view,
negatives by rolling. Both sides run in turn, and the fastest of several steps counts.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from ssl_audio.encoders import EfficientNet
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import Projection
from ssl_audio.losses import contrastive_loss
from ssl_audio.methods import Contrastive

PAIRS, SAMPLES, REPEATS = 16, 176_400, 5


def rows(pairs: int = PAIRS, samples: int = SAMPLES, repeats: int = REPEATS) -> Iterator[tuple[str, float, float, str]]:
    """(what, seconds of the plain way, our seconds, note)."""
    clips = 0.1 * torch.randn(2, pairs, samples, generator=torch.Generator().manual_seed(0))
    plain, ours, half = fastest([plain_step(*clips), our_step(*clips), our_step(*clips, bf16=True)], repeats)
    what = f"training step, {pairs} pairs of {samples / 44100:.1f} s"
    yield f"{what}, float32", plain, ours, "contrastive, EfficientNet-B0"
    yield f"{what}, bf16", plain, half, "against the plain step in float32"
    z1, z2 = torch.randn(2, 140, 128, generator=torch.Generator().manual_seed(0))
    rolled, product = fastest([lambda: rolled_loss(z1, z2), lambda: contrastive_loss(z1, z2)], 20)
    yield "contrastive loss, 140 pairs", rolled, product, "negatives by rolling; by matrix product"


def our_step(clip1: Tensor, clip2: Tensor, bf16: bool = False) -> Callable[[], None]:
    torch.manual_seed(0)
    method = Contrastive(
        frontend=LogMelSpectrogram(), encoder=EfficientNet(), projection=lambda dim: Projection(dim, 128)
    )
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-4, weight_decay=1e-5)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = method.objective(clip1, clip2).terms["loss"]
        _update(loss, optimizer)

    return step


def plain_step(clip1: Tensor, clip2: Tensor) -> Callable[[], None]:
    from efficientnet_pytorch import EfficientNet as Network
    from nnAudio.features import MelSpectrogram

    torch.manual_seed(0)
    mel = MelSpectrogram(n_fft=2048, hop_length=512, n_mels=128, verbose=False)
    net = Network.from_name("efficientnet-b0", num_classes=1000)
    projection = nn.Sequential(nn.SiLU(), nn.Linear(1000, 128))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    parameters = [*net.parameters(), *projection.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, weight_decay=1e-5)

    def project(clips: Tensor) -> Tensor:
        log_mel = torch.log(mel(clips) + 1e-8)
        image = (log_mel / log_mel.max())[:, None].repeat(1, 3, 1, 1)
        image = (image - mean[:, None, None]) / std[:, None, None]
        return normalize(projection(net(image)), dim=1)

    return lambda: _update(rolled_loss(project(clip1), project(clip2)), optimizer)


def rolled_loss(z1: Tensor, z2: Tensor, temperature: float = 0.2, num_negatives: int = 250) -> Tensor:
    """Decoupled NT-Xent as it is usually written: one roll a negative."""
    positive = cosine_similarity(z1, z2) / temperature
    shifts = range(1, min(len(z1) - 1, num_negatives) + 1)
    negatives = torch.stack([cosine_similarity(z1, z2.roll(k, 0)) / temperature for k in shifts])
    return (negatives.logsumexp(0) - positive).mean()


def fastest(steps: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of the fastest of `repeats` calls of each, in turn, after one that does not count."""
    best = [float("inf")] * len(steps)
    for repeat in range(repeats + 1):
        for i, step in enumerate(steps):
            start = time.perf_counter()
            step()
            if repeat:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
