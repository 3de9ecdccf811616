"""Cluster the recordings of a folder, or the embeddings of a table, and write what came out."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.decisions.clustering import Clusters, Contradiction, Voices, assigned, cluster_voices
from ssl_audio.decisions.corrections import Corrections
from ssl_audio.decisions.rule import Rule
from ssl_audio.embedding import embed_files
from ssl_audio.embedding.table import FORMATS, files_to_embed
from ssl_audio.errors import InputError
from ssl_audio.evaluation.ranks import unit_length
from ssl_audio.hub import load_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import made_by
from ssl_audio.utils.files import write_atomically, write_text

METHODS = ("agglomerative", "hdbscan")
SMALLEST = 2  # files of a cluster that HDBSCAN finds


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings that are clustered.

    Attributes:
        names: (rows,) path in the table, or relative to the folder.
        files: (rows,) the file of each.
        groups: (rows,) first folder below the source; "" where there is none.
        start, end: (rows,) in seconds.
        values: (rows, dim).
        failed: (path, reason) of files that could not be embedded.
    """

    names: list[str]
    files: list[Path]
    groups: list[str]
    start: np.ndarray
    end: np.ndarray
    values: np.ndarray
    failed: list[tuple[Path, str]]


def embed_source(
    source: str,
    model: EmbeddingModel | None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    **options: Any,
) -> Embedded:
    """The embeddings of a folder, list, pattern or file, or of a table of embeddings.

    Args:
        source: see `files_to_embed`; or a `.parquet`, `.npz` or `.csv` table, see `hub.foreign.table`.
        model: for recordings; of a table it must be the model that made it, where the table says.
        window_seconds, hop_seconds: see `embed_files`.
        **options: `batch_size` and `device` of `embed_files`.

    Raises:
        InputError: no recordings, none that can be embedded, no model, or another model's table.
    """
    if os.path.isfile(source) and Path(source).suffix in (*FORMATS, ".csv"):
        if window_seconds is not None:
            raise InputError(f"{source}: a table has no audio to cut into windows; give recordings")
        return _from_table(source, model)
    if model is None:
        raise InputError("recordings need a model; give --model")
    sources = files_to_embed(source)
    kept, failed = [], []
    settings: dict[str, Any] = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "on_error": "report"}
    for result in embed_files(model, [one.file for one in sources], **settings, **options):
        if result.embedding is None:
            failed.append((result.path, str(result.error).removeprefix(f"{result.path}: ")))
        else:
            kept.append(result)
    if not kept:
        path, reason = failed[0]
        raise InputError(f"{source}: none of its {len(sources)} recordings can be embedded; {path}: {reason}")
    here = [sources[result.index] for result in kept]
    return Embedded(
        [one.path for one in here],
        [one.file for one in here],
        [one.group for one in here],
        np.array([result.start for result in kept]),
        np.array([result.end for result in kept]),
        np.stack([result.embedding for result in kept if result.embedding is not None]),
        failed,
    )


def _from_table(source: str, model: EmbeddingModel | None) -> Embedded:
    import pyarrow.parquet as pq

    encoder: Any = load_model(f"table:{source}").encoder
    if model is not None and source.endswith(".parquet"):
        maker = (pq.read_schema(source).metadata or {}).get(b"model", b"").decode()
        if maker and not made_by(model, maker):
            raise InputError(f"{source}: another model made this table; give that one, or embed with this one")
    names = list(encoder.rows)
    several = any(len(rows) > 1 for rows in encoder.rows.values())
    order = np.array([rows[0] for rows in encoder.rows.values()])
    if several:
        values = np.stack([encoder.values[rows].mean(axis=0) for rows in encoder.rows.values()])
    else:
        values = encoder.values[order]
    seconds = np.zeros(len(names))
    if encoder.start is not None and encoder.end is not None:
        seconds = np.array([encoder.end[rows].max() - encoder.start[rows].min() for rows in encoder.rows.values()])
    groups = [name.partition("/")[0] if "/" in name else "" for name in names]
    files = [Path(name) for name in names]
    return Embedded(names, files, groups, np.zeros(len(names)), seconds, values, [])


