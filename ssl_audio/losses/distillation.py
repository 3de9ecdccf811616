"""Distillation: a student predicts the embeddings of a teacher.

- Cosine, squared error: S-SONDO (ICASSP 2026) compares these and others on audio; cosine is best there.
- Symmetric contrastive: Radford and others, "Learning transferable visual models from natural language supervision",
  ICML 2021, https://arxiv.org/abs/2103.00020; Elizalde and others, "CLAP", https://arxiv.org/abs/2206.04769.
- Similarities: Fang and others, "SEED: self-supervised distillation for visual representation", ICLR 2021,
  https://arxiv.org/abs/2101.04731.

Gradients flow into the student alone.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, mse_loss, normalize

from ssl_audio.losses._checks import check_temperature, check_views


def cosine_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """`mean_i (1 - cos(student_i, teacher_i))`.

    Args:
        student, teacher: `(batch, dim)` of any length. Row i of both comes from the same clip.

    Returns:
        Scalar in [0, 2].

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> cosine_distillation_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor(1.)
    """
    check_views(student, teacher)
    return (1 - cosine_similarity(student, teacher.detach(), dim=1)).mean()


def contrastive_distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 0.07) -> Tensor:
    """Each student finds its teacher among those of the batch, and each teacher its student: mean cross-entropy.

    Args:
        student, teacher: `(batch, dim)` of any length. Row i of both comes from the same clip.
        temperature: above 0; divides the cosines.

    Returns:
        Scalar, at least 0; by chance `log(batch)`.

    Raises:
        ValueError: the shapes differ, there are fewer than 2 clips, or the temperature is not above 0.

    Example:
        >>> import torch
        >>> contrastive_distillation_loss(torch.eye(3), torch.eye(3), temperature=0.5)  # -2 + log(exp(2) + 2)
        tensor(0.2395)
    """
    check_views(student, teacher, minimum=2)
    check_temperature(temperature)
    cosines = normalize(student, dim=1) @ normalize(teacher.detach(), dim=1).T / temperature
    own = torch.arange(len(cosines), device=cosines.device)
    return (cross_entropy(cosines, own) + cross_entropy(cosines.T, own)) / 2


def similarity_distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 0.07) -> Tensor:
    """KL divergence from the teacher's to the student's distribution over the teacher's vectors of the batch.

    A distribution is the softmax over j of `cos(x_i, teacher_j) / temperature`, with x the teacher or the student.

    Args:
        student, teacher: `(batch, dim)` of any length. Row i of both comes from the same clip.
        temperature: above 0.

    Returns:
        Scalar, at least 0; 0 where the student's cosines with the batch are the teacher's.

    Raises:
        ValueError: the shapes differ, there are fewer than 2 clips, or the temperature is not above 0.

    Example:
        >>> import torch
        >>> teacher = torch.eye(2)
        >>> similarity_distillation_loss(3 * teacher, teacher)
        tensor(0.)
        >>> similarity_distillation_loss(teacher.flip(0), teacher, temperature=1.0)  # tanh(1 / 2)
        tensor(0.4621)
    """
    check_views(student, teacher, minimum=2)
    check_temperature(temperature)
    teacher = normalize(teacher.detach(), dim=1)
    mine, theirs = ((x @ teacher.T / temperature).log_softmax(dim=1) for x in (normalize(student, dim=1), teacher))
    return kl_div(mine, theirs, reduction="batchmean", log_target=True)


def mse_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over all elements, lengths included.

    Args:
        student, teacher: `(batch, dim)`. Row i of both comes from the same clip.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> mse_distillation_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
        tensor(2.)
    """
    check_views(student, teacher)
    return mse_loss(student, teacher.detach())
