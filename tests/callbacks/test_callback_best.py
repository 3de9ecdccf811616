"""The checkpoint that is verified best: by held-out groups, chosen by the rule, on every kind of data, and told."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import Trainer

from ssl_audio import load_model
from ssl_audio.callbacks import BestCheckpoint, Verification
from ssl_audio.callbacks.held_out import HeldOut
from ssl_audio.cli import run_command
from ssl_audio.data import AudioDataModule
from ssl_audio.errors import InputError
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.hub.place import find_checkpoint
from ssl_audio.utils.checkpoints import origin_text

COMPACT = {"class_path": "ssl_audio.encoders.CompactCNN", "init_args": {"channels": [4, 8], "embedding_dim": 16}}


@pytest.fixture
def voices(tmp_path, write_tone):
    """8 singers of 3 recordings of .5 to .7 s."""
    for singer in range(8):
        for take in range(3):
            write_tone(
                tmp_path / "voices" / f"singer {singer}" / f"{take}.wav", seconds=0.5 + 0.1 * take,
                frequency=200 + 40 * singer + 3 * take,
            )  # fmt: skip
    return tmp_path / "voices"


@pytest.fixture
def train(voices, tmp_path):
    """`train(*configs, arguments=(), **sections)` trains on tiny clips with the packaged callbacks; the run folder."""
    runs = tmp_path / "runs"

    def run(*configs: str, arguments: tuple[str, ...] = (), model: dict | None = None, **sections) -> Path:
        frontend = {"init_args": {"sample_rate": 16000, "n_fft": 512, "hop_length": 128, "n_mels": 32}}
        network = {"frontend": frontend, "encoder": COMPACT, "projection": {"init_args": {"dim": 16}}}
        tiny = {
            "model": {"init_args": network if model is None else model},
            "data": {"init_args": {
                "dataset_dirs": [str(voices)], "sample_rate": 16000, "nr_samples": 6000, "batch_size": 4,
                "num_workers": 0, "eval_frac": 0.5,
            }},
            "trainer": {
                "max_epochs": 3, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu",
                "logger": {"init_args": {"save_dir": str(runs)}},
            },
        }  # fmt: skip
        if "data/windows" not in configs:
            tiny["data"]["init_args"]["augmentation"] = None
        files = []
        for name, content in (("tiny", tiny), ("sections", sections)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
            files.append(str(tmp_path / f"{name}.yaml"))
        before = set(runs.glob("*/*"))
        stack = [word for name in (configs or ("common", "contrastive")) for word in ("--config", name)]
        stack += [word for name in files for word in ("--config", name)]
        assert run_command("train", [*stack, *arguments]) == 0
        (folder,) = set(runs.glob("*/*")) - before
        return folder

    return run


def data_of(voices: Path, **options) -> AudioDataModule:
    data = AudioDataModule(
        [str(voices)], **{"sample_rate": 16000, "nr_samples": 4000, "batch_size": 2, "num_workers": 0, **options}
    )
    data.setup()
    return data


class Constant(torch.nn.Module):
    """A model of the mean and the deviation of a clip's first and second half, in place of a method."""

    device = torch.device("cpu")
    dim = 4

    def embedding_model(self):
        return self

    def forward(self, clips):
        halves = clips.chunk(2, dim=1)
        return torch.stack([f(half) for half in halves for f in (lambda x: x.mean(1), lambda x: x.diff().std(1))], 1)


def test_the_metric_is_the_eer_of_all_pairs_of_held_out_recordings(voices):
    data = data_of(voices, eval_frac=0.5)
    held_out = HeldOut(data)
    embeddings, read = held_out._embed(Constant(), 4)
    assert read.all()
    names = [(Path(path).parent.name, Path(path).name) for path in held_out.recordings.files]
    assert set(names) == {(Path(e.path).parent.name, Path(e.path).name) for g in data.val_groups for e in g.entries}
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = [(a, b) for a in range(len(names)) for b in range(a)]
    same = np.array([names[a][0] == names[b][0] for a, b in pairs])
    expected = equal_error_rate(same, np.array([unit[a] @ unit[b] for a, b in pairs]))[0]
    found = held_out.metrics(Constant(), 4, resamples=50)
    assert found["eer"] == pytest.approx(expected, abs=1e-6) and 0 < found["eer_se"] < 0.5
    assert found == held_out.metrics(Constant(), 3, resamples=50)  # whatever the batch


