"""DINO: the distribution of a student over prototypes follows that of a teacher.

Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021,
https://arxiv.org/abs/2104.14294.

The order within a step is part of the method:

1. `dino_loss` with the present centre, and the teacher's outputs without gradient;
2. `dino_center` with the teacher's raw outputs, for the next step;
3. the optimiser's step;
4. an update of the teacher's weights towards the student's.
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
    """Mean cross-entropy between the teacher's distribution of a view and the student's of another view of the clip.

    With `p_j = softmax((teacher_j - center) / teacher_temperature)`, without gradient, and
    `q_i = softmax(student_i / student_temperature)`, it is the mean of `-sum_k p_jk log q_ik` over the clips and over
    all pairs of a teacher's view j and a student's view i != j. The teacher's views are the first of the student's.

    A loss that stays at `log(K)` means that the teacher is uniform: its temperature is too high. A loss near 0 from the
    start means that all clips have the same prototype. See `dino_statistics`.

    Args:
        student: `(views, batch, K)` outputs for all crops. Give float32: half precision has a resolution of 0.004 for
            cosines near 1, which the teacher's temperature turns into 0.1.
        teacher: `(global views, batch, K)` outputs for the first of these crops.
        center: `(K,)` running mean of the teacher's outputs.
        student_temperature: above 0.
        teacher_temperature: above 0 and below the student's, so that the teacher's distribution is sharper.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: the shapes do not fit together, no two views differ, or a temperature is not above 0.

    Example:
        >>> import torch
        >>> student = torch.randn(6, 4, 1000)  # 2 long and 4 short crops of 4 clips, 1,000 prototypes
        >>> teacher, center = student[:2], torch.zeros(1000)
        >>> loss = dino_loss(student, teacher, center)
        >>> center = dino_center(center, teacher)
        >>> loss.shape, center.shape
        (torch.Size([]), torch.Size([1000]))
    """
    check_temperature(student_temperature)
    check_temperature(teacher_temperature)
    if student.ndim != 3 or teacher.ndim != 3 or student.shape[1:] != teacher.shape[1:]:
        raise ValueError(
            "expected (views, batch, K) from the student and (global views, batch, K) from the teacher, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    views, global_views = len(student), len(teacher)
    if views < max(2, global_views) or not global_views:
        raise ValueError(f"{global_views} views of the teacher and {views} of the student give no pair of two views")
    p = _teacher_logits(teacher, center, teacher_temperature).softmax(dim=-1).detach()
    log_q = (student / student_temperature).log_softmax(dim=-1)
    # The sum over all pairs, minus the pairs of a view with itself. K is large: a product per pair needs much memory.
    all_pairs = -(p.sum(dim=0) * log_q.sum(dim=0)).sum(dim=-1)
    same_view = -(p * log_q[:global_views]).sum(dim=(0, -1))
    return (all_pairs - same_view).mean() / (global_views * (views - 1))


def dino_center(center: Tensor, teacher: Tensor, momentum: float = 0.9) -> Tensor:
    """The centre for the next step: `momentum * center + (1 - momentum) * mean of the teacher's outputs`.

    The mean is taken over the raw outputs, before temperature and softmax. With several processes, it must cover the
    rows of all: pass the outputs of all, or their mean over processes. Without a centre, all clips get one prototype.

    Args:
        center: `(K,)`, the present centre.
        teacher: `(..., K)` outputs for the global crops, as in `dino_loss`.
        momentum: from 0 to 1.

    Returns:
        `(K,)`, without gradient.

    Raises:
        ValueError: the momentum is not from 0 to 1.

    Example:
        >>> import torch
        >>> dino_center(torch.zeros(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), momentum=0.5)
        tensor([1.0000, 1.5000])
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be from 0 to 1, got {momentum}")
    return torch.lerp(teacher.detach().flatten(0, -2).mean(dim=0), center, momentum)


def dino_statistics(teacher: Tensor, center: Tensor, teacher_temperature: float = 0.04) -> dict[str, Tensor]:
    """Statistics that show a collapse.

    Args:
        teacher: `(global views, batch, K)` outputs, as in `dino_loss`.
        center: `(K,)` centre.
        teacher_temperature: above 0.

    Returns:
        Scalars without gradient, by name:

        - `teacher_entropy`: mean entropy of the teacher's distributions, from 0 to `log(K)`. At `log(K)` they are
          uniform, and the student learns nothing. The loss minus this entropy is the mean Kullback-Leibler divergence.
        - `mean_teacher_entropy`: entropy of the mean distribution over the batch. At 0, all clips have one prototype.
        - `teacher_deviation`: standard deviation of a prototype's probability over the batch, averaged over prototypes.

    Raises:
        ValueError: the temperature is not above 0.

    Example:
        >>> import torch
        >>> statistics = dino_statistics(torch.zeros(2, 4, 10), torch.zeros(10))  # uniform: both entropies are log(10)
        >>> {name: round(float(value), 3) for name, value in statistics.items()}
        {'teacher_entropy': 2.303, 'mean_teacher_entropy': 2.303, 'teacher_deviation': 0.0}
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
