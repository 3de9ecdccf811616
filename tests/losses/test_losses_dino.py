"""DINO's loss, centre and monitors by their numbers, and the toy that tells its guards apart."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from ssl_audio.heads import DINOHead
from ssl_audio.losses import dino_center, dino_loss, dino_statistics

STUDENT = torch.tensor([[[0.3, 0.1, -0.2]], [[0.2, 0.2, -0.1]], [[0.0, 0.3, 0.1]]])
TEACHER = torch.tensor([[[0.4, 0.0, -0.1]], [[0.1, 0.2, 0.0]]])


def test_the_specified_example():
    zero = torch.zeros(3)
    assert dino_loss(STUDENT, TEACHER, zero).item() == pytest.approx(1.574118, abs=1e-6)
    center = dino_center(zero, TEACHER)
    assert center.tolist() == pytest.approx([0.025, 0.01, -0.005])
    assert dino_loss(STUDENT, TEACHER, center).item() == pytest.approx(1.572244, abs=1e-6)


def test_entropies_of_the_specified_example():
    entropies = [
        dino_statistics(TEACHER[[i]], torch.zeros(3), 0.04)["teacher_entropy"].item() for i in range(len(TEACHER))
    ]
    assert entropies == pytest.approx([0.000550, 0.304511], abs=1e-6)


@pytest.mark.parametrize(("global_views", "views", "pairs"), [(2, 6, 10), (2, 4, 6), (2, 2, 2), (1, 2, 1), (3, 3, 6)])
def test_equals_the_mean_over_pairs_of_different_views(global_views, views, pairs):
    generator = torch.Generator().manual_seed(views)
    student = torch.rand(views, 5, 7, generator=generator, dtype=torch.float64) * 2 - 1
    teacher = torch.rand(global_views, 5, 7, generator=generator, dtype=torch.float64) * 2 - 1
    center = torch.rand(7, generator=generator, dtype=torch.float64)
    terms = []
    for j in range(global_views):
        for i in range(views):
            if i != j:
                p = ((teacher[j] - center) / 0.05).softmax(1)
                terms.append(-(p * (student[i] / 0.2).softmax(1).log()).sum(1).mean())
    assert len(terms) == pairs
    assert dino_loss(student, teacher, center, 0.2, 0.05).item() == pytest.approx(sum(terms).item() / pairs, abs=1e-9)


def test_the_teacher_and_the_centre_get_no_gradient():
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    center = torch.zeros(3)
    dino_loss(student, teacher, center).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    assert not dino_center(center, teacher).requires_grad


def test_the_centre_moves_with_the_raw_outputs_of_all_rows():
    teacher = torch.randn(2, 9, 4, dtype=torch.float64)
    center = torch.randn(4, dtype=torch.float64)
    expected = 0.8 * center + 0.2 * teacher.reshape(18, 4).mean(0)
    torch.testing.assert_close(dino_center(center, teacher, 0.8), expected)
    torch.testing.assert_close(dino_center(center, teacher.mean((0, 1))[None], 0.8), expected)  # a mean over ranks
    assert torch.equal(dino_center(center, teacher, 1.0), center)


def test_statistics_tell_a_uniform_teacher_and_a_collapsed_one():
    uniform, same = torch.zeros(2, 8, 64), torch.zeros(2, 8, 64)
    same[..., 3] = 1
    different = torch.eye(64)[torch.arange(16)].view(2, 8, 64)
    none = torch.zeros(64)
    values = [[v.item() for v in dino_statistics(t, none, 0.02).values()] for t in (uniform, same, different)]
    assert values[0] == pytest.approx([math.log(64), math.log(64), 0], abs=1e-5)
    assert values[1] == pytest.approx([0, 0, 0], abs=1e-5)
    assert values[2][:2] == pytest.approx([0, math.log(16)], abs=1e-5) and values[2][2] > 0.05


def test_a_uniform_teacher_leaves_the_loss_at_ln_k():
    loss = dino_loss(torch.zeros(4, 3, 8192), torch.zeros(2, 3, 8192), torch.zeros(8192))
    assert loss.item() == pytest.approx(9.0109, abs=1e-4)


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        ((1, 4, 8), (1, 4, 8), "give no pair of two views"),
        ((2, 4, 8), (3, 4, 8), "give no pair"),
        ((2, 4, 8), (2, 4, 9), r"\(views, batch, K\)"),
        ((8, 8), (8, 8), r"\(views, batch, K\)"),
    ],
)
def test_shapes_without_a_pair_are_refused(student, teacher, words):
    with pytest.raises(ValueError, match=words):
        dino_loss(torch.zeros(student), torch.zeros(teacher), torch.zeros(teacher[-1]))


def test_impossible_temperatures_and_momenta_are_refused():
    for temperatures in ((0.0, 0.04), (0.1, -1.0)):
        with pytest.raises(ValueError, match="temperature"):
            dino_loss(STUDENT, TEACHER, torch.zeros(3), *temperatures)
    with pytest.raises(ValueError, match="momentum"):
        dino_center(torch.zeros(3), TEACHER, 1.1)


class Toy(nn.Module):
    """A small encoder and the last layer of DINO's head."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Linear(64, 32))
        self.head = DINOHead(32, 64, [], 32)

    def forward(self, *crops):
        embeddings = torch.cat([self.encoder(crop) for crop in crops])
        return self.head.cosines(normalize(embeddings, dim=1)).unflatten(0, (-1, 64))


def train_toy(teacher_temperature=0.04, momentum=0.99, steps=600):
    """20 Gaussian centres in 16 dimensions as clips, noise as crops: what DINO makes of them, in the method's order."""
    torch.manual_seed(0)
    centres = torch.randn(20, 16)
    student = Toy()
    teacher = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    center = torch.zeros(64)
    for _ in range(steps):
        clips = centres[torch.randint(20, (64,))]
        long, short = (torch.cat([clips + spread * torch.randn(64, 16) for _ in range(2)]) for spread in (0.5, 0.8))
        with torch.no_grad():
            targets = teacher(long)
        loss = dino_loss(student(long, short), targets, center, teacher_temperature=teacher_temperature)
        statistics = dino_statistics(targets, center, teacher_temperature)
        center = dino_center(center, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.lerp_(new, 1 - momentum)
    embeddings = normalize(teacher.encoder.eval()(centres), dim=1)
    cosine = (embeddings @ embeddings.T)[~torch.eye(20, dtype=torch.bool)].mean().item()
    return loss.item(), statistics["teacher_entropy"].item(), statistics["mean_teacher_entropy"].item(), cosine


@pytest.mark.slow
def test_a_toy_learns_with_the_guards_and_not_without_them():
    """20 centres apart have a mean teacher of entropy near ln 20 = 3.0, and a mean cosine near 0."""
    loss, teacher_entropy, mean_entropy, cosine = train_toy()
    assert loss < 0.5 and teacher_entropy < 0.2 and mean_entropy > 2.4 and abs(cosine) < 0.1
    loss, teacher_entropy, _, cosine = train_toy(teacher_temperature=1.0)  # not sharper than the student
    assert (loss, teacher_entropy) == pytest.approx((math.log(64), math.log(64)), abs=0.01) and cosine > 0.5
    _, _, mean_entropy, _ = train_toy(momentum=0.0)  # the teacher is the student: clips fall together
    assert mean_entropy < 2.0
    loss, *_ = train_toy(momentum=1.0)  # the teacher never moves
    assert loss > 1.5
