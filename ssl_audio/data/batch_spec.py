"""What a data module promises a method: one small object, so that neither has to know the other's class."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Target(NamedTuple):
    """The embeddings of a teacher that batches hold as what is to be predicted.

    Attributes:
        name: of their table, for messages.
        mean: (dim,) float32 of the whole table.
        length: root mean square distance from that mean.
        fingerprint: of the teacher; "" if the table has none.
    """

    name: str
    mean: np.ndarray
    length: float
    fingerprint: str


@dataclass(frozen=True)
class BatchSpec:
    """What the batches of a data module hold. A data module gives it as `batch_spec`; `Method.setup` asks for it once.

    Attributes:
        keys: of a batch, such as ("clip1", "clip2", "group_name", "index") or ("clip", "target", "index").
        batch_size: rows of a batch on each device.
        samples: of each clip.
        sample_rate: of the clips, Hz.
        continues: row i of a batch continues row i of the batch before wherever its `group_name` is the same.
        classes: names of the targets, in their order; empty before the labels are read in `setup`.
        multi_label: a clip may have several classes.
        local_samples: of each short clip ("local1", ...); None: there are none.
        level: the rule by which the level of the clips was set, before any augmentation; see `ssl_audio.level`.
        targets: of each teacher, whose embeddings lie side by side in "targets" (batch, sum of their sizes).
    """

    keys: tuple[str, ...]
    batch_size: int
    samples: int
    sample_rate: int
    continues: bool = False
    classes: tuple[str, ...] = ()
    multi_label: bool = False
    level: str = "none"
    local_samples: int | None = None
    targets: tuple[Target, ...] = ()


def batch_spec_of(data_module: Any) -> BatchSpec | None:
    """The promise of a data module; None for plain loaders and for data modules that make none."""
    spec = getattr(data_module, "batch_spec", None)
    return spec if isinstance(spec, BatchSpec) else None
