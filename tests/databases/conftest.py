"""What the tests of databases share: random vectors and a table of them."""

from pathlib import Path

import numpy as np
import pytest
from tables import DIM, ROWS, write_table


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)


@pytest.fixture
def table(tmp_path, vectors) -> Path:
    return write_table(tmp_path / "embeddings.parquet", vectors)
