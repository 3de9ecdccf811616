"""Statistics that become layers, against scipy and plain loops."""

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power

from ssl_audio.adaptation.statistics import mean_layer, nearest_mean_layer, scatter_layer, standardising_layer
from ssl_audio.errors import InputError


def rows(count: int = 60, dim: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, dim)) @ rng.standard_normal((dim, dim)) + 3


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_within_class_scatter_is_taken_down_by_a_power(power):
    x, group = rows(), np.repeat(np.arange(20), 3)
    group[-1] = 99  # a person with one recording says nothing about scatter
    scatter, freedom = np.zeros((5, 5)), 0
    for one in range(20):
        residuals = x[group == one] - x[group == one].mean(axis=0)
        scatter += residuals.T @ residuals
        freedom += len(residuals) - 1
    scatter /= freedom
    shrunk = 0.4 * scatter / (np.trace(scatter) / 5) + 0.6 * np.eye(5)
    expected = x @ fractional_matrix_power(shrunk, -power)
    layer = scatter_layer(torch.from_numpy(x), group, 0.6, power)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_shrinkage_of_one_changes_nothing():
    x = torch.from_numpy(rows()).float()
    torch.testing.assert_close(scatter_layer(x, np.repeat(np.arange(20), 3), 1.0)(x), x)


def test_collections_of_any_size_weigh_the_same_in_the_mean():
    x, collection = rows(), np.r_[np.zeros(50), np.ones(10)]
    middle = (x[:50].mean(axis=0) + x[50:].mean(axis=0)) / 2
    layer = mean_layer(torch.from_numpy(x), collection)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), x - middle, atol=1e-5)


def test_each_collection_has_its_mean():
    x = np.r_[rows(), rows() + 100]
    layer = nearest_mean_layer(torch.from_numpy(x), np.repeat([0, -1], 60))
    centred = layer(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(centred[:60].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(centred[60:].mean(axis=0), 0, atol=1e-4)


def test_dimensions_are_standardised():
    x = torch.from_numpy(rows()).float()
    out = standardising_layer(x)(x).numpy()
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=0), 1, atol=1e-5)


def test_what_cannot_work_is_refused():
    x = torch.from_numpy(rows())
    with pytest.raises(InputError, match="no scatter to take down"):
        scatter_layer(x, np.arange(60))
    with pytest.raises(InputError, match="shrinkage is 0; it must lie above 0"):
        scatter_layer(x, np.zeros(60), 0)