def test_whole_recordings_are_embedded_in_pieces_of_clip_lengths(voices):
    held_out = HeldOut(data_of(voices, eval_frac=0.5, nr_samples=5000))
    lengths = {clips.shape[1] for _, clips in held_out._batches(8)}
    assert lengths == {5000, 10000}  # .5 s hold one clip length, .7 s two


def test_two_segments_of_one_recording_are_no_pair(voices):
    for folder in voices.iterdir():
        for i, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / (f"song_{i}_{i + 1}_1s.wav" if i < 2 else "other.wav"))
    trials = HeldOut(data_of(voices, eval_frac=0.5)).trials
    assert trials.labels.sum() == 4 * 2  # of three files two are of one song


def test_groups_without_a_second_recording_are_too_few(voices):
    with pytest.raises(InputError, match=r"^2 of 2 held-out groups have two recordings, too few"):
        HeldOut(data_of(voices, eval_frac=0.2))
    with pytest.raises(InputError, match=r"^0 of 12 held-out groups"):
        HeldOut(data_of(voices, eval_frac=0.5, group_by_artist=False))


class Decisions(BestCheckpoint):
    """Which of a sequence of values are kept."""

    def kept(self, values, errors):
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        self.monitor, found = "verification/eer", []
        for i, (value, error) in enumerate(zip(values, errors, strict=True)):
            trainer._logger_connector._callback_metrics = {"verification/eer_se": torch.tensor(error)}
            found += [i] * self.check_monitor_top_k(trainer, torch.tensor(value))
        return found


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, [0, 1, 2, 4]), ({"standard_errors": 0}, [0, 1]), ({"standard_errors": 3}, [0, 1, 2, 3, 4])],
)
def test_the_newest_within_a_standard_error_of_the_best_is_kept(options, kept):
    values = [0.30, 0.20, 0.24, 0.26, 0.245]
    assert Decisions(**options).kept(values, [0.05] * 5) == kept


def test_of_equal_values_the_newest_is_kept_and_a_maximum_is_the_other_way_round():
    assert Decisions().kept([0.5, 0.5, 0.6], [0.0] * 3) == [0, 1]
    assert Decisions(mode="max").kept([0.5, 0.4, 0.6], [0.0] * 3) == [0, 2]
    with pytest.raises(InputError, match="standard_errors"):
        BestCheckpoint(standard_errors=-1)


def told(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())["checkpoint"]


def steps(folder: Path) -> int:
    return json.loads((folder / "run.json").read_text())["steps"]


def test_everything_says_which_checkpoint_was_taken_by_what_and_of_which_step(train, voices, tmp_path, capsys):
    folder = train()
    said = capsys.readouterr().out
    found = told(folder)
    content = torch.load(folder / found["file"], weights_only=True)
    assert found["file"] == "checkpoints/best.ckpt" and found["metric"] == "verification/eer" and found["chosen"]
    assert found["step"] == content["global_step"] == content["metric"]["step"]
    assert found["value"] == pytest.approx(content["metric"]["value"], abs=1e-6)
    model = load_model(folder)
    assert model.checkpoint == found and origin_text(found) in said
    assert run_command("convert", ["--checkpoint", str(folder), "--output", str(tmp_path / "saved")]) == 0
    assert f"- Checkpoint: {origin_text(found)}.\n" in (tmp_path / "saved" / "README.md").read_text()
    assert load_model(tmp_path / "saved").checkpoint == found
    capsys.readouterr()
    words = ["--model", str(folder), "--data", str(voices), "--no_baselines", "--output", str(tmp_path / "report")]
    assert run_command("evaluate", [*words, "--resamples", "100", "--probe", "none"]) == 0
    assert f"contrastive-0: {origin_text(found)}" in capsys.readouterr().out
    settings = json.loads((tmp_path / "report" / "metrics.json").read_text())["settings"]
    assert settings["checkpoints"] == {"contrastive-0": origin_text(found)}


