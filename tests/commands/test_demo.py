"""The demo in small: all its commands really run; whether so little training helps is left to `make demo`."""

import os
import subprocess
import sys

import numpy as np

from ssl_audio.cli import main
from ssl_audio.data.synthetic import make_singer, sing


def test_the_demo_runs_its_commands_and_ends_with_a_table_or_a_reason(tmp_path):
    words = ["demo", "--output", str(tmp_path / "demo"), "--singers", "6", "--unseen", "4", "--songs", "2", "--"]
    words += [
        "--trainer.max_steps",
        "22",
        "--data.batch_size",
        "4",
        "--data.multi_epoch",
        "6",
        "--data.num_workers",
        "0",
    ]
    words += ["--data.eval_frac", "0.3", "--data.nr_samples", "8000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ssl_audio.cli", *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert done.returncode == 0 or "did not clearly help" in done.stderr
    for name in ("preprocess", "pairs", "train", "evaluate"):
        assert f"$ ssl-audio {name} " in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("untrained") and "%" in line for line in lines)
    for name in ("loss curve", "scores", "map", "run folder", "report"):
        *_, path = (line[len(name) :].strip() for line in lines if line.startswith(name + " "))
        assert os.path.exists(path), path


def test_too_few_singers_are_refused_before_anything_is_written(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "demo"), "--unseen", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "demo").exists()


def test_synthetic_singers_differ_in_what_they_should_and_repeat_from_the_seed():
    one, again, other = make_singer(4), make_singer(4), make_singer(6)
    assert one == again and one != other
    song = sing(one, 0, seconds=2)
    assert song.shape == (44100,) and song.dtype == np.float32 and 0.1 < np.abs(song).max() <= 1
    assert np.array_equal(song, sing(one, 0, seconds=2)) and not np.allclose(song, sing(one, 1, seconds=2))

    # the long-term spectrum, which formants shape, is closer between two songs of a singer than between two singers
    def spectrum(singer, number):
        power = np.abs(np.fft.rfft(sing(singer, number, seconds=6).reshape(-1, 2205)))[:, :600] ** 2
        return np.log(power.mean(0) + 1e-6)

    singers = [make_singer(number) for number in range(0, 16, 2)]
    a, b = (np.stack([spectrum(singer, song) for singer in singers]) for song in (0, 1))
    distance = np.square(a[:, None] - b[None]).mean(-1)
    same, different = distance.diagonal().mean(), distance[~np.eye(len(singers), dtype=bool)].mean()
    assert same < 0.8 * different
