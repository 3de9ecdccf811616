"""The surface of wav2rec (https://github.com/TariqAHassan/wav2rec) over this package: change the import, keep the code.

    from ssl_audio.wav2rec import Wav2Rec, Wav2RecDataset

    dataset = Wav2RecDataset("music", ext="mp3").scan()
    model = Wav2Rec("runs/simsiam").fit(dataset)
    metrics, paths = model.recommend(dataset.load_audio("song.mp3"), n=3)

What differs, on purpose: cosine similarities are true ones, in [-1, 1] and not clipped at 0; `get_projection` gives the
encoder's embedding (2048 numbers of `AudioResnet50`) unless `projection=True` asks for the head's output (256); a
dataset of another rate than the model's is resampled; an unreadable file is left out with a warning; files are in
sorted order. For an index
that is saved, updated and knows whole tracks, take `ssl_audio.retrieval.Index`.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.errors import InputError, first_line
from ssl_audio.hub import load_model
from ssl_audio.retrieval.search import Searcher, make_searcher, normalize
from ssl_audio.utils.device import best_device


class NoAudioFilesError(InputError, OSError):
    """A folder without audio files of the wanted kind. Both what this package and what wav2rec raises."""


class Wav2RecDataset(Dataset):
    """The same stretch of every audio file under a folder.

    Args:
        audio_path: the folder.
        sr: rate that files are brought to, in Hz.
        offset, duration: the stretch, in seconds, fractions allowed.
        ext: suffix, or several.
        res_type: accepted as wav2rec had it; soxr resamples.
        zero_pad: fill files that end earlier, so that all items are `n_features` long.
        verbose: progress bars.
    """

    def __init__(
        self,
        audio_path: str | os.PathLike,
        sr: int = 22050,
        offset: float = 0,
        duration: float = 15,
        ext: str | Sequence[str] = "mp3",
        res_type: str = "soxr",
        zero_pad: bool = True,
        verbose: bool = True,
    ) -> None:
        self.audio_path, self.sr, self.offset, self.duration = Path(audio_path), sr, offset, duration
        self.ext, self.res_type, self.zero_pad, self.verbose = ext, res_type, zero_pad, verbose
        self.files: list[Path] = []

    @property
    def n_features(self) -> int:
        """Samples of a full item."""
        return round(self.duration * self.sr)

    def get_audio_files(self) -> Iterator[Path]:
        """The files, to be overridden for other choices: all with one of the suffixes, in any case, sorted."""
        suffixes = {f".{ext.lstrip('.').lower()}" for ext in ([self.ext] if isinstance(self.ext, str) else self.ext)}
        return (Path(e.path) for e in audio.walk_files(self.audio_path) if Path(e.name).suffix.lower() in suffixes)

    def scan(self) -> "Wav2RecDataset":
        """Look for the files, and return self.

        Raises:
            NoAudioFilesError: there are none (an OSError, as in wav2rec).
        """
        self.files = list(self.get_audio_files())
        if not self.files:
            raise NoAudioFilesError(f"{self.audio_path}: no files with the suffix {self.ext}; check audio_path and ext")
        return self

    def load_audio(self, path: str | os.PathLike) -> Tensor:
        """`(n_features,)` float32 mono at `sr`; shorter only without `zero_pad`. Raises AudioError."""
        waveform = audio.read(path, self.sr, round(self.offset * self.sr), self.n_features)
        if self.zero_pad:
            waveform = np.pad(waveform, (0, self.n_features - len(waveform)))
        return torch.from_numpy(waveform)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> tuple[str, Tensor]:
        return str(self.files[item]), self.load_audio(self.files[item])

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for path in tqdm(self.files, desc="load", unit="file", disable=not self.verbose):
            yield str(path), self.load_audio(path)


def cosine_similarity(x1: np.ndarray, x2: np.ndarray) -> float:
    """Cosine of two 1-D arrays, in [-1, 1]."""
    return float(np.clip(normalize(x1, "cosine") @ normalize(x2, "cosine"), -1, 1))


class Wav2Rec:
    """Recommendations from a dataset.

    Args:
        model_path: anything that `load_model` takes: a run, a checkpoint, a published name.
        distance_metric: by which neighbours are found: "euclidean", "cosine", or any metric of scikit-learn.
        normalize: embeddings of unit length.
        similarity_metric: what `recommend` reports: a function of two 1-D arrays, or None for the distances.
        batch_size, num_workers, pin_memory, prefetch_factor: of the DataLoader in `fit`.
        device: where the model runs; CUDA if there is one.
        verbose: progress bars.
        projection: use the projection head's output, as wav2rec did, instead of the encoder's (runs and checkpoints).
        **kwargs: arguments of scikit-learn's `NearestNeighbors`: `metric`, which replaces `distance_metric`, `p`,
            `metric_params`, `n_jobs`, ... With another metric than euclidean or cosine, or with `p` or `metric_params`,
            scikit-learn searches (`ssl-audio[eval]`); the others set how fast it searches, not what it finds.

    Raises:
        TypeError: `NearestNeighbors` has no such argument.
        InputError: no such metric.
    """

    def __init__(
        self,
        model_path: str | os.PathLike,
        distance_metric: str = "euclidean",
        normalize: bool = True,
        similarity_metric: Callable[[np.ndarray, np.ndarray], float] | None = cosine_similarity,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        device: str | torch.device | None = None,
        verbose: bool = True,
        projection: bool = False,
        **kwargs: Any,
    ) -> None:
        self.distance_metric = kwargs.pop("metric", distance_metric)
        unknown = set(kwargs) - {"n_jobs", "leaf_size", "algorithm", "radius", "p", "metric_params", "n_neighbors"}
        if unknown:
            raise TypeError(f"Wav2Rec has no argument {', '.join(sorted(unknown))}")
        own = self.distance_metric in ("euclidean", "cosine") and not {"p", "metric_params"} & set(kwargs)
        self._neighbours = None if own else _neighbours(self.distance_metric, kwargs)
        self.model_path, self.normalize = model_path, normalize
        self.similarity_metric, self.batch_size, self.num_workers = similarity_metric, batch_size, num_workers
        self.pin_memory, self.prefetch_factor, self.verbose = pin_memory, prefetch_factor, verbose
        self.device = best_device(device)
        self.net = load_model(model_path, projection=projection).to(self.device)
        self.sr: int = self.net.sample_rate  # of waveforms that come without a rate; a fitted dataset sets it
        self.paths: np.ndarray = np.array([], dtype=str)
        self._searcher: Searcher | _ScikitLearnSearch | None = None

    @property
    def fitted(self) -> bool:
        """Whether `fit` has run, so that `recommend` can."""
        return self._searcher is not None

    def get_projection(self, x: Tensor | np.ndarray, sr: int | None = None) -> np.ndarray:
        """`(samples,)` or `(batch, samples)` -> `(batch, dim)`, of unit length if `normalize`.

        Args:
            sr: rate of `x` in Hz; by default the fitted dataset's, before `fit` the model's.

        Raises:
            IndexError: more than two dimensions.
        """
        if x.ndim > 2:
            raise IndexError(f"audio of shape {tuple(x.shape)}; it must be (samples,) or (batch, samples)")
        embeddings = np.atleast_2d(self.net.embed(x, sr or self.sr))
        return normalize(embeddings, "cosine") if self.normalize else embeddings

    def fit(self, dataset: Wav2RecDataset) -> "Wav2Rec":
        """Embed every item of the dataset, in order; unreadable files are left out with a warning.

        Raises:
            InputError: no file can be embedded.
        """
        self.sr = dataset.sr
        loader = DataLoader(
            _Reported(dataset),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=list,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch_factor if self.num_workers else None,
        )
        paths, embeddings = [], []
        for batch in tqdm(loader, desc="fit", disable=not self.verbose):
            for _, reason in (item for item in batch if isinstance(item[1], str)):
                warnings.warn(f"left out: {reason}", stacklevel=2)
            good = [(path, clip) for path, clip in batch if not isinstance(clip, str)]
            for length in dict.fromkeys(len(clip) for _, clip in good):  # without zero_pad lengths differ
                alike = [(path, clip) for path, clip in good if len(clip) == length]
                paths += [path for path, _ in alike]
                embeddings.append(self.get_projection(torch.stack([clip for _, clip in alike])))
        if not paths:
            raise InputError("none of the dataset's files can be embedded; call scan() first and check its files")
        rows = np.concatenate(embeddings)
        if self._neighbours is None:
            self._searcher = make_searcher(normalize(rows, self.distance_metric), self.distance_metric)
        else:
            self._searcher = _ScikitLearnSearch(self._neighbours, rows)
        self.paths = np.array(paths)
        return self

    def recommend(self, x: Tensor | np.ndarray, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """`(samples,)` or `(batch, samples)` audio -> metrics `(batch, n)` and paths `(batch, n)`, the nearest first.

        Raises:
            AttributeError: not fitted.
            ValueError: `n` exceeds the fitted files.
            IndexError: audio of more than two dimensions.
        """
        if self._searcher is None:
            raise AttributeError("Wav2Rec is not fitted; call fit(dataset) first")
        if not 1 <= n <= len(self.paths):
            raise InputError(f"n is {n}; it must lie between 1 and the {len(self.paths)} fitted files")
        queries = self.get_projection(x)
        wanted = queries if self._neighbours is not None else normalize(queries, self.distance_metric)
        scores, rows = self._searcher.nearest(wanted, n)
        if self.similarity_metric is None:
            cosine = self._neighbours is None and self.distance_metric == "cosine"
            metrics = 1 - scores if cosine else -scores
        else:
            found = self._searcher.rows[rows]
            pairs = zip(queries, found, strict=True)
            metrics = np.array([[self.similarity_metric(query, row) for row in near] for query, near in pairs])
        return metrics, self.paths[rows]


def _neighbours(metric: Any, arguments: dict[str, Any]) -> Any:
    """scikit-learn's `NearestNeighbors`, checked on a few rows where the metric needs nothing more."""
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(metric=metric, **arguments)
    try:
        neighbours.fit(np.eye(3, dtype=np.float32))
    except ValueError as error:
        if "'metric' parameter" in str(error):
            raise InputError(
                f"distance_metric is {metric!r}; it must be euclidean, cosine, or a metric of scikit-learn's "
                "NearestNeighbors, such as manhattan"
            ) from error
        if "metric_params" not in arguments:
            raise InputError(f"scikit-learn cannot search by these arguments: {first_line(error)}") from error
    return neighbours


class _ScikitLearnSearch:
    """Search by a fitted `NearestNeighbors`; scores are distances with the sign changed, the nearest first."""

    def __init__(self, neighbours: Any, rows: np.ndarray) -> None:
        self.rows = rows
        try:
            self.neighbours = neighbours.fit(rows)
        except ValueError as error:
            raise InputError(f"scikit-learn cannot search by these arguments: {first_line(error)}") from error

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`(q, dim)` queries -> `(q, k)` scores and row numbers."""
        distances, rows = self.neighbours.kneighbors(queries, n_neighbors=k)
        return -distances, rows


class _Reported(Dataset):
    """Items of a dataset, with the reason in place of the audio of an unreadable file."""

    def __init__(self, dataset: Wav2RecDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int) -> tuple[str, Tensor | str]:
        try:
            return self.dataset[item]
        except InputError as error:
            return str(self.dataset.files[item]), str(error)