def test_too_few_held_out_groups_choose_by_the_views_of_clips(train):
    found = told(train(data={"init_args": {"eval_frac": 0.25}}))
    assert found["metric"] == "eer_embeddings/val" and found["chosen"] and math.isfinite(found["value"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--data.eval_frac", "0", "--trainer.max_epochs", "1"),
        ("--trainer.limit_val_batches", "0", "--callbacks.verification", "null", "--trainer.max_epochs", "1"),
    ],
)
def test_without_a_metric_the_last_checkpoint_is_taken(train, arguments):
    folder = train(arguments=arguments)
    assert find_checkpoint(folder).name == "last.ckpt"
    assert told(folder)["file"] == "checkpoints/last.ckpt" and not told(folder)["chosen"]
    assert told(folder)["step"] == load_model(folder).checkpoint["step"] == steps(folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trainer.max_steps", "2", "--callbacks.verification", "null"),
        ("--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "5"),
        ("--trainer.max_steps", "4", "--trainer.val_check_interval", "0.4"),
        ("--trainer.max_time", "00:00:00:01", "--callbacks.verification", "null"),
    ],
)
def test_a_short_run_leaves_the_weights_of_its_last_step(train, arguments):
    folder = train(arguments=arguments)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == steps(folder) > 0
    assert load_model(folder).checkpoint == told(folder)


def test_a_resumed_run_takes_over_the_best_checkpoint_of_the_one_before(train, tmp_path):
    whole = train(arguments=("--callbacks.periodic.every_n_epochs", "1", "--callbacks.best.standard_errors", "0"))
    keep = ("--callbacks.best.standard_errors", "0")
    first = train(arguments=("--trainer.max_epochs", "2", *keep))
    last = str(first / "checkpoints" / "last.ckpt")
    resumed = train(arguments=("--ckpt_path", last, *keep))
    assert told(resumed) == told(whole)
    expected, actual = (torch.load(find_checkpoint(run), weights_only=True)["state_dict"] for run in (whole, resumed))
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    (first / "checkpoints" / "best.ckpt").unlink()  # another machine has only last.ckpt
    with pytest.warns(UserWarning, match=r"best.ckpt is not there; the best checkpoint is chosen among those from"):
        alone = train(arguments=("--ckpt_path", last, *keep))
    assert told(alone)["step"] == steps(alone) and (alone / told(alone)["file"]).is_file()


def test_windows_and_cpc_are_verified_too(train):
    model = {
        "frontend": {"class_path": "ssl_audio.frontends.Waveform"},
        "encoder": {"class_path": "ssl_audio.encoders.CPC",
                    "init_args": {"channels": 8, "heads": 2, "feedforward": 8, "dropout": 0.0}},
        "steps": 2, "num_negatives": 4,
    }  # fmt: skip
    found = told(train("common", "cpc", "data/windows", model=model))
    assert found["metric"] == "verification/eer" and found["chosen"]


def test_shards_are_verified_as_the_folders_that_they_were_made_of(train, voices, tmp_path):
    shards = tmp_path / "shards"
    assert run_command("shard", [str(voices), "--output", str(shards), "--sample_rate", "16000"]) == 0
    source = {"class_path": "ssl_audio.data.sources.Shards", "init_args": {"shards": str(shards)}}
    of_shards = told(train(data={"init_args": {"dataset_dirs": None, "source": source}}))
    of_folders = told(train())
    assert of_shards["metric"] == of_folders["metric"] == "verification/eer"
    assert of_shards["step"] == of_folders["step"]


def test_supervised_training_is_chosen_by_its_accuracy_and_a_short_one_is_saved(train):
    model = {"encoder": COMPACT, "frontend": {"init_args": {"sample_rate": 16000, "n_mels": 32}}}
    assert told(train("common", "supervised", model=model))["metric"] == "accuracy/val"
    short = train("common", "supervised", model=model, arguments=("--trainer.max_steps", "1"))
    assert told(short)["file"] == "checkpoints/last.ckpt" and load_model(short)


@pytest.mark.parametrize("wrong", [{"trials": "list.txt"}, {"metadata": "table.csv"}, {"max_recordings": 0}])
def test_options_of_a_folder_need_one(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Verification(**wrong)
