import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ssl_audio import encoders, frontends, heads
from ssl_audio.losses import simsiam_loss
from ssl_audio.methods import BYOL, CPC, SimSiam


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 999))
def test_equals_the_equation(n, dim, seed):
    p, z = torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = -sum(float(p[i] @ z[i] / (p[i].norm() * z[i].norm())) for i in range(n)) / n
    assert simsiam_loss(p, z).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_target_gets_no_gradient():
    p, z = torch.randn(2, 4, 3).requires_grad_().unbind()
    p.retain_grad(), z.retain_grad()
    simsiam_loss(p, z).backward()
    assert p.grad.abs().sum() > 0 and z.grad is None


def method(loss_scale: str = "cosine") -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(
        predictor=lambda dim: heads.MLP(dim, [4, dim], batch_norm=True),
        loss_scale=loss_scale,
        frontend=frontends.LogMelSpectrogram(n_fft=256, hop_length=128, n_mels=20, normalize="band"),
        encoder=encoders.CompactCNN([4, 8], embedding_dim=12),
        projection=lambda dim: heads.MLP(dim, [16, 16, 16], batch_norm=True, output_batch_norm=True),
        sample_rate=16000,
    )


def test_one_pass_a_view_has_the_gradient_of_the_original_that_runs_the_targets_again():
    clip1, clip2 = torch.randn(2, 6, 3000)
    ours, theirs = method(), method()
    ours.objective(clip1, clip2).terms["loss"].backward()

    def project(clips):
        return theirs.projection(theirs(clips))

    with torch.no_grad():
        z1, z2 = project(clip1), project(clip2)
    p1, p2 = theirs.predictor(project(clip1)), theirs.predictor(project(clip2))
    loss = -(nn.functional.cosine_similarity(p1, z2) + nn.functional.cosine_similarity(p2, z1)).mean() / 2
    loss.backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_scale_of_wav2rec_is_the_sum_of_squared_distances():
    clip1, clip2 = torch.randn(2, 6, 3000)
    result = method("distance").objective(clip1, clip2)
    paper = method().objective(clip1, clip2).terms["loss"]
    assert result.terms["loss"].item() == pytest.approx(4 + 4 * paper.item(), rel=1e-5)
    assert 0 <= result.terms["loss"] <= 8 and result.embeddings[0].shape == (6, 12)
    assert result.projections[1].shape == (6, 16)


class Counting(nn.Module):
    """A feature augmentation that leaves everything and counts the clips that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.clips = 0

    def forward(self, features):
        self.clips += len(features)
        return features


@pytest.mark.parametrize("kind", ["simsiam", "byol", "cpc"])
def test_features_are_augmented_in_training_once_a_view_and_never_in_validation(kind):
    clips = dict(zip(("clip1", "clip2"), torch.randn(2, 4, 3000), strict=True))
    network = {"frontend": frontends.Waveform(), "encoder": encoders.CPC(8, context="gru")}
    head = {"projection": heads.Identity, "predictor": lambda dim: heads.MLP(dim, [8, dim])}
    make = {
        "simsiam": lambda: SimSiam(**network, **head, feature_augmentation=Counting()),
        "byol": lambda: BYOL(**network, **head, feature_augmentation=Counting()),
        "cpc": lambda: CPC(**network, steps=3, feature_augmentation=Counting()),
    }
    model = make[kind]()
    model.eval().batch_objective(clips)
    assert model.feature_augmentation.clips == 0
    model.train().batch_objective(clips)
    assert model.feature_augmentation.clips == (4 if kind == "cpc" else 8)


def test_it_learns_to_agree_without_collapsing():
    torch.manual_seed(1)
    model = method()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    time = torch.arange(3000) / 16000
    losses = []
    for _ in range(80):
        pitch = 200 + 3000 * torch.rand(16, 1)
        clip1, clip2 = (torch.sin(6.28 * pitch * time) + 0.1 * torch.randn(16, 3000) for _ in range(2))
        result = model.objective(clip1, clip2)
        optimizer.zero_grad()
        result.terms["loss"].backward()
        optimizer.step()
        losses.append(result.terms["loss"].item())
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1
    assert result.embeddings[0].std(0).mean() > 1e-3