def cluster_embedded(
    rows: Embedded,
    model: EmbeddingModel | None,
    *,
    rule: Rule | None = None,
    threshold: float | None = None,
    number: int | None = None,
    method: str = "agglomerative",
    overcluster: int | None = None,
    corrections: Corrections | None = None,
    seed: int = 0,
) -> Clusters:
    """Cluster embeddings.

    Args:
        rows: from `embed_source`.
        model: whose calibration is used; None for a table without one.
        rule: prior and costs, from which the threshold follows; None for a prior of .5 and equal costs.
        threshold: a cosine, instead of a calibration.
        number: of clusters, if it is known.
        method: one of `METHODS`.
        overcluster, seed: see `cluster_voices`.
        corrections: pairs that are, or are not, the same.

    Raises:
        InputError: neither calibration nor threshold nor number, or corrections that contradict each other.
    """
    calibration = None if model is None or threshold is not None else model.calibration
    limit = threshold
    if threshold is not None and not -1 < threshold < 1:
        raise InputError(f"--threshold is a cosine above -1 and below 1, got {threshold:g}")
    if limit is None:
        limit = 0.0 if calibration is None else (rule or Rule()).threshold
    if calibration is None and threshold is None and number is None and method != "hdbscan":
        raise InputError(
            "the model has no calibration, from which the threshold would follow; make one with ssl-audio calibrate, "
            "or give --clusters N, or --threshold COSINE at your own risk"
        )
    voices = Voices.of(rows.values, rows.end - rows.start, calibration)
    same = different = None
    if corrections is not None:
        if method == "hdbscan":
            raise InputError("corrections need --method agglomerative")
        same, different = corrections.places(rows.names, rows.files)
    if method == "hdbscan":
        return assigned(voices, _hdbscan(rows.values), limit)
    try:
        return cluster_voices(
            voices, limit, number=number, same=same, different=different, overcluster=overcluster, seed=seed
        )
    except Contradiction as error:
        assert corrections is not None and different is not None
        a, b = different[error.pair]
        raise corrections.contradiction(rows.names[a], rows.names[b]) from error


def _hdbscan(values: np.ndarray) -> np.ndarray:
    """(files,) clusters, the largest first; what HDBSCAN calls noise are clusters of one file."""
    from sklearn.cluster import HDBSCAN

    if len(values) <= SMALLEST:
        return np.arange(len(values))
    found = HDBSCAN(min_cluster_size=SMALLEST, copy=True).fit(unit_length(values)).labels_.astype(int)
    noise = np.flatnonzero(found < 0)
    found[noise] = found.max() + 1 + np.arange(len(noise))
    return np.argsort(np.argsort(-np.bincount(found), kind="stable"))[found]


def write_clusters(output: str | os.PathLike, rows: Embedded, clusters: Clusters, windows: bool = False) -> None:
    """`path, cluster, confidence, nearest`, a row a file, as `.csv` or `.parquet`; with `windows` also start and end.

    Raises:
        InputError: another suffix.
    """
    output = Path(output)
    columns: dict[str, Sequence] = {"path": rows.names}
    if windows:
        columns |= {"start": rows.start.tolist(), "end": rows.end.tolist()}
    confidence = [None if np.isnan(x) else round(x, 6) for x in clusters.confidence.tolist()]
    nearest = [None if x < 0 else x for x in clusters.nearest.tolist()]
    columns |= {"cluster": clusters.labels.tolist(), "confidence": confidence, "nearest": nearest}
    if check_output(output).suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"cluster": pa.int64(), "nearest": pa.int64(), "path": pa.string()}
        table = pa.table({name: pa.array(x, types.get(name, pa.float64())) for name, x in columns.items()})
        with write_atomically(output) as temporary:
            pq.write_table(table, temporary)
        return
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_text(output, out.getvalue())


def check_output(output: Path) -> Path:
    """The path of a table of clusters; InputError if it ends otherwise."""
    if output.suffix not in (".csv", ".parquet"):
        raise InputError(f"{output}: the output must end in .csv or .parquet")
    return output


def link_clusters(folder: str | os.PathLike, rows: Embedded, clusters: Clusters) -> None:
    """`folder/<cluster>/<name>`: a link to each file.

    Raises:
        InputError: the folder is there already and not empty, or a file is not there.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; give --link a new folder")
    absent = next((file for file in rows.files if not file.exists()), None)
    if absent is not None:
        raise InputError(f"{absent} is not there, so that no link can lead to it; run this where the table was made")
    for name, file, cluster in dict.fromkeys(zip(rows.names, rows.files, clusters.labels.tolist(), strict=True)):
        link = folder / f"{cluster:05d}" / name.replace("/", "__").replace(os.sep, "__")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
