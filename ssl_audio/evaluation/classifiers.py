"""The classifiers of probes: fitted heads (linear, one hidden layer) and votes of nearest neighbours."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from ssl_audio.heads import ProbeHead

STRENGTHS = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)  # of the penalty on half the squared weights, strongest first
NEIGHBOURS = (50, 20, 10, 5, 3, 1)
HIDDEN = 512
_TEMPERATURE = 0.07  # of the neighbours' votes (Wu et al., CVPR 2018)
EPOCHS = 200
_PATIENCE, _BATCH, _RATE, _DECAY = 10, 256, 1e-3, 1e-6  # of the MLP, as CLMR's


def linear_path(
    x: np.ndarray, y: np.ndarray, classes: Sequence[str], strengths: Sequence[float]
) -> Iterator[ProbeHead]:
    """Logistic regression at each strength; each fit starts from the one before, in one head that changes.

    Args:
        x: (rows, dim) float32; y: (rows,) class numbers, or (rows, classes) bool.
    """
    head = ProbeHead(x.shape[1], classes, multi_label=y.ndim == 2)
    features = torch.from_numpy(x)
    head.standardize(features)
    features = (features - head.mean) * head.scale
    targets = torch.from_numpy(y)
    targets = targets.float() if y.ndim == 2 else targets.long()
    layer = head.net[0]
    torch.nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    for strength in strengths:
        _minimise(features, targets, layer.weight, layer.bias, strength)  # type: ignore[arg-type]
        yield head


def _minimise(a: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, strength: float) -> None:
    """Mean log loss + strength / 2 * squared weights, by L-BFGS; the bias is free, as in scikit-learn.

    SciPy's minimiser, because torch's spends longer between the evaluations of the loss than in them.
    """
    classes = len(bias)
    truth = targets if targets.ndim == 2 else F.one_hot(targets, classes).float()

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        values = torch.from_numpy(flat).float()
        w, b = values[:-classes].view_as(weight), values[-classes:]
        logits = F.linear(a, w, b)
        error = ((logits.sigmoid() if targets.ndim == 2 else logits.softmax(dim=1)) - truth) / len(a)
        gradient = torch.cat([(error.T @ a + strength * w).flatten(), error.sum(dim=0)])
        return float(_loss(logits, targets) + strength / 2 * w.square().sum()), gradient.double().numpy()

    with torch.no_grad():
        start = torch.cat([weight.flatten(), bias]).double().numpy()
        options = {"maxiter": 100, "gtol": 1e-4, "ftol": 1e-6}
        found = torch.from_numpy(minimize(cost, start, jac=True, method="L-BFGS-B", options=options).x).float()
        weight.copy_(found[:-classes].view_as(weight))
        bias.copy_(found[-classes:])


def fit_mlp(
    x: np.ndarray,
    y: np.ndarray,
    classes: Sequence[str],
    validation: tuple[np.ndarray, np.ndarray] | None,
    seed: int,
    epochs: int = EPOCHS,
    hidden: int = HIDDEN,
) -> tuple[ProbeHead, int]:
    """One hidden layer by Adam, stopped early on the validation loss.

    Args:
        validation: (features, targets); the weights of the epoch with the lowest loss on it are kept. None trains for
            all `epochs`.
        seed: of initial weights and order.
        epochs: at most.
        hidden: size of the hidden layer.

    Returns:
        The head, and the epoch that was kept.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ProbeHead(x.shape[1], classes, hidden, multi_label=y.ndim == 2)
    generator = torch.Generator().manual_seed(seed)
    features, targets = _tensors(x, y)
    head.standardize(features)
    optimizer = torch.optim.Adam(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    held = _tensors(*validation) if validation is not None else None
    best, best_epoch, kept = float("inf"), epochs, None
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(features), generator=generator).split(_BATCH):
            optimizer.zero_grad()
            _loss(head(features[rows]), targets[rows]).backward()
            optimizer.step()
        if held is not None:
            with torch.no_grad():
                loss = float(_loss(head(held[0]), held[1]))
            if loss < best:
                best, best_epoch, kept = loss, epoch, copy.deepcopy(head.state_dict())
            elif epoch - best_epoch >= _PATIENCE:
                break
    if kept is not None:
        head.load_state_dict(kept)
    return head, best_epoch


def predict(head: ProbeHead, x: np.ndarray) -> np.ndarray:
    """(rows, classes) probabilities, float64."""
    with torch.no_grad():
        return head.probabilities(head(torch.from_numpy(x))).numpy().astype(np.float64)


def nearest(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, n_classes: int, counts: Sequence[float]
) -> Iterator[np.ndarray]:
    """Probabilities of the test rows by votes of the k nearest of `x` by cosine, closer ones weighing more."""
    unit, tested = (a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12) for a in (x, test))
    truth = y.astype(np.float32) if y.ndim == 2 else np.eye(n_classes, dtype=np.float32)[y]
    most = min(int(max(counts)), len(x))
    results = [np.empty((len(test), n_classes)) for _ in counts]
    for first in range(0, len(test), 1024):
        similar = tested[first : first + 1024] @ unit.T
        closest = np.argpartition(-similar, most - 1, axis=1)[:, :most]
        closest = np.take_along_axis(closest, np.argsort(-np.take_along_axis(similar, closest, 1), axis=1), 1)
        votes = np.exp((np.take_along_axis(similar, closest, 1) - 1) / _TEMPERATURE)
        for result, k in zip(results, counts, strict=True):
            k = min(int(k), most)
            weights = votes[:, :k] / votes[:, :k].sum(axis=1, keepdims=True)
            result[first : first + 1024] = np.einsum("nk,nkc->nc", weights, truth[closest[:, :k]])
    yield from results


def _tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    targets = torch.from_numpy(y)
    return torch.from_numpy(x), targets.float() if y.ndim == 2 else targets.long()


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Log loss, mean over rows; for several labels a row summed over the classes."""
    if targets.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
    return F.cross_entropy(logits, targets)
