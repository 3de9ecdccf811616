"""What people who know LightningCLI type, on the stacked files of this package."""

import csv
import re
import shlex
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY

from ssl_audio.cli import run_command
from ssl_audio.errors import InputError
from ssl_audio.training.arguments import from_environment, read_arguments
from ssl_audio.training.config import load_config, stack

STACK = ["common", "contrastive"]


def typed(line: str):
    """The config of a command line."""
    found = read_arguments(line.split())
    return load_config([*STACK, *found.files], found.overrides)


@pytest.mark.parametrize("word", ["fit", "validate", "test"])
def test_a_word_may_stand_anywhere_and_none_means_fit(word):
    assert read_arguments([]).word == "fit"
    for line in (f"{word} --config common", f"--config common {word} --data.batch_size 4"):
        found = read_arguments(line.split())
        assert (found.word, found.files) == (word, ["common"])


def test_a_config_is_given_again_or_as_a_list():
    assert read_arguments(["--config", "[common, byol]", "-c", "hardware/cpu"]).files == [
        "common",
        "byol",
        "hardware/cpu",
    ]


@pytest.mark.parametrize(
    "line, path, expected",
    [
        ("--model VICReg", "model", "ssl_audio.methods.VICReg"),
        ("--model CPC", "model", "ssl_audio.methods.CPC"),
        ("--model.encoder CPC", "model.encoder", "ssl_audio.encoders.CPC"),
        ("--model.encoder.class_path SampleCNN", "model.encoder", "ssl_audio.encoders.SampleCNN"),
        ("--model.frontend MelSpectrogram", "model.frontend", "ssl_audio.frontends.MelSpectrogram"),
        ("--model.augmentation Gain", "model.augmentation", "ssl_audio.augmentations.batch.Gain"),
        ("--data.augmentation Gain", "data.augmentation", "ssl_audio.augmentations.clip.Gain"),
        ("--data WindowDataModule --data.dataset_dirs [a]", "data", "ssl_audio.data.WindowDataModule"),
        (
            "--trainer.logger CSVLogger --trainer.logger.save_dir x",
            "trainer.logger",
            "pytorch_lightning.loggers.CSVLogger",
        ),
        ("--trainer.strategy DDPStrategy", "trainer.strategy", "pytorch_lightning.strategies.DDPStrategy"),
        ("--optimizer SGD --optimizer.lr 0.1", "model.optimizer", "torch.optim.SGD"),
        ("--lr_scheduler StepLR --lr_scheduler.step_size 1", "model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"),
        ("--model.lr_scheduler WarmupCosine", "model.lr_scheduler", "ssl_audio.schedules.WarmupCosine"),
        (
            "--callbacks.es EarlyStopping --callbacks.es.monitor a",
            "callbacks.es",
            "pytorch_lightning.callbacks.EarlyStopping",
        ),
        ("--callbacks.w Whiten", "callbacks.w", "ssl_audio.callbacks.Whiten"),
    ],
)
def test_a_class_is_known_by_its_own_name_where_it_stands(line, path, expected):
    config = typed(line)
    for key in path.split("."):
        config = config.get(key, config.get("init_args", {}).get(key))
    assert config["class_path"] == expected


def test_text_is_not_taken_for_a_class():
    config = typed("--trainer.logger.name BYOL --data.dataset_dirs [Gain] --trainer.strategy ddp")
    assert config["trainer"]["logger"]["init_args"]["name"] == "BYOL"
    assert config["data"]["init_args"]["dataset_dirs"] == ["Gain"]
    assert config["trainer"]["strategy"] == "ddp"
    layer = typed("--model.frontend NnAudio --model.frontend.layer MelSpectrogram")["model"]["init_args"]["frontend"]
    assert layer["init_args"]["layer"] == "MelSpectrogram"


def test_callbacks_are_added_as_lightning_adds_them():
    words = "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor loss/val --trainer.callbacks.patience 7"
    more = "--trainer.callbacks+=LearningRateMonitor --trainer.callbacks=EarlyStopping --trainer.callbacks.monitor x"
    callbacks = typed(f"{words} {more}")["callbacks"]
    assert callbacks["early_stopping"]["init_args"] == {"monitor": "loss/val", "patience": 7}
    assert callbacks["early_stopping_2"]["init_args"] == {"monitor": "x"}
    assert "learning_rate_monitor" in callbacks and "best" in callbacks


def test_a_config_of_lightningcli_is_stacked(tmp_path):
    theirs = {
        "seed_everything": True,
        "trainer": {"callbacks": [{"class_path": "LearningRateMonitor"}], "logger": [{"class_path": "CSVLogger"}]},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.5}},
    }
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(theirs))
    config = load_config([*STACK, str(tmp_path / "theirs.yaml")])
    assert config["seed_everything"] == 0
    assert config["model"]["init_args"]["optimizer"] == {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.5}}
    assert config["callbacks"]["learning_rate_monitor"]["class_path"].startswith("pytorch_lightning.")
    assert config["trainer"]["logger"] == [{"class_path": "pytorch_lightning.loggers.CSVLogger"}]
    assert typed("--seed_everything false")["seed_everything"] is None


