"""The README's blocks run as they stand, and its commands and links exist."""

import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
import soundfile
import yaml
from helpers import REPOSITORY, tone
from loopback_hub import Repository, loopback_hub

from ssl_audio.cli import COMMANDS, run_command
from ssl_audio.commands import eval as eval_command
from ssl_audio.encoders import EfficientNet
from ssl_audio.evaluation.trials import check_files, read_trials
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.singer_identity import save_published
from ssl_audio.model import EmbeddingModel

ROOT = REPOSITORY
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name: str) -> tuple[str, str]:
    """Language and text of the block after `<!-- test: name -->`."""
    found = re.search(rf"<!-- test: {name} -->\n```(\w+)\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no block marked {name}"
    return found[1], found[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the README's reader has: a song, a folder of recordings, a run; and a hub with `byol`."""
    place = tmp_path_factory.mktemp("reader")
    (place / "recordings" / "alice").mkdir(parents=True)
    for name in ("song.wav", "recordings/alice/one.wav", "recordings/alice/two.wav"):
        soundfile.write(place / name, tone(seconds=0.5, sample_rate=44100), 44100)
    model = EmbeddingModel(LogMelSpectrogram(), EfficientNet(), level="peak", level_in_forward=False).eval()
    save_published(model, place / "published")
    with loopback_hub() as hub:
        files = {f"byol/{path.name}": path.read_bytes() for path in (place / "published").iterdir()}
        hub.repositories["BernardoTorres/singer-identity"] = Repository(files)
        yield place, hub


def run(place, code: str, hub, **environment) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(place / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **environment,
    }
    done = subprocess.run(code, shell=True, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_loading(place):
    folder, hub = place
    language, code = block("load")
    assert language == "python"
    (folder / "load.py").write_text(code + "\nassert embedding.shape == (model.dim,) == (1000,)\n")
    run(folder, f"{sys.executable} load.py", hub)


def test_embedding_a_folder(place):
    import pyarrow.parquet as pq

    folder, hub = place
    run(folder, block("embed")[1], hub)
    table = pq.read_table(folder / "embeddings.parquet").to_pydict()
    assert table["path"] == ["alice/one.wav", "alice/two.wav"] and len(table["embedding"][0]) == 1000


def test_exporting(place):
    folder, hub = place
    run(folder, block("export")[1], hub)
    assert (folder / "byol.onnx").stat().st_size > 1e6


def test_sharing(place):
    folder, hub = place
    _, code = block("share")
    (folder / "runs" / "byol").mkdir(parents=True)
    # the reader's own run: here the published model in our layout
    setup = "from ssl_audio import load_model, save_model; save_model(load_model('byol'), 'runs/byol/0')"
    run(folder, f'{sys.executable} -c "{setup}"', hub)
    (folder / "share.py").write_text(code)
    run(folder, f"{sys.executable} share.py", hub, HF_TOKEN="hf_writer")
    pushed = hub.repositories["me/my-singers"]
    assert {"config.yaml", "model.safetensors", "README.md"} <= set(pushed.files) and pushed.private
    assert yaml.safe_load(pushed.files["config.yaml"])


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"ssl-audio (\w[\w-]*)", README))
    assert named <= set(COMMANDS), named - set(COMMANDS)
    for script in re.findall(r"python (\w+\.py)", README):
        assert (ROOT / script).exists(), script


def test_every_link_and_config_of_the_readme_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for config in re.findall(r"--config (train_configs/[\w/.-]+yaml)", README):
        assert (ROOT / config).exists(), config


def test_the_prepared_trials_lie_where_the_evaluation_looks(tmp_path, monkeypatch):
    """Step 3 as it stands, then the arguments of step 4: a list, and every file that it names."""
    monkeypatch.chdir(tmp_path)
    for singer in ("ann", "bob"):
        (tmp_path / "testset" / singer).mkdir(parents=True)
        for song in range(2):
            soundfile.write(tmp_path / "testset" / singer / f"{song}.wav", tone(seconds=4.5, sample_rate=8000), 8000)
    for script, command in (("preprocess_dataset", "preprocess"), ("create_speaker_pairs", "pairs")):
        words = re.search(rf"python {script}\.py (.*)", README)[1].split()
        assert run_command(command, words) == 0
    parser = ArgumentParser()
    eval_command.add_arguments(parser)
    args = parser.parse_args(re.search(r"python eval\.py (.*)", README)[1].split())
    trials = read_trials(args.metadata_dir / args.data[0] / eval_command.TRIALS_NAME)
    check_files(trials, args.root / args.data[0], progress=False)
    assert len(trials.files) == 4
