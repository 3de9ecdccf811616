"""The classifiers of probes: a linear head, a head with one hidden layer, and k nearest neighbours."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from ssl_audio.heads import ProbeHead

STRENGTHS = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)  # factors of the L2 penalty, the strongest first
NEIGHBOURS = (50, 20, 10, 5, 3, 1)  # values of k
HIDDEN = 512
_TEMPERATURE = 0.07  # of the softmax over cosines that weights the votes (Wu et al., CVPR 2018)
EPOCHS = 200
_PATIENCE, _BATCH, _RATE, _DECAY = 10, 256, 1e-3, 1e-6  # CLMR's settings of its MLP classifier


def linear_path(
    x: np.ndarray, y: np.ndarray, classes: Sequence[str], strengths: Sequence[float]
) -> Iterator[ProbeHead]:
    """Fit a logistic regression at each strength of the L2 penalty.

    Args:
        x: (rows, dim) float32.
        y: (rows,) class numbers, or (rows, classes) bool for a multi-label task.
        classes: names of the classes.
        strengths: factors of the penalty.

    Yields:
        The head after each fit. It is the same object every time, because each fit starts from the one before.
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
    """Minimise `mean log loss + strength / 2 * sum of squared weights` in place, by L-BFGS.

    The bias is not penalised, as in scikit-learn. The minimiser is SciPy's, because torch's spends more time between
    the evaluations of the loss than in them.
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
    """Train a head with one hidden layer by Adam, with early stopping on the validation loss.

    Args:
        x: (rows, dim) float32.
        y: (rows,) class numbers, or (rows, classes) bool for a multi-label task.
        classes: names of the classes.
        validation: (features, targets) for early stopping; None trains for all `epochs`.
        seed: of the initial weights and the order of the rows.
        epochs: maximum number of epochs.
        hidden: size of the hidden layer.

    Returns:
        (the head, the epoch of its weights). With validation this is the epoch of the lowest validation loss.
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
    """(rows, dim) features -> (rows, classes) probabilities, float64."""
    with torch.no_grad():
        return head.probabilities(head(torch.from_numpy(x))).numpy().astype(np.float64)


def nearest(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, n_classes: int, counts: Sequence[float]
) -> Iterator[np.ndarray]:
    """Classify by a weighted vote of the k nearest rows by cosine; a vote weighs `exp(cosine / temperature)`.

    Args:
        x: (rows, dim) rows with known labels.
        y: (rows,) class numbers, or (rows, classes) bool for a multi-label task.
        test: (test rows, dim).
        n_classes: number of classes.
        counts: values of k.

    Yields:
        (test rows, classes) probabilities for each k.
    """
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
    """Log loss, mean over rows; in a multi-label task, summed over the classes of a row."""
    if targets.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
    return F.cross_entropy(logits, targets)