def test_a_plus_appends_to_a_list():
    dirs = typed("--data.dataset_dirs [a] --data.dataset_dirs+ b --data.dataset_dirs+=[c,d]")["data"]["init_args"]
    assert dirs["dataset_dirs"] == ["a", "b", "c", "d"]


def test_a_reference_gets_the_value_of_another_key(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "data: {init_args: {nr_samples: 8000}}\n"
        "callbacks: {best: {init_args: {filename: 'best-${data.nr_samples}'}}}\n"
        "trainer: {log_every_n_steps: '${data.init_args.batch_size}', max_steps: '${trainer.log_every_n_steps}'}\n"
    )
    config = load_config([*STACK, str(tmp_path / "own.yaml")])
    assert config["trainer"]["log_every_n_steps"] == config["trainer"]["max_steps"] == 140
    assert config["callbacks"]["best"]["init_args"]["filename"] == "best-8000"


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "--trainer.max_steps ${trainer.min_steps}",
            "no stacked file sets trainer.min_steps; set it, or write the value",
        ),
        ("--trainer.max_steps ${oc.env:HOME}", 'give the key on the command line: --KEY "$NAME"'),
        ("--trainer.max_steps ${trainer.max_steps}", "leads back to itself"),
        ("fit test", "fit and test are two commands; give one"),
        ("predict", "embed recordings with: ssl-audio embed"),
        ("--print_config=skip_nul", "--print_config=skip_nul is not a form of it"),
        ("--trainer.callbacks.patience 3", "give --callbacks.NAME.patience"),
        ("--trainer.callbacks+=EarlyStoping", "did you mean 'EarlyStopping'?"),
        ("--model.encoder.help Compact", "model.encoder is 'Compact': no class of this name"),
    ],
)
def test_what_is_not_understood_is_one_line_that_says_what_to_write(line, message, capsys):
    assert run_command("train", ["--config", "[common, contrastive]", *line.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_environment_is_stacked_between_files_and_words(monkeypatch, capsys):
    variables = {
        "PL_FIT__TRAINER__MAX_EPOCHS": "3",
        "PL_FIT__DATA__BATCH_SIZE": "5",
        "PL_FIT__CONFIG": "[common, byol]",
    }
    assert from_environment({**variables, "PL_GLOBAL_SEED": "1", "PL_TEST__X": "2"}, "fit") == (
        ["common", "byol"],
        [("data.batch_size", "5"), ("trainer.max_epochs", "3")],
    )
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_command("train", ["--print_config", "--data.batch_size", "6"]) == 0
    output = capsys.readouterr()
    config = yaml.safe_load(output.out)
    assert (config["trainer"]["max_epochs"], config["data"]["init_args"]["batch_size"]) == (3, 6)
    assert output.err.startswith("from the environment: config common, config byol") and output.err.count("\n") == 1


def printed(capsys, *words: str) -> tuple[str, dict]:
    assert run_command("train", [*words]) == 0
    text = capsys.readouterr().out
    return text, yaml.safe_load(text)


def test_print_config_has_every_default_and_is_a_config_itself(capsys, tmp_path):
    text, whole = printed(capsys, "--print_config", "--config", "[common, contrastive]", "--data.batch_size", "7")
    model, data = whole["model"]["init_args"], whole["data"]["init_args"]
    assert model["num_negatives"] == 250 and model["encoder"]["init_args"]["embedding_dim"] == 1000
    assert (data["batch_size"], data["dataset_dirs"]) == (7, None), "what is required and not given is null"
    best = whole["callbacks"]["best"]
    assert "callbacks" not in whole["trainer"] and best["class_path"] == "ssl_audio.callbacks.BestCheckpoint"
    assert best["init_args"]["monitor"] is None
    (tmp_path / "whole.yaml").write_text(text)
    again, _ = printed(capsys, "--config", str(tmp_path / "whole.yaml"), "--print_config")
    assert again == text
    short, less = printed(capsys, "--config", str(tmp_path / "whole.yaml"), "--print_config=skip_default")
    assert len(short) < len(text) / 2 and "accelerator" not in less["trainer"]
    assert less["data"]["init_args"]["batch_size"] == 7


def test_print_config_works_without_a_model_and_with_comments(capsys):
    pytest.importorskip("ruamel.yaml")
    text, config = printed(capsys, "--print_config=comments")
    assert config["trainer"]["max_epochs"] is None and "model" not in config
    assert "# Stop training once this number of epochs is reached." in text


def test_help_lists_the_keys_in_use_with_their_docstrings(capsys):
    def help_of(*words: str) -> str:
        assert run_command("train", [*words]) == 0
        return capsys.readouterr().out

    whole = help_of("--config", "[common, byol]", "--data.batch_size", "7", "--help")
    assert "--model.tau TAU" in whole and "decay of the moving average" in whole
    assert "--data.batch_size BATCH_SIZE" in whole and "default: 7" in whole
    assert "--trainer.max_epochs MAX_EPOCHS" in whole and "known subclasses" not in whole
    assert "--model.variance_weight" in help_of("--model.help", "VICReg")
    assert "  BYOL  " in help_of("--model.help") and "  WindowDataModule  " in help_of("--data.help")
    assert "--data.dataset_dirs" in help_of("--data.help=WindowDataModule")
    assert "--trainer.precision" in help_of("--trainer.help")
    in_use = help_of("--callbacks.help", "--config", "[common, byol]")
    assert "collapse" in in_use and "EarlyStopping" in in_use
    assert "--callbacks.NAME.patience" in help_of("--callbacks.help", "EarlyStopping")
    assert "--model.optimizer.weight_decay" in help_of("--optimizer.help", "AdamW")
    assert "--model.encoder.backbone" in help_of("--config", "[common, byol]", "--model.encoder.help")


def test_what_the_page_says_can_be_typed():
    rows = re.findall(r"^\| (.*?) \| ", (REPOSITORY / "docs" / "lightningcli.md").read_text(), re.MULTILINE)
    typed = [code for row in rows for code in re.findall(r"`(--[^`]*)`", row)]
    assert len(typed) > 15
    for code in typed:
        words = shlex.split(code)
        read_arguments([*words, "x"] if code == "--ckpt_path" else words)


TINY = {
    "model": {
        "class_path": "Contrastive",
        "init_args": {
            "frontend": {
                "class_path": "LogMelSpectrogram",
                "init_args": {"n_fft": 512, "hop_length": 128, "n_mels": 32},
            },
            "encoder": {"class_path": "CompactCNN", "init_args": {"channels": [4, 8], "embedding_dim": 16}},
            "projection": {"class_path": "Projection", "init_args": {"dim": 8}},
        },
    },
    "data": {
        "init_args": {"sample_rate": 16000, "nr_samples": 6000, "batch_size": 4, "num_workers": 0, "augmentation": None}
    },
    "trainer": {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu", "log_every_n_steps": 1},
}


@pytest.fixture
def train(singers, tmp_path, monkeypatch):
    """`train(*words)` trains for an epoch in an empty folder; returns the files in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    (folder / "data_report.csv").write_text("mine\n")

    def run(*words: str) -> set[str]:
        stacked = ["--config", "common", "--config", "config.yaml", f"--data.dataset_dirs=[{singers}]"]
        assert run_command("train", [*words[:1], *stacked, *words[1:]]) == 0
        assert yaml.safe_load((folder / "config.yaml").read_text()) == TINY
        assert (folder / "data_report.csv").read_text() == "mine\n"
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    return run


def test_no_logger_leaves_the_working_folder_alone_and_the_run_has_its_own(train):
    first = train("fit", "--trainer.logger", "false") - {"config.yaml", "data_report.csv"}
    assert {f"runs/run/0/{name}" for name in ("config.yaml", "run.json", "checkpoints/last.ckpt")} <= first
    assert all(name.startswith("runs/run/0/") for name in first)


def test_a_fast_dev_run_and_measuring_write_nothing(train, capsys):
    assert train("fit", "--trainer.fast_dev_run", "true") == {"config.yaml", "data_report.csv"}
    capsys.readouterr()
    assert train("validate") == {"config.yaml", "data_report.csv"}
    assert "loss/val" in capsys.readouterr().out


def test_a_logger_without_a_folder_of_the_run_gets_the_one_of_a_run(train, monkeypatch, tmp_path):
    (tmp_path / "theirs.py").write_text(
        "from pytorch_lightning.loggers.logger import DummyLogger\n"
        "class Remote(DummyLogger):\n"
        "    def __init__(self, save_dir='.'):\n"
        "        super().__init__()\n"
        "        self.directory = save_dir\n"
        "    @property\n"
        "    def save_dir(self):\n"
        "        return self.directory\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    files = train("fit", "--trainer.logger", '{"class_path": "theirs.Remote"}')
    assert {"runs/run/0/config.yaml", "runs/run/0/metrics.csv", "runs/run/0/checkpoints/last.ckpt"} <= files
    rows = list(csv.DictReader(Path("runs/run/0/metrics.csv").read_text().splitlines()))
    assert any(row.get("loss/val") for row in rows)


def test_a_test_set_that_the_data_has_not_is_said_in_one_line(singers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TINY))
    words = ["test", "--config", "[common, config.yaml]", f"--data.dataset_dirs=[{singers}]"]
    assert run_command("train", words) == 2
    assert "test: Contrastive has no test_step" in capsys.readouterr().err
    with pytest.raises(InputError):
        stack(["nowhere"])
