"""What bf16 and the device change: embeddings, the first loss and its gradient, beside float32."""

import torch

from benchmarks.bench_augmentations import voices
from benchmarks.gpu.figures import Figure, Setting
from ssl_audio.encoders import EfficientNet
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import Projection
from ssl_audio.methods import Contrastive
from ssl_audio.model import EmbeddingModel


def bf16(setting: Setting) -> list[Figure]:
    """Cosines of embeddings, and loss and gradient of a contrastive step, EfficientNet-B0, random weights."""
    count, samples = (4, 22050) if setting.smoke else (32, 176_000)
    clips = torch.from_numpy(voices(samples, 44100, count)).to(setting.device)
    torch.manual_seed(0)
    model = EmbeddingModel(LogMelSpectrogram(), EfficientNet()).eval()
    with torch.inference_mode():
        on_cpu = model(clips[:2].cpu())
        model.to(setting.device)
        exact = model(clips)
        with torch.autocast(setting.device, torch.bfloat16):
            half = model(clips).float()
    cosines = torch.nn.functional.cosine_similarity(exact, half)
    against_cpu = torch.nn.functional.cosine_similarity(exact[:2].cpu(), on_cpu)
    losses, gradients = zip(*(_step(setting, clips, half) for half in (False, True)), strict=True)
    gradient = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    note = f"{count} clips of {samples / 44100:.1f} s, EfficientNet-B0, random weights"
    return [
        Figure("bf16 beside float32: smallest cosine of embeddings", float(cosines.min()), "", note=note),
        Figure("the device beside the CPU, float32: smallest cosine", float(against_cpu.min()), "", note="2 clips"),
        Figure(
            "bf16 beside float32: difference of the first loss", abs(losses[1] / losses[0] - 1) * 100, "%", note=note
        ),
        Figure("bf16 beside float32: cosine of the gradients", float(gradient), "", note="contrastive, all weights"),
    ]


def _step(setting: Setting, clips: torch.Tensor, half: bool) -> tuple[float, torch.Tensor]:
    torch.manual_seed(0)
    method = Contrastive(
        frontend=LogMelSpectrogram(), encoder=EfficientNet(), projection=lambda dim: Projection(dim, 128)
    ).to(setting.device)
    torch.manual_seed(0)  # dropout
    with torch.autocast(setting.device, torch.bfloat16, enabled=half):
        loss = method.objective(clips, clips.flip(1)).terms["loss"]
    loss.backward()
    gradients = [parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None]
    return float(loss.detach()), torch.cat(gradients).double().cpu()
