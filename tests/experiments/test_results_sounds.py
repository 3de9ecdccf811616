"""The results on music and sounds: train, probe beside baselines, go on where it stopped."""

import json

import numpy as np
import pytest

from benchmarks.results_sounds import ESC_PROBES, STUDIES, WAVEBYOL, Study, cell, main
from ssl_audio import audio

RATE = 16000
TINY = """
model: {init_args: {encoder: {init_args: {channels: 48}}, projection: {init_args: {dims: [8]}},
                    predictor: {init_args: {dims: [8]}}}}
data: {init_args: {batch_size: 4, multi_epoch: 2, nr_samples: 8000}}
"""


@pytest.fixture
def sounds(tmp_path):
    """`esc` with an esc10.csv: two classes, hiss and hum, in five folds."""
    rows = ["filename,fold,category,src_file"]
    rng = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    for fold in range(1, 6):
        for take in range(2):
            for name in ("hiss", "hum"):
                hum = np.sin(2 * np.pi * rng.uniform(100, 200) * time)
                sound = rng.standard_normal(RATE) if name == "hiss" else hum
                path = f"audio/{fold}-{take}-{name}.wav"
                audio.write(tmp_path / "esc" / path, (0.1 * sound).astype(np.float32), RATE)
                rows.append(f"{path},{fold},{name},{fold}-{take}")
    (tmp_path / "esc" / "esc10.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def test_a_study_trains_probes_and_goes_on_where_it_stopped(sounds, monkeypatch, capsys):
    monkeypatch.setitem(STUDIES, "hiss", Study("Hiss and hum", WAVEBYOL, ("esc",), ESC_PROBES[:1]))
    output = sounds / "out"
    words = ["results_sounds", "--data", str(sounds), "--output", str(output), "--only", "hiss", "--steps", "2"]
    monkeypatch.setattr("sys.argv", [*words, "--config", str(sounds / "tiny.yaml")])
    assert main() == 0
    text = (output / "tables.md").read_text()
    assert text in capsys.readouterr().out
    assert "| | trained | untrained | mean mel | MFCC statistics |" in text
    accuracy = next(line for line in text.splitlines() if line.startswith("| linear: accuracy"))
    assert accuracy.split(" | ")[3].startswith("100.0 ")  # a spectrum tells hiss from hum
    assert "| 0 | 2 | " in text
    paired = next(line for line in text.splitlines() if line.startswith("| 0 | linear: accuracy | "))
    assert paired.count("[") == 3  # against untrained, mean mel, MFCCs
    reports = sorted(output.glob("*/probes/*/probe.json"))
    assert [path.parent.name for path in reports] == ["0-trained", "0-untrained"]
    assert {json.loads(path.read_text())["split"] for path in reports} == {"5 folds"}
    reports[1].unlink()
    times = {path: path.stat().st_mtime_ns for path in [*output.rglob("done.json"), reports[0]]}
    assert main() == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times and reports[1].exists()
    assert (output / "tables.md").read_text() == text


def test_a_failed_training_says_where_to_look(tmp_path, monkeypatch):
    (tmp_path / "esc").mkdir()
    words = ["results_sounds", "--data", str(tmp_path), "--output", str(tmp_path / "out"), "--only", "wavebyol-esc"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(Exception, match=r"ssl-audio train ended with status 2: .*esc.*; see .*log.txt"):
        main()


def test_cells_are_intervals_of_one_seed_and_deviations_of_several():
    one = {"accuracy": 0.5, "intervals": {"accuracy": [0.4, 0.625]}}
    assert cell([one], "accuracy") == "50.0 [40.0, 62.5]"
    assert cell([one, {"accuracy": 0.75, "intervals": {}}], "accuracy") == "62.5 ± 17.7"
