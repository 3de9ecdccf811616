"""The results of CPC on music: what is trained on, what is read from a training, and the tables."""

import math

import numpy as np
import pytest
import torch

from benchmarks.results_cpc import MOMENTS, accuracies, link, save_untrained, tables, train
from ssl_audio import audio
from ssl_audio.errors import InputError
from ssl_audio.hub import load_model
from ssl_audio.transcription.model import mel_frames

FILES = (
    *(f"music/note_mixes/train_data/mix_train_0{i}.flac" for i in range(4)),
    "music/note_mixes/test_data/mix_test_00.flac",
    "music/notes/flute/flute_A4.flac",
    "music/librosa_examples/waltz_0.flac",
    "music/librosa_examples/waltz_1.flac",
    "music/vocal_mixtures/song_a/song_a_0.flac",
    "singing_dev/gtsinger/one/a.wav",
    "singing_dev/gtsinger/one/take/b.wav",
)


@pytest.fixture
def data(tmp_path):
    for i, name in enumerate(FILES):
        noise = np.random.default_rng(i).standard_normal(24000).astype(np.float32)
        audio.write(tmp_path / "data" / name, 0.1 * noise, 16000)
    return tmp_path / "data"


def test_what_is_tested_is_not_trained_on_and_what_belongs_together_stays_so(data, tmp_path):
    for _ in range(2):  # again changes nothing
        link(data, tmp_path / "links")
    groups = {path.name: sorted(file.name for file in path.iterdir()) for path in (tmp_path / "links").iterdir()}
    assert len(groups) == 4 + 1 + 1 + 1
    assert groups["music_librosa_examples_waltz"] == ["waltz_0.flac", "waltz_1.flac"]
    assert groups["singing_dev_gtsinger_one"] == ["a.wav", "b.wav"]
    everything = [name for names in groups.values() for name in names]
    assert not [name for name in everything if "test" in name or "flute" in name] and len(everything) == len(FILES) - 2
    with pytest.raises(InputError, match="music/note_mixes/train_data"):
        link(tmp_path / "links", tmp_path / "other")


def test_a_training_is_run_once_and_its_accuracies_are_read(data, tmp_path):
    link(data, tmp_path / "links")
    small = ["--model.encoder.init_args.channels=8", "--model.encoder.init_args.heads=2", "--model.num_negatives=3"]
    small += ["--data.batch_size=1", "--model.lr_scheduler=null"]
    run = train(tmp_path / "training", tmp_path / "links", 0, 6, ["hardware/cpu"], small)
    written = (run / "config.yaml").stat().st_mtime_ns
    assert train(tmp_path / "training", tmp_path / "links", 0, 6, ["never read"], []) == run
    assert (run / "config.yaml").stat().st_mtime_ns == written
    last = accuracies(run, 6)[-1]
    assert last[0] == 6 and min(last[1:4]) >= 0 and max(last[1:4]) <= 1
    random = load_model(str(save_untrained(run, tmp_path / "untrained", 1, tmp_path / "links")))
    assert random.encoder.norm == "batch" and random.encoder.normalize and random.encoder.channels == 8
    clip = torch.randn(1, 20480)
    trained = load_model(str(run))
    assert random.frames(clip).shape == trained.frames(clip).shape == (1, 128, 8)
    assert not torch.allclose(random.frames(clip), trained.frames(clip))
    noise = audio.read(tmp_path / "links" / "singing_dev_gtsinger_one" / "a.wav", 16000)
    normed = random.encoder.convolutions[:2](torch.from_numpy(noise / noise.std())[None, None])
    torch.testing.assert_close(normed.var(2), torch.ones(1, 8), rtol=0.2, atol=0)  # the statistics are those heard
    other = load_model(str(save_untrained(run, tmp_path / "channels", 1, tmp_path / "links", "channel")))
    assert other.encoder.norm == "channel"


def test_accuracies_are_means_before_each_moment_and_the_last_validation(tmp_path):
    (tmp_path / "run" / "0").mkdir(parents=True)
    lines = ["step," + ",".join(f"accuracy_{k}/train_step,accuracy_{k}/val" for k in (1, 4, 12))]
    lines += [f"{step}," + ",".join([f"{step / 1000},"] * 3) for step in range(9, 1000, 10)]
    lines += [f"499,{','.join([',0.25'] * 3)}"]
    (tmp_path / "run" / "metrics.csv").write_text("\n".join(lines))
    found = accuracies(tmp_path / "run" / "0", 1000)
    assert [line[0] for line in found] == [1000 * moment for moment in MOMENTS]
    assert found[-1][1:4] == pytest.approx([0.954] * 3)  # of the steps 909 to 999
    assert found[-1][4:] == [0.25] * 3 and all(math.isnan(value) for value in found[0][4:])


def test_tables_show_mean_and_deviation_beside_chance():
    figures = {"frame_average_precision": 0.5, "frame_f1": 0.4, "note_f1": 0.3, "frame_chance": 0.01}
    other = {**figures, "frame_average_precision": 0.7}
    nan = float("nan")
    learned = [[[100, 0.1, 0.2, 0.3, nan, nan, nan]], [[100, 0.3, 0.2, 0.3, nan, nan, nan]]]
    text = tables(learned, {"trained, linear": [figures, other]}, {"trained": {"linear": [0.5, 0.7]}})
    assert "| 100 | 0.200 ± 0.141 | 0.200 ± 0.000 | 0.300 ± 0.000 |  |  |  |" in text
    assert "| trained, linear | 0.600 ± 0.141 | 0.400 ± 0.000 | 0.300 ± 0.000 |" in text
    assert "| chance | 0.010 |" in text and "| trained | 0.600 ± 0.141 |" in text


def test_mel_frames_are_every_ten_milliseconds_and_show_the_pitch():
    model = mel_frames()
    time = torch.arange(16000) / 16000
    low, high = (model.frames(torch.sin(2 * math.pi * hertz * time)[None])[0] for hertz in (440.0, 880.0))
    assert low.shape == (101, 229)
    assert (low.mean(0).argmax() < high.mean(0).argmax()) and model.encoder.frame_dim == 229
