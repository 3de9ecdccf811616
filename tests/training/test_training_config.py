"""Stacked files, merged keys, and the one line that each mistake gets."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY

from ssl_audio.cli import run_command
from ssl_audio.errors import InputError
from ssl_audio.training.cli import explain
from ssl_audio.training.config import load_config, read_yaml
from ssl_audio.training.config_files import find_config, packaged_configs
from ssl_audio.training.merging import merge


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_later_file_changes_one_key_and_keeps_the_rest():
    base = {"data": {"class_path": "a.B", "init_args": {"x": 1, "y": [1, 2]}}, "trainer": {"devices": 1}}
    merged = merge(base, {"data": {"init_args": {"y": [3]}}})
    assert merged == {"data": {"class_path": "a.B", "init_args": {"x": 1, "y": [3]}}, "trainer": {"devices": 1}}
    assert base["data"]["init_args"]["y"] == [1, 2]


def test_another_class_drops_the_arguments_of_the_one_before():
    base = {"class_path": "a.B", "init_args": {"x": 1}}
    assert merge(base, {"class_path": "a.C", "init_args": {"z": 2}}) == {"class_path": "a.C", "init_args": {"z": 2}}
    assert merge(base, {"class_path": "a.B", "init_args": {"z": 2}})["init_args"] == {"x": 1, "z": 2}
    assert merge({"init_args": {"x": 1}}, {"class_path": "a.C"}) == {"class_path": "a.C", "init_args": {"x": 1}}
    assert merge(base, "a.C") == {"class_path": "a.C"}


def test_arguments_may_stand_directly_under_a_class_that_is_named():
    assert merge({"class_path": "a.B", "init_args": {"x": 1}}, {"x": 2, "y": 3})["init_args"] == {"x": 2, "y": 3}


def test_the_command_line_is_stacked_last_and_reaches_into_nested_classes():
    config = load_config(
        ["common", "byol"],
        [("model.tau", "5e-1"), ("model.encoder.embedding_dim", "64"), ("callbacks.collapse.every_n_steps", "5")],
    )
    model = config["model"]["init_args"]
    assert model["tau"] == 0.5 and model["encoder"]["init_args"]["embedding_dim"] == 64
    assert model["encoder"]["init_args"]["backbone"] == "efficientnet_b0"
    assert config["callbacks"]["collapse"]["init_args"] == {"every_n_steps": 5}
    assert "best" in config["callbacks"]


def test_null_takes_a_callback_away():
    assert "periodic" not in load_config(["common", "byol"], [("callbacks.periodic", "null")])["callbacks"]


def test_one_rate_and_one_seed_reach_model_and_data():
    config = load_config(["common", "vicreg"], [("data.sample_rate", "16000"), ("seed_everything", "7")])
    assert config["model"]["init_args"]["sample_rate"] == 16000
    assert config["data"]["init_args"]["seed"] == 7
    with pytest.raises(InputError, match=r"model\.sample_rate is 8000 and data\.sample_rate is 44100"):
        load_config(["common", "vicreg"], [("model.sample_rate", "8000")])


@pytest.mark.parametrize("name", packaged_configs())
def test_every_packaged_config_names_keys_and_classes_that_exist(name):
    method = name.removeprefix("recipes/").removesuffix("-small")  # a recipe that bears a method's name is for it
    first = method if name.startswith("recipes/") and method in packaged_configs() else "contrastive"
    stack = ["common", first, name] if name not in ("common", "contrastive") else ["common", "contrastive"]
    assert load_config(stack)["trainer"]["logger"]["class_path"]


def test_methods_have_the_published_weights():
    def model(name):
        return load_config(["common", name])["model"]["init_args"]

    assert model("contrastive")["optimizer"]["init_args"] == {"lr": 1e-4, "weight_decay": 1e-5}
    assert model("byol")["optimizer"]["init_args"] == {"lr": 3e-5, "weight_decay": 1.5e-6}
    assert model("byol")["lr_scheduler"]["init_args"] == {"warmup": 10, "total": 1000, "unit": "epochs"}
    vc = model("contrastive-vc")
    assert [vc[key] for key in ("temperature", "num_negatives", "decoupled")] == [0.2, 250, True]
    assert [vc[key] for key in ("variance_weight", "covariance_weight")] == [25, 100]


def test_names_and_paths_find_the_same_file():
    assert find_config("hardware/cpu").samefile(REPOSITORY / "train_configs" / "hardware" / "cpu.yaml")
    assert find_config(str(REPOSITORY / "train_configs" / "byol.yaml")).samefile(find_config("byol"))


def test_yaml_numbers_repeated_keys_and_broken_files(tmp_path):
    assert read_yaml(Path(write(tmp_path / "a.yaml", "lr: 1e-4\nn: 12\nname: 1e-4x"))) == {
        "lr": 1e-4,
        "n": 12,
        "name": "1e-4x",
    }
    for text, reason in [("a: 1\na: 2", "given twice"), ("a: [1", "not valid YAML"), ("- 1", "not keys with values")]:
        with pytest.raises(InputError, match=reason):
            read_yaml(Path(write(tmp_path / "b.yaml", text)))
    write(tmp_path / "c.yaml", f"include: ['{tmp_path}/c.yaml']")
    with pytest.raises(InputError, match="includes itself"):
        load_config([str(tmp_path / "c.yaml")])


MISTAKES = {
    "--model.temprature .1": "model.init_args.temprature is not a key (value 0.1); did you mean 'temperature'?",
    "--model.temperature abc": "model.init_args.temperature is 'abc'; expected float",
    "--trainer.max_epoch 3": "trainer.max_epoch is not a key (value 3); did you mean 'max_epochs'?",
    "--trainer.max_epochs x": "trainer.max_epochs is 'x'; expected int",
    "--modle.x 1": "modle is not a key (value {'x': 1}); did you mean 'model'?",
    "--config contrastve": "--config contrastve: no such file, and no packaged config; did you mean 'contrastive'?",
    "--callbacks.colapse.every_n_steps 3": "callbacks.colapse has no class_path",
    "--callbacks.collapse.every_n_steps x": "callbacks.collapse.init_args.every_n_steps is 'x'; expected int",
    "--model.encoder.class_path ssl_audio.encoders.EficientNet": "did you mean 'EfficientNet'?",
    "--model.encoder.class_path ssl_audio.encodrs.EfficientNet": "there is no module 'ssl_audio.encodrs'",
    "--model.encoder.class_path EficientNet": "no class of this name is known here; did you mean 'EfficientNet'?",
    "--model Contrastve": "model is 'Contrastve': no class of this name is known here; did you mean 'Contrastive'?",
    "--model.encoder.class_path ssl_audio.heads.MLP": "encoder is ssl_audio.heads.MLP; expected a subclass of Encoder",
    "--model.optimizer.lr fast": "model.init_args.optimizer.init_args.lr is 'fast'; expected float\n",
    "--model.optimizer.lr -1": "model.optimizer: Invalid learning rate: -1.0",
    "--model.temperature null": "model.init_args.temperature is null; expected float, such as 0.2",
    "--model.projection.dim 0": "model.projection gives 0 dimensions",
    "--data.batch_size null": "data.init_args.batch_size is null; expected int, such as 140",
    "--data.eval_frac 1.5": "data.eval_frac is 1.5; it must be at least 0 and below 1",
    "--data.num_workers -1": "data.num_workers is -1; it must be 0 or more, or auto",
    "--data.max_failures -1": "data.max_failures is -1.0; it must be from 0 to 1",
    "--seed_everything -1": "seed_everything is -1; expected a whole number from 0 to 4294967295",
    "--trainer.accumulate_grad_batches 0": "trainer.accumulate_grad_batches is 0; expected at least 1",
    "--callbacks.collapse.every_n_steps 0": "every_n_steps is 0; it must be at least 1",
    "--callbacks.periodic.every_n_epochs -3": "error: Invalid value for every_n_epochs=-3. Must be >= 0\n",
    "--model.encoder.embedding_dim 1.5": "model.init_args.encoder.init_args.embedding_dim is 1.5; expected int",
    "--model.projection null": "model needs projection",
    "--model.frontend.n_fft 7": "n_fft is 7; it must be an even number of samples",
    "--model.temperature -1": "temperature must be above 0, got -1.0",
    "--data.batch_size 1": "raise data.batch_size",
    "--data.nr_samples 100": "a clip of 100 samples is too short",
    "--ckpt_path nowhere.ckpt": "nowhere.ckpt: no such file",
    "--trainer.callbacks []": "trainer.callbacks is empty; remove a callback with --callbacks.NAME null",
    "--model.temperature": "--model.temperature has no value",
    "stray": "stray is not an option",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_any_data_is_read(mistake, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = "--model.encoder.class_path ssl_audio.encoders.CompactCNN --data.dataset_dirs [/no/such/folder]"
    if "encoder" in mistake:
        small = "--data.dataset_dirs [/no/such/folder]"
    arguments = f"--config common --config contrastive {small} {mistake}".split()
    assert run_command("train", arguments) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ") and output.count("\n") == 1
    assert MISTAKES[mistake] in output
    assert not [*tmp_path.glob("runs/*/*")], "a run that never began leaves no folder behind"


def test_the_real_command_exits_with_2_and_one_line():
    command = [sys.executable, "train.py", "--config", "common", "--config", "byol", "--model.tua", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: model.init_args.tua is not a key (value 1); did you mean 'tau'?\n"


def test_help_shows_examples_and_configs_and_print_config_prints_yaml(capsys):
    assert run_command("train", ["--help"]) == 0
    text = capsys.readouterr().out
    assert "ssl-audio train --config common" in text and "hardware/gpu" in text
    assert run_command("train", ["--config", "common", "--config", "byol", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"] == "ssl_audio.methods.BYOL"


@pytest.mark.parametrize("encoder", ["encoder/cpc", "encoder/sinc_net"])
def test_filters_in_hertz_are_laid_out_for_the_rate_of_the_data(encoder):
    def rate(*overrides):
        config = load_config(["common", "clmr", encoder], overrides)
        return config["model"]["init_args"]["encoder"]["init_args"]["sample_rate"]

    assert rate() == 22050
    assert rate(("data.sample_rate", "8000")) == 8000
    with pytest.raises(InputError, match=r"model\.encoder\.sample_rate is 16000 and data\.sample_rate is 22050"):
        rate(("model.encoder.sample_rate", "16000"))


def test_a_machine_without_a_gpu_is_said_with_the_way_out():
    config = {"trainer": {"accelerator": "gpu"}}
    assert explain("No supported gpu backend found!", config).endswith("finds none here; stack hardware/cpu")


def resolved(*names, **overrides):
    return load_config(names, [(key.replace("__", "."), value) for key, value in overrides.items()])


def test_one_item_of_a_chain_is_changed_by_its_name():
    plain = resolved("common", "contrastive")["data"]["init_args"]["augmentation"]["init_args"]["transforms"]
    changes = [
        ("data.augmentation.transforms.GaussianNoise.p", "0.3"),
        ("data.augmentation.transforms.Gain", "null"),
        ("data.augmentation.transforms.Again.class_path", "ssl_audio.augmentations.clip.Gain"),
    ]
    found = load_config(["common", "contrastive"], changes)["data"]["init_args"]["augmentation"]["init_args"][
        "transforms"
    ]
    expected = [item for item in plain if not item["class_path"].endswith(".Gain")]
    expected[0] = {**expected[0], "init_args": {**expected[0]["init_args"], "p": 0.3}}
    assert found == [*expected, {"class_path": "ssl_audio.augmentations.clip.Gain"}]
    inside = resolved("common", "clmr", model__augmentation__transforms__OneOf__transforms__HighPass__p="0.5")
    one_of = inside["model"]["init_args"]["augmentation"]["init_args"]["transforms"][3]["init_args"]
    assert one_of["p"] == 0.8 and [item["init_args"]["p"] for item in one_of["transforms"]] == [0.5, 1.0]
    with pytest.raises(InputError, match=r"GausianNoise is not in the list; did you mean 'GaussianNoise'\?"):
        load_config(["common", "contrastive"], [("data.augmentation.transforms.GausianNoise.p", "0.3")])


def test_the_second_item_of_a_class_has_a_number():
    twice = [{"class_path": "a.Gain"}, {"class_path": "a.Noise"}, {"class_path": "a.Gain"}]
    assert merge(twice, {"Gain_2": {"p": 1}})[2] == {"class_path": "a.Gain", "init_args": {"p": 1}}


@pytest.mark.parametrize("data", ["data/shards", "data/windows", "data/folder", "data/esc50"])
@pytest.mark.parametrize("method", ["byol", "cpc", "clmr", "supervised", "wav2rec"])
def test_data_and_method_are_stacked_in_either_order(method, data):
    assert resolved("common", method, data) == resolved("common", data, method)


@pytest.mark.parametrize("second", ["byol", "vicreg", "simsiam"])
@pytest.mark.parametrize("first", ["contrastive", "cpc", "supervised", "wav2rec"])
def test_a_second_method_takes_the_network_of_the_first(first, second):
    network = resolved("common", first)["model"]["init_args"]
    model = resolved("common", first, second)["model"]
    assert model["class_path"] == resolved("common", second)["model"]["class_path"]
    assert model["init_args"]["encoder"] == network["encoder"] and model["init_args"]["frontend"] == network["frontend"]
    assert model["init_args"]["projection"] is not None
    assert not {"temperature", "steps", "num_negatives"} & model["init_args"].keys()


def test_the_frontend_has_the_rate_of_the_data_unless_a_config_sets_it(tmp_path):
    def rate(*names, **overrides):
        return resolved("common", *names, **overrides)["model"]["init_args"]["frontend"]["init_args"]["sample_rate"]

    assert rate("contrastive") == 22050  # the published bank, for audio at 44,100 Hz
    assert rate("contrastive", data__sample_rate="16000") == rate("encoder/vit", "supervised") == 16000
    assert rate("contrastive", "encoder/resnet34") == 44100
    mine = write(tmp_path / "mine.yaml", "model: {init_args: {frontend: {init_args: {sample_rate: 8000}}}}")
    slow = write(tmp_path / "slow.yaml", "data: {init_args: {sample_rate: 16000}}")
    assert rate("contrastive", mine, slow) == rate("contrastive", slow, mine) == 8000
    assert rate("contrastive", mine, slow, model__frontend__sample_rate="null") == 16000
