"""SogCLR: a contrastive loss over the whole data set from small batches, by a moving average for each item.

Yuan et al., "Provable stochastic optimization for global contrastive learning: small batch does not harm performance",
ICML 2022, https://arxiv.org/abs/2202.12387.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_audio.losses._checks import check_temperature, check_views


def sogclr_loss(
    z1: Tensor, z2: Tensor, averages: Tensor, temperature: float = 0.1, gamma: float = 0.9
) -> tuple[Tensor, Tensor]:
    """The global contrastive loss and the new moving averages.

    For item i, `g_i` is the mean of `exp((s - s_i) / temperature)` over the cosines s of both of its views with all
    views of other items, where `s_i` is the cosine of its two views. The average becomes `u_i = (1 - gamma) u_i +
    gamma g_i`, or `g_i` the first time. The value of the loss is the mean of `temperature * log(u_i)`. Its gradient is
    that of the same with `g_i`, but divided by `u_i`, which estimates `g_i` over all items of the data set.

    Args:
        z1, z2: `(batch, dim)` projections of the two views, of any length. Row i of both comes from the same item.
        averages: `(batch,)` of the items before this step; 0 for items that were not seen yet.
        temperature: above 0.
        gamma: weight of the batch in the averages, in (0, 1]; 1 remembers nothing.

    Returns:
        The loss, a scalar, and the new averages `(batch,)`, without gradient.

    Raises:
        ValueError: the shapes do not fit, there are fewer than 2 items, or an argument is out of its range.

    Example:
        >>> import torch
        >>> z = torch.eye(3)  # cosines with others are 0, with the own view 1
        >>> loss, averages = sogclr_loss(z, z, torch.zeros(3), temperature=0.5)
        >>> loss, averages  # -1, exp(-2)
        (tensor(-1.), tensor([0.1353, 0.1353, 0.1353]))
    """
    check_views(z1, z2, minimum=2)
    check_temperature(temperature)
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must be above 0 and at most 1, got {gamma}")
    if averages.shape != z1.shape[:1]:
        raise ValueError(f"averages must have one number for each of {len(z1)} items, got {tuple(averages.shape)}")
    z1, z2 = normalize(z1, dim=1), normalize(z2, dim=1)
    positive = (z1 * z2).sum(dim=1)
    views = torch.cat([z1, z2])
    cosines = torch.stack([z1 @ views.T, z2 @ views.T], dim=1)  # (batch, 2, 2 * batch)
    others = ~torch.eye(len(z1), dtype=torch.bool, device=z1.device).repeat(1, 2).unsqueeze(1)
    margins = cosines - positive[:, None, None]
    ratios = (margins.detach() / temperature).exp() * others
    count = 4 * (len(z1) - 1)
    found = ratios.sum(dim=(1, 2)) / count
    new = torch.where(averages > 0, (1 - gamma) * averages + gamma * found, found)
    descent = ((ratios / new[:, None, None]) * margins).sum(dim=(1, 2)).mean() / count
    return descent - descent.detach() + temperature * new.log().mean(), new
