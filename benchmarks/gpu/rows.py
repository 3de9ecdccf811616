"""What is measured, most important first, each row with the seconds that it may take."""

from dataclasses import dataclass, field
from typing import Any

SECTIONS = {
    "step": "Training steps on resident data, at the sizes of the papers",
    "disk": "The chain on the device, and training from disk",
    "embed": "Embedding a folder",
    "exact": "Exactness of bf16",
    "search": "Retrieval and scoring",
    "growth": "Growth with batch and clip length (contrastive, bf16)",
}

METHODS = ("contrastive", "byol", "vicreg", "uniformity-alignment", "contrastive-vc", "simsiam", "wav2rec", "clmr",
           "cpc", "wavebyol", "supervised", "dino", "moco")  # fmt: skip
NOT_TIMED = ("distil", "sogclr")  # the one needs a teacher, the other real recordings; its step is that of NT-Xent
SLOW = ("wavebyol", "wav2rec", "contrastive-vc")  # on a CPU, and on the path of others: not in a smoke test


@dataclass(frozen=True)
class Row:
    """A function, called with a `Setting` and `arguments`, that returns figures.

    Args:
        name: unique; results are kept under it.
        section: a key of SECTIONS.
        function: its dotted path.
        limit: seconds on a device; in a smoke test all rows have the same.
        in_smoke: whether a smoke test runs it; variants of one path run once there.
    """

    name: str
    section: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    limit: float = 40.0
    in_smoke: bool = True


def rows() -> list[Row]:
    """All rows in the order in which they run."""
    first = [
        _step("contrastive", "bf16-mixed"),
        Row("chain", "disk", "benchmarks.gpu.chain.against_one_core", limit=60),
        Row("recordings", "disk", "benchmarks.gpu.recordings.write", limit=120),
        Row("disk folder", "disk", "benchmarks.gpu.training.from_disk", {"what": "folder"}, limit=90),
        Row("embed flac", "embed", "benchmarks.gpu.embedding.folder", {"kind": "flac"}, limit=60),
        Row("exactness", "exact", "benchmarks.gpu.exactness.bf16"),
        _step("contrastive", "32-true"),
        _step("contrastive", "bf16-mixed", compiled=True),
    ]
    others = [_step(method, "bf16-mixed", smoke=method not in SLOW) for method in METHODS[1:]]
    then = [
        Row("disk shards", "disk", "benchmarks.gpu.training.from_disk", {"what": "shards"}, limit=90),
        Row("embed mp3", "embed", "benchmarks.gpu.embedding.folder", {"kind": "mp3"}, limit=60),
        Row("nearest", "search", "benchmarks.gpu.search.nearest"),
        Row("all pairs", "search", "benchmarks.gpu.search.all_pairs"),
        Row("disk clip", "disk", "benchmarks.gpu.training.per_clip", limit=90),
    ]
    batches = [_growth(f"batch {size}", batch_size=size) for size in (16, 64, 256, 512)]
    lengths = [_growth(f"length {seconds} s", batch_size=32, seconds=seconds) for seconds in (1, 4, 16)]
    last = [_step(method, "32-true", smoke=False) for method in METHODS[1:]]
    last += [_step(method, "bf16-mixed", compiled=True, smoke=False) for method in METHODS[1:]]
    return [*first, *others, *then, *batches, *lengths, *last]


def _step(method: str, precision: str, compiled: bool = False, smoke: bool = True) -> Row:
    arguments = {"method": method, "precision": precision, "backend": "inductor" if compiled else None}
    name = f"step {method} {precision}{' compiled' if compiled else ''}"
    return Row(name, "step", "benchmarks.gpu.training.step", arguments, 120 if compiled else 40, smoke)


def _growth(name: str, **sizes: float) -> Row:
    arguments = {"method": "contrastive", "precision": "bf16-mixed", **sizes}
    return Row(f"growth {name}", "growth", "benchmarks.gpu.training.step", arguments, 30, name in ("batch 16",))
