"""The losses of distillation against their formulas, written out in numpy."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from ssl_audio.losses import (
    contrastive_distillation_loss,
    cosine_distillation_loss,
    mse_distillation_loss,
    similarity_distillation_loss,
)

ALL = (
    cosine_distillation_loss,
    contrastive_distillation_loss,
    similarity_distillation_loss,
    mse_distillation_loss,
)


def pair(batch: int = 6, dim: int = 5):
    """Students and teachers in float64, related to each other, of various lengths."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(batch, dim)) * rng.uniform(0.2, 4, size=(batch, 1))
    return teacher + 0.7 * rng.normal(size=(batch, dim)), teacher


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b.T / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


def test_cosine_and_squared_error_are_means_over_clips() -> None:
    student, teacher = pair()
    s, t = torch.from_numpy(student), torch.from_numpy(teacher)
    assert cosine_distillation_loss(s, t).item() == pytest.approx(1 - cosines(student, teacher).diagonal().mean())
    assert mse_distillation_loss(s, t).item() == pytest.approx(((student - teacher) ** 2).mean())


def test_contrastive_is_the_mean_cross_entropy_of_both_directions() -> None:
    student, teacher = pair()
    logits = cosines(student, teacher) / 0.2
    rows = -np.diagonal(log_softmax(logits, axis=1)).mean()
    columns = -np.diagonal(log_softmax(logits, axis=0)).mean()
    loss = contrastive_distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher), 0.2)
    assert loss.item() == pytest.approx((rows + columns) / 2)


def test_similarity_is_the_divergence_of_the_distributions_over_the_batch() -> None:
    student, teacher = pair()
    theirs = softmax(cosines(teacher, teacher) / 0.2, axis=1)
    mine = softmax(cosines(student, teacher) / 0.2, axis=1)
    loss = similarity_distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher), 0.2)
    assert loss.item() == pytest.approx(np.mean([entropy(p, q) for p, q in zip(theirs, mine, strict=True)]))


@pytest.mark.parametrize("loss", ALL)
def test_only_the_student_gets_a_gradient(loss) -> None:
    student, teacher = (torch.from_numpy(x).requires_grad_() for x in pair())
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


@pytest.mark.parametrize("loss", ALL)
def test_what_cannot_be_compared_is_refused(loss) -> None:
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.randn(4, 3), torch.randn(4, 2))
    if loss in (contrastive_distillation_loss, similarity_distillation_loss):
        with pytest.raises(ValueError, match="at least 2"):
            loss(torch.randn(1, 3), torch.randn(1, 3))
        with pytest.raises(ValueError, match="temperature"):
            loss(torch.randn(4, 3), torch.randn(4, 3), 0.0)
