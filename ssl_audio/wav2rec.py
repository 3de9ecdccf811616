"""The classes of wav2rec (https://github.com/TariqAHassan/wav2rec), so that its users need to change only the import.

    from ssl_audio.wav2rec import Wav2Rec, Wav2RecDataset

    dataset = Wav2RecDataset("music", ext="mp3").scan()
    model = Wav2Rec("runs/simsiam").fit(dataset)
    metrics, paths = model.recommend(dataset.load_audio("song.mp3"), n=3)

There are five differences to wav2rec:

- Cosine similarities are in [-1, 1] and not clipped at 0.
- `get_projection` gives the embedding of the encoder (`AudioResnet50`: 2048 numbers). With `projection=True`, it gives
  the output of the projection head (256), as in wav2rec.
- A data set with another sample rate than the model is resampled.
- An unreadable file is left out with a warning.
- Files are in sorted order.

For an index that can be saved and updated and that embeds whole tracks, use `ssl_audio.retrieval.Index`.
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
    """The folder has no audio files with the suffix; an `InputError`, and an `OSError` as in wav2rec."""


class Wav2RecDataset(Dataset):
    """A data set of one excerpt of every audio file below a folder.

    Args:
        audio_path: the folder.
        sr: sample rate of the items in Hz; files with another rate are resampled.
        offset: start of the excerpt in seconds.
        duration: length of the excerpt in seconds.
        ext: a suffix, or several.
        res_type: ignored; wav2rec has this argument. The resampler is soxr.
        zero_pad: pad shorter files with zeros, so that all items have `n_features` samples.
        verbose: show progress bars.
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
        """Number of samples of a full item."""
        return round(self.duration * self.sr)

    def get_audio_files(self) -> Iterator[Path]:
        """All files with one of the suffixes, in upper or lower case, sorted. Override it to choose other files."""
        suffixes = {f".{ext.lstrip('.').lower()}" for ext in ([self.ext] if isinstance(self.ext, str) else self.ext)}
        return (Path(e.path) for e in audio.walk_files(self.audio_path) if Path(e.name).suffix.lower() in suffixes)

    def scan(self) -> "Wav2RecDataset":
        """Find the files, and return self.

        Raises:
            NoAudioFilesError: there are none.
        """
        self.files = list(self.get_audio_files())
        if not self.files:
            raise NoAudioFilesError(f"{self.audio_path}: no files with the suffix {self.ext}; check audio_path and ext")
        return self

    def load_audio(self, path: str | os.PathLike) -> Tensor:
        """Load the excerpt of a file.

        Returns:
            `(n_features,)` float32 mono at `sr`; without `zero_pad` it may be shorter.

        Raises:
            AudioError: the file cannot be read.
        """
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
    """Recommends similar files of a data set.

    Args:
        model_path: any name for `load_model`: a run, a checkpoint, a published name.
        distance_metric: defines which files are nearest: "euclidean", "cosine", or any other metric of scikit-learn.
        normalize: scale embeddings to length 1.
        similarity_metric: the values that `recommend` returns: a function of two 1-D arrays, or None for the distances.
        batch_size, num_workers, pin_memory, prefetch_factor: arguments of the DataLoader in `fit`.
        device: device of the model; default: a GPU if there is one.
        verbose: show progress bars.
        projection: use the output of the projection head, as wav2rec does, instead of the encoder's (runs and
            checkpoints only).
        **kwargs: arguments of scikit-learn's `NearestNeighbors`, as in wav2rec: `metric` (replaces `distance_metric`),
            `p`, `metric_params`, `n_jobs`, ... Scikit-learn (`ssl-audio[eval]`) searches if the metric is neither
            euclidean nor cosine, or if there are `p` or `metric_params`. Otherwise the arguments are ignored, because
            they only change the speed.

    Raises:
        TypeError: `NearestNeighbors` does not have such an argument.
        InputError: scikit-learn does not have such a metric.
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
        self.sr: int = self.net.sample_rate  # rate of waveforms without one; `fit` sets it to the rate of the data set
        self.paths: np.ndarray = np.array([], dtype=str)
        self._searcher: Searcher | _ScikitLearnSearch | None = None

    @property
    def fitted(self) -> bool:
        """Whether `fit` has been called."""
        return self._searcher is not None

    def get_projection(self, x: Tensor | np.ndarray, sr: int | None = None) -> np.ndarray:
        """Embed audio.

        Args:
            x: `(samples,)` or `(batch, samples)`.
            sr: sample rate of `x` in Hz; default: that of the fitted data set, or before `fit` that of the model.

        Returns:
            `(batch, dim)`, of length 1 with `normalize`.

        Raises:
            IndexError: the audio has more than two dimensions.
        """
        if x.ndim > 2:
            raise IndexError(f"audio of shape {tuple(x.shape)}; it must be (samples,) or (batch, samples)")
        embeddings = np.atleast_2d(self.net.embed(x, sr or self.sr))
        return normalize(embeddings, "cosine") if self.normalize else embeddings

    def fit(self, dataset: Wav2RecDataset) -> "Wav2Rec":
        """Embed every item of the data set. Unreadable files are left out with a warning.

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
            for length in dict.fromkeys(len(clip) for _, clip in good):  # lengths differ without zero_pad
                equal = [(path, clip) for path, clip in good if len(clip) == length]
                paths += [path for path, _ in equal]
                embeddings.append(self.get_projection(torch.stack([clip for _, clip in equal])))
        if not paths:
            raise InputError("no file of the data set can be embedded; call scan() first and check its files")
        rows = np.concatenate(embeddings)
        if self._neighbours is None:
            self._searcher = make_searcher(normalize(rows, self.distance_metric), self.distance_metric)
        else:
            self._searcher = _ScikitLearnSearch(self._neighbours, rows)
        self.paths = np.array(paths)
        return self

    def recommend(self, x: Tensor | np.ndarray, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Recommend files that are similar to audio.

        Args:
            x: `(samples,)` or `(batch, samples)`.
            n: number of files.

        Returns:
            (metrics `(batch, n)`, paths `(batch, n)`), the nearest file first.

        Raises:
            AttributeError: `fit` was not called.
            ValueError: `n` is larger than the number of files.
            IndexError: the audio has more than two dimensions.
        """
        if self._searcher is None:
            raise AttributeError("Wav2Rec is not fitted; call fit(dataset) first")
        if not 1 <= n <= len(self.paths):
            raise InputError(f"n is {n}; it must be between 1 and {len(self.paths)}, the number of files")
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
    """The items of a data set; an unreadable file has the reason in place of its audio."""

    def __init__(self, dataset: Wav2RecDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int) -> tuple[str, Tensor | str]:
        try:
            return self.dataset[item]
        except InputError as error:
            return str(self.dataset.files[item]), str(error)
