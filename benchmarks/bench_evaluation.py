"""Scores, ranks, intervals, probes and the report, on embeddings that are already there."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from ssl_audio.evaluation.bootstrap import bootstrap_verification, singer_multiplicities
from ssl_audio.evaluation.comparison import TestSet, evaluate_model
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.probes import probe
from ssl_audio.evaluation.ranks import mean_normalized_rank
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.report import write_comparison_report
from ssl_audio.evaluation.scoring import all_pairs_curve, score_trials
from ssl_audio.evaluation.trials import all_pairs

FILES, SINGERS, DIM, TRIALS = 6_000, 20, 1000, 20_000
PLAIN_RUNS, PLAIN_PAIRS, PLAIN_ANCHORS = 20, 3_000, 50


def rows() -> Iterator[tuple[str, float | None, float, str]]:
    """(what, seconds of the plain way, seconds of ours, note)."""
    rng = np.random.default_rng(0)
    singers = rng.integers(0, SINGERS, FILES)
    voices = rng.standard_normal((SINGERS, DIM))
    x = (0.2 * voices[singers] + rng.standard_normal((FILES, DIM))).astype(np.float32)
    pairs = _pairs(rng, singers)
    labels = singers[pairs[:, 0]] == singers[pairs[:, 1]]

    plain, ours = _seconds(lambda: _plain_scores(x, pairs, labels)), _seconds(
        lambda: equal_error_rate(labels, score_trials(x, pairs)))  # fmt: skip
    yield f"score {TRIALS:,} trials over {FILES:,} files, and their EER", plain, ours, "plain: cosine a trial, ROC"

    positives = pairs[labels]
    plain = _seconds(lambda: _plain_ranks(x, singers, positives[:PLAIN_ANCHORS])) * len(positives) / PLAIN_ANCHORS
    ours = _seconds(lambda: mean_normalized_rank(x, singers, positives))
    yield f"exact MNR of their {len(positives):,} positives", plain, ours, f"plain: a loop, {PLAIN_ANCHORS} scaled up"

    many = rng.integers(0, 2, 4_000_000)
    scores = (rng.standard_normal(len(many)) + many).astype(np.float32)
    ours, peak = _seconds_and_gb(lambda: equal_error_rate(many, scores))
    yield "EER of 4 million scores", _seconds(lambda: _plain_eer(many, scores)), ours, f"the process held {peak:.2f} GB"

    trial_scores, codes = score_trials(x, pairs), singers[pairs]
    times = singer_multiplicities(SINGERS, 1000, 0)
    plain = _seconds(lambda: _plain_bootstrap(labels, trial_scores, codes, times[:PLAIN_RUNS])) * 1000 / PLAIN_RUNS
    ours = _seconds(lambda: bootstrap_verification(labels, trial_scores, codes, times))
    yield (
        f"1,000 bootstrap resamples of {TRIALS:,} trials",
        plain,
        ours,
        f"plain: repeat, sort; {PLAIN_RUNS} scaled up",
    )

    yield _all_pairs(rng)
    yield _linear_probe(rng)
    yield _report(x, singers)


def _all_pairs(rng: np.random.Generator) -> tuple[str, float, float, str]:
    x = rng.standard_normal((20_000, 512)).astype(np.float32)
    who = rng.integers(0, 200, len(x))
    plain = _seconds(lambda: _plain_all_pairs(x[:PLAIN_PAIRS], who)) * (len(x) / PLAIN_PAIRS) ** 2
    ours, peak = _seconds_and_gb(lambda: all_pairs_curve(x, who))
    note = f"the process held {peak:.2f} GB; plain: all scores at once, {PLAIN_PAIRS:,} scaled up"
    return "all pairs of 20,000 embeddings to a curve", plain, ours, note


def _linear_probe(rng: np.random.Generator) -> tuple[str, float, float, str]:
    from sklearn.linear_model import LogisticRegression

    y = rng.integers(0, 50, 10_000)
    x = (0.15 * rng.standard_normal((50, 1000))[y] + rng.standard_normal((10_000, 1000))).astype(np.float32)
    split = np.array(["train"] * 7000 + ["valid"] * 1000 + ["test"] * 2000)
    plain = 6 * _seconds(lambda: LogisticRegression(C=1e-3, max_iter=200).fit(x[:8000], y[:8000]))
    ours = _seconds(lambda: probe(x, y, folds=split))
    return "linear probe, 10,000 x 1,000, 50 classes", plain, ours, "plain: scikit-learn, one of 6 fits, times 6"


def _report(x: np.ndarray, singers: np.ndarray) -> tuple[str, None, float, str]:
    names = [f"singer{s}" for s in singers]
    files = [f"{name}/{i}.wav" for i, name in enumerate(names)]
    recordings = Recordings(Path("made-up"), files, names, files)
    test_set = TestSet("made-up", recordings, all_pairs(recordings, 40_000), FILES * (FILES - 1) // 2)

    def both() -> None:
        noise = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
        results = [evaluate_model(name, x + s * noise, test_set) for name, s in (("a", 0.0), ("b", 0.3))]
        with tempfile.TemporaryDirectory() as folder:
            write_comparison_report(results, Path(folder) / "report", settings={}, progress=False)

    before = time.process_time()
    seconds = _seconds(both)
    note = f"figures, intervals, probes, pictures; {time.process_time() - before:.1f} s of processor time"
    return f"report of two models on {FILES:,} clips", None, seconds, note


def _pairs(rng: np.random.Generator, singers: np.ndarray) -> np.ndarray:
    """Half of the trials of one singer."""
    a = rng.integers(0, FILES, TRIALS)
    b = rng.integers(0, FILES, TRIALS)
    for i in range(0, TRIALS, 2):
        own = np.flatnonzero(singers == singers[a[i]])
        b[i] = own[rng.integers(len(own))] if own[0] != a[i] else own[-1]
    return np.stack([a, b], axis=1)[a != b]


def _plain_scores(x: np.ndarray, pairs: np.ndarray, labels: np.ndarray) -> float:
    records = {i: torch.from_numpy(row) for i, row in enumerate(x)}
    similarity = torch.nn.CosineSimilarity(dim=0)
    return _plain_eer(labels, np.array([float(similarity(records[a], records[b])) for a, b in pairs.tolist()]))


def _plain_eer(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(labels, scores)
    curve = interp1d(fpr, tpr)
    return brentq(lambda rate: 1 - rate - curve(rate), 0, 1)


def _plain_ranks(x: np.ndarray, singers: np.ndarray, pairs: np.ndarray) -> float:
    similarity = torch.nn.CosineSimilarity(dim=1)
    records, ranks = torch.from_numpy(x), []
    for anchor, partner in pairs.tolist():
        candidates = torch.cat([records[partner : partner + 1], records[singers != singers[anchor]]])
        scores = similarity(records[anchor].expand_as(candidates), candidates).numpy()
        ranks.append(np.where(np.argsort(scores)[::-1] == 0)[0][0] / len(scores))
    return float(np.mean(ranks))


def _plain_bootstrap(labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, times: np.ndarray) -> list[float]:
    found = []
    for draw in times.astype(int):
        weight = np.where(labels, draw[codes[:, 0]], draw[codes[:, 0]] * draw[codes[:, 1]])
        found.append(_plain_eer(np.repeat(labels, weight), np.repeat(scores, weight)))
    return found


def _plain_all_pairs(x: np.ndarray, who: np.ndarray) -> float:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    a, b = np.triu_indices(len(x), 1)
    return _plain_eer(who[a] == who[b], (unit @ unit.T)[a, b])


def _seconds(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _seconds_and_gb(function: Callable) -> tuple[float, float]:
    """And the most that the process held meanwhile, what it held before included."""
    Path("/proc/self/clear_refs").write_text("5")  # the mark is set back to what is held now
    taken = _seconds(function)
    return taken, int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20  # type: ignore[index]
