"""The scripts in examples/cluster: shells that parse, and torchrun training for real, on two processes here."""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY

from ssl_audio.cli import COMMANDS

FOLDER = REPOSITORY / "examples" / "cluster"
SCRIPTS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_calls_what_is_there(script):
    subprocess.run(["bash", "-n", str(script)], check=True, capture_output=True)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n") and "set -euo pipefail" in text
    for command in re.findall(r"^(?:srun (?:-\S+ )+)?ssl-audio (\w+)", text, re.MULTILINE):
        assert command in COMMANDS
    for config in re.findall(r"hardware/[\w-]+", text):
        assert (FOLDER.parents[1] / "train_configs" / f"{config}.yaml").is_file()
    assert script.name in (FOLDER / "README.md").read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_slurm_tasks_equal_devices():
    """Lightning refuses to start otherwise."""
    for name in ("train.sbatch", "embed.sbatch"):
        text = (FOLDER / name).read_text()
        options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", text, re.MULTILINE))
        assert options["ntasks-per-node"] == options["gpus-per-node"]
        assert '\nsrun --cpus-per-task="$SLURM_CPUS_PER_TASK" ' in text  # else a task has one core, since SLURM 22.05


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_torchrun_trains_two_processes_for_two_steps(singers, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    settings = {"data.dataset_dirs": f"[{singers}]", "data.sample_rate": 16000, "data.nr_samples": 6000}
    settings |= {"data.batch_size": 2, "data.num_workers": 0, "data.augmentation": "null", "data.eval_frac": 0.4}
    settings |= {"model.encoder": "ssl_audio.encoders.CompactCNN", "model.encoder.channels": "[4, 8]"}
    settings |= {"trainer.logger.save_dir": tmp_path / "runs", "trainer.max_steps": 2, "trainer.log_every_n_steps": 1}
    settings |= {"trainer.strategy": "ddp", "trainer.enable_progress_bar": "false"}
    options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    python = Path(sys.executable).parent
    variables = os.environ | {"PROCESSES": "2", "HARDWARE": "hardware/cpu", "PORT": str(port), "OMP_NUM_THREADS": "1"}
    variables["PATH"] = f"{python}{os.pathsep}{variables['PATH']}"
    command = ["bash", str(FOLDER / "torchrun.sh"), "--config", "common", "--config", "contrastive", *options]
    subprocess.run(command, env=variables, cwd=tmp_path, check=True, capture_output=True, timeout=600)
    (folder,) = (tmp_path / "runs" / "contrastive").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["ranks"] == 2 and record["steps"] == 2
    with open(folder / "metrics.csv", newline="") as file:
        assert sum(bool(row["loss/train_step"]) for row in csv.DictReader(file)) == 2
