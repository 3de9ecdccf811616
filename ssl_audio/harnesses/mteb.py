"""MTEB and its audio benchmark MAEB (https://github.com/embeddings-benchmark/mteb): an encoder, and its evaluation."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ssl_audio import audio
from ssl_audio.errors import InputError, suggest
from ssl_audio.harnesses.frames import embed_clips
from ssl_audio.harnesses.source import Target


class MTEBEncoder:
    """A model for `mteb.evaluate`. MTEB stores results under the name and the fingerprint of the model.

    Args:
        target: the model. It runs on its present device.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.model = target, target.model

    @property
    def mteb_model_meta(self) -> Any:
        from mteb.models.model_meta import ModelMeta

        about = {"revision": self.target.fingerprint, "modalities": ["audio"], "embed_dim": self.model.dim}
        return ModelMeta.create_empty({"name": f"ssl_audio/{self.target.name}", **about})

    def encode(self, inputs: Iterable[dict[str, Any]], **_: Any) -> np.ndarray:
        """Embed batches, each with a list "audio" of `{"array", "sampling_rate"}`: `(clips, dim)` float32, in order."""
        if hasattr(inputs, "collate_fn"):
            inputs.collate_fn = _collated  # the function of mteb imports torchaudio
        return np.concatenate([self._embedded(batch["audio"]) for batch in inputs])

    def similarity(self, one: Any, other: Any) -> Tensor:
        """`(n, dim)` and `(m, dim)` -> cosines `(n, m)`."""
        return normalize(_tensor(one), dim=-1) @ normalize(_tensor(other), dim=-1).T

    def similarity_pairwise(self, one: Any, other: Any) -> Tensor:
        """`(n, dim)` twice -> cosines `(n,)`."""
        return cosine_similarity(_tensor(one), _tensor(other))

    def _embedded(self, clips: Sequence[Any]) -> np.ndarray:
        waveforms = [self._waveform(clip) for clip in clips]
        found = np.empty((len(waveforms), self.model.dim), np.float32)
        device = next((tensor.device for tensor in self.model.parameters()), torch.device("cpu"))
        for length in {
            len(waveform) for waveform in waveforms
        }:  # only clips of equal length share a batch, so none is padded
            rows = [row for row, waveform in enumerate(waveforms) if len(waveform) == length]
            batch = torch.from_numpy(np.stack([waveforms[row] for row in rows])).to(device)
            found[rows] = embed_clips(self.model, batch).cpu().numpy()
        return found

    def _waveform(self, clip: Any) -> np.ndarray:
        samples = np.asarray(clip["array"], np.float32)
        samples = samples.mean(0) if samples.ndim == 2 else samples  # channels come first
        rate = int(clip["sampling_rate"])
        return audio.resample(samples, rate, self.model.sample_rate) if rate != self.model.sample_rate else samples


def _collated(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


def run(target: Target, tasks: Sequence[str], output: str | os.PathLike, batch_size: int = 32) -> dict[str, float]:
    """Evaluate a model on tasks or benchmarks of MTEB.

    Args:
        target: the model.
        tasks: names of tasks, or of benchmarks such as "MAEB(v1, audio-only)".
        output: folder of the results, in the format of MTEB. Tasks with results for this model are not run again.
        batch_size: clips per batch.

    Returns:
        The main score of each task, by its name.

    Raises:
        InputError: there is no such task.
    """
    import mteb

    benchmarks = {benchmark.name for benchmark in mteb.get_benchmarks()}
    chosen: list[Any] = []
    for name in tasks:
        if name in benchmarks:
            chosen += list(mteb.get_benchmark(name).tasks)
            continue
        try:
            chosen.append(mteb.get_task(name))
        except KeyError as error:
            known = {task.metadata.name for task in mteb.get_tasks(modalities=["audio"])} | benchmarks
            raise InputError(f"MTEB has no task {name!r}{suggest(name, known)}") from error
    cache = mteb.ResultCache(Path(output))
    found = mteb.evaluate(MTEBEncoder(target), chosen, cache=cache, encode_kwargs={"batch_size": batch_size})
    return {result.task_name: float(result.get_score()) for result in found.task_results}
