"""DINO: a student's distribution over prototypes follows a teacher's (Caron et al., 2021, https://arxiv.org/abs/2104.14294).

The order of one step is part of the method:

1. `dino_loss` with the centre as it is, the teacher's outputs without gradient;
2. `dino_center` from the teacher's raw outputs;
3. the optimiser's step;
4. the teacher's weights move towards the student's.
"""

import torch
from torch import Tensor

from ssl_audio.losses._checks import check_temperature


def dino_loss(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Mean cross-entropy of the student's distribution of a view and the teacher's of another view of the same clip.

    With `p_j = softmax((teacher_j - center) / teacher_temperature)`, detached, and
    `q_i = softmax(student_i / student_temperature)`, the loss is the mean over clips and over all pairs of a teacher's
    view j and a student's view i, i != j, of `-sum_k p_jk log q_ik`. A view is left out against itself by its position:
    the teacher's views are the student's first ones.

        student = head(torch.cat([encoder(long), encoder(short)])).unflatten(0, (6, -1))      # 2 long, 4 short crops
        with torch.no_grad():
            teacher = teacher_head(teacher_encoder(long)).unflatten(0, (2, -1))
        loss = dino_loss(student, teacher, center)
        center = dino_center(center, teacher)

    A sound run leaves `ln K` behind; a loss that stays there says that the teacher is uniform (a temperature that is
    too high), one near 0 from the start that all clips fall on one prototype (see `dino_statistics`).

    Args:
        student: (views, batch, K) outputs for all crops; float32, because half precision resolves a cosine near 1 to
            .004, a tenth after the teacher's temperature.
        teacher: (globals, batch, K) outputs for the first `globals` of these crops.
        center: (K,) running mean of the teacher's outputs.
        student_temperature: above 0.
        teacher_temperature: above 0, below the student's: only a sharper teacher has something to teach.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: shapes that do not fit together, no pair of different views, or a temperature that is not above 0.
    """
    check_temperature(student_temperature)
    check_temperature(teacher_temperature)
    if student.ndim != 3 or teacher.ndim != 3 or student.shape[1:] != teacher.shape[1:]:
        raise ValueError(
            "expected (views, batch, K) of the student and (globals, batch, K) of the teacher, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    views, global_views = len(student), len(teacher)
    if views < max(2, global_views) or not global_views:
        raise ValueError(f"{global_views} views of the teacher and {views} of the student give no pair of two views")
    p = _teacher_logits(teacher, center, teacher_temperature).softmax(dim=-1).detach()
    log_q = (student / student_temperature).log_softmax(dim=-1)
    # All pairs at once, less those of a view with itself: K is large, and a product for each pair would be kept.
    all_pairs = -(p.sum(dim=0) * log_q.sum(dim=0)).sum(dim=-1)
    same_view = -(p * log_q[:global_views]).sum(dim=(0, -1))
    return (all_pairs - same_view).mean() / (global_views * (views - 1))


def dino_center(center: Tensor, teacher: Tensor, momentum: float = 0.9) -> Tensor:
    """The centre for the next step: `momentum * center + (1 - momentum) * mean of the teacher's outputs`.

    The mean is of the raw outputs, before temperature and softmax; with several ranks it must be of all their rows, so
    pass it the mean over ranks. Without a centre one prototype wins every clip.

    Args:
        center: (K,)
        teacher: (..., K) outputs for the global crops, as in `dino_loss`.
        momentum: from 0 to 1.

    Returns:
        (K,), without gradient.

    Raises:
        ValueError: the momentum is not from 0 to 1.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"the centre's momentum must be from 0 to 1, got {momentum}")
    return torch.lerp(teacher.detach().flatten(0, -2).mean(dim=0), center, momentum)


def dino_statistics(teacher: Tensor, center: Tensor, teacher_temperature: float = 0.04) -> dict[str, Tensor]:
    """What tells a collapse: scalars without gradient, by name.

    - `teacher_entropy`: mean entropy of the teacher's distributions, from 0 to ln K. ln K: the teacher is uniform and
      teaches nothing. The loss less this is the mean Kullback-Leibler divergence.
    - `mean_teacher_entropy`: entropy of their mean over the batch. 0: all clips fall on one prototype.
    - `teacher_deviation`: standard deviation over the batch of a prototype's probability, averaged over prototypes.

    Args:
        teacher: (globals, batch, K) outputs, as in `dino_loss`.
        center: (K,)
        teacher_temperature: above 0.

    Raises:
        ValueError: the temperature is not above 0.
    """
    check_temperature(teacher_temperature)
    with torch.no_grad():
        p = _teacher_logits(teacher, center, teacher_temperature).softmax(dim=-1).flatten(0, -2)
        return {
            "teacher_entropy": torch.special.entr(p).sum(dim=-1).mean(),
            "mean_teacher_entropy": torch.special.entr(p.mean(dim=0)).sum(),
            "teacher_deviation": p.std(dim=0, unbiased=False).mean(),
        }


def _teacher_logits(teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    return (teacher - center) / temperature
