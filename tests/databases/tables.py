"""Tables of embeddings as `ssl-audio embed` writes them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, DIM, FINGERPRINT = 120, 24, "0123456789abcdef"


def write_table(path, vectors, paths=None, groups=None, about=None):
    count, dim = vectors.shape
    paths = [f"{'ab'[i % 2]}/{i:04d}.wav" for i in range(count)] if paths is None else paths
    columns = {
        "path": paths,
        "group": [Path(p).parent.name for p in paths] if groups is None else groups,
        "start": np.zeros(count),
        "end": np.full(count, 1.5),
        "embedding": pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * dim, vectors.ravel()),
    }
    pq.write_table(pa.table(columns).replace_schema_metadata(about or {"model": FINGERPRINT}), path)
    return path
