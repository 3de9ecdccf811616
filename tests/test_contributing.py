"""What CONTRIBUTING.md tells a contributor to write, written into a copy of the package, works."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import REPOSITORY

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL))

# The lines that the lists ask for in files that exist: (file, before what, what).
LINES = [
    ("ssl_audio/losses/__init__.py", "__all__ = [", "from ssl_audio.losses.cosine import cosine_loss\n"),
    ("ssl_audio/methods/__init__.py", "__all__ = [", "from ssl_audio.methods.cosine import Cosine\n"),
    ("ssl_audio/encoders/__init__.py", "__all__ = [", "from ssl_audio.encoders.mean_bands import MeanBands\n"),
    ("ssl_audio/augmentations/batch/__init__.py", "__all__ = [",
     "from ssl_audio.augmentations.batch.invert import Invert\n"),
    ("ssl_audio/data/corpora/__init__.py", '    "fma":', '    "my_sounds": ("my_sounds", {}),\n'),
    ("ssl_audio/hub/readers.py", "READERS:", "from ssl_audio.hub import mean_matrix\n"),
    ("ssl_audio/hub/readers.py", "saved, torchscript", "mean_matrix, "),
    ("ssl_audio/cli.py", '    "train":', '    "duration": "how long the recordings of a folder are",\n'),
]  # fmt: skip

USE = """
import sys
import numpy as np
import torch
import ssl_audio
from ssl_audio.augmentations.batch import Invert
from ssl_audio.cli import main
from ssl_audio.config import build, describe
from ssl_audio.data.corpora import load
from ssl_audio.encoders import MeanBands
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import Projection
from ssl_audio.losses import cosine_loss
from ssl_audio.methods import Cosine

recordings, run, folder = sys.argv[1:]
z = torch.randn(4, 8)
assert cosine_loss(z, z) < 1e-6 and abs(cosine_loss(z, -z) - 2) < 1e-6

clips = torch.randn(2, 4000)
flipped = Invert(p=1.0)(clips, 16000, torch.Generator().manual_seed(0)) / -clips
assert flipped.std(1).max() < 1e-5 and 0.5 <= flipped.min() and flipped.max() <= 1

corpus = load("my_sounds", recordings)
assert corpus.label_names == ("high", "low") and len(corpus.split("test")) == 1

matrix = np.random.default_rng(0).standard_normal((5, 20)).astype(np.float32)
np.savez(folder + "/numpy.npz", matrix=matrix)
model = ssl_audio.load_model(folder)
expected = LogMelSpectrogram(n_mels=20)(clips).mean(2) @ torch.from_numpy(matrix).T
torch.testing.assert_close(model(clips), expected)
assert type(build(describe(model)).encoder) is MeanBands

assert main(["duration", recordings]) == 0
words = ["common", "cosine", "encoder/compact_cnn"]
words = [word for name in words for word in ("--config", name)]
words += ["--data.dataset_dirs", "[" + recordings + "]", "--data.nr_samples", "8000", "--data.sample_rate", "16000"]
words += ["--data.batch_size", "2", "--data.num_workers", "0", "--data.eval_frac", "0", "--trainer.max_steps", "1"]
words += ["--data.augmentation", "null", "--trainer.logger.save_dir", run, "--trainer.accelerator", "cpu"]
assert main(["train", *words]) == 0
assert ssl_audio.load_model(run + "/cosine/0").sample_rate == 16000
"""


@pytest.mark.slow
def test_its_examples_work_where_it_says_that_they_go(singers, tmp_path):
    assert len(EXAMPLES) == 8
    copy = tmp_path / "copy"
    for name in ("ssl_audio", "train_configs"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in EXAMPLES.items():
        (copy / path).write_text(code, encoding="utf-8")
    for path, before, line in LINES:
        text = (copy / path).read_text(encoding="utf-8")
        assert before in text, (path, before)
        (copy / path).write_text(text.replace(before, line + before, 1), encoding="utf-8")
    rows = ["id,path,split,label,speaker", "1,singer 0/song0.wav,train,low,a", "2,singer 4/song0.wav,test,high,b"]
    (singers / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "foreign").mkdir()
    command = [sys.executable, "-c", USE, str(singers), str(tmp_path / "runs"), str(tmp_path / "foreign")]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "0.01 hours" in done.stdout  # 20 recordings of a second


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"])
def test_the_readme_leads_there(name):
    assert f"]({name})" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_every_file_and_target_that_it_names_exists():
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for path in set(re.findall(r"`([\w/.-]+/[\w-]+\.\w+)`", prose)) - set(EXAMPLES):
        assert any((REPOSITORY / folder / path).exists() for folder in ("", "ssl_audio")), path
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (REPOSITORY / target).exists(), target
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([\w/.-]+)", TEXT):
        assert re.search(rf"^{re.escape(target)}[ :]", makefile, re.MULTILINE), target
