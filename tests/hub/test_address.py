"""Addresses: how they are read, how a kind is added, and what commands make of them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import REPOSITORY, tone

from ssl_audio import load_model, save_model
from ssl_audio.audio import resample
from ssl_audio.cli import run_command
from ssl_audio.commands.eval import model_name
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub import foreign
from ssl_audio.hub.address import lasting, load_address, parse_address, schemes
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint

PAGE = (REPOSITORY / "docs" / "foreign-models.md").read_text(encoding="utf-8")
KINDS = ["call", "hear", "hf", "onnx", "package", "table", "torchhub", "torchscript", "xares"]


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    torch.manual_seed(0)
    return EmbeddingModel(LogMelSpectrogram(16000, 512, 160, 32), CompactCNN([8, 8], 12), 16000).eval()


def test_the_kinds_of_address_are_the_files_and_each_says_what_it_takes():
    assert schemes() == KINDS
    from importlib import import_module

    for name in KINDS:
        module = import_module(f"ssl_audio.hub.foreign.{name}")
        assert module.__doc__ and f"`{name}:" in module.__doc__
        for option, kind in module.OPTIONS.items():
            assert kind.meaning and f"`{option}" in PAGE, f"{name}: {option} is not in docs/foreign-models.md"


def test_the_example_of_the_page_runs(tmp_path, monkeypatch, write_tone, capsys):
    write_tone(tmp_path / "voice.wav")
    monkeypatch.chdir(tmp_path)
    code = re.search(r"<!-- test: foreign -->\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    exec(code, {})
    assert capsys.readouterr().out == "apache-2.0\n"


@pytest.mark.parametrize(
    "text, scheme, rest, options",
    [
        ("hf:owner/name", "hf", "owner/name", {}),
        ("hf:owner/name?layer=6&pool=mean", "hf", "owner/name", {"layer": "6", "pool": "mean"}),
        ("hf:owner/name?pool=mean+std", "hf", "owner/name", {"pool": "mean+std"}),
        ("hf:owner/name?pool=mean%2Bstd", "hf", "owner/name", {"pool": "mean+std"}),
        ("onnx:/a b/c.onnx?rate=16000", "onnx", "/a b/c.onnx", {"rate": "16000"}),
        ("call:package.module:name?rate=16000", "call", "package.module:name", {"rate": "16000"}),
        ("table:what?.csv?rate=8000", "table", "what?.csv", {"rate": "8000"}),
    ],
)
def test_an_address_has_a_scheme_a_rest_and_options(text, scheme, rest, options):
    found = parse_address(text, token="t")
    assert (found.scheme, found.rest, dict(found.options), found.hub) == (scheme, rest, options, {"token": "t"})


def test_a_question_mark_in_the_name_of_a_file_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "what?.csv").touch()
    assert parse_address("table:what?.csv").rest == "what?.csv"


@pytest.mark.parametrize("name", ["byol", "owner/name", "runs/mine", "C:\\models\\mine", "/data/a:b/model", "a/b:c"])
def test_other_names_are_no_addresses(name):
    assert parse_address(name) is None


def test_a_path_with_a_colon_that_exists_is_a_path(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("hf:mine", "take:2"):
        save_model(model, tmp_path / name)
        assert np.array_equal(load_model(name).embed(tone()), model.embed(tone()))
        assert np.array_equal(load_model(Path(name)).embed(tone()), model.embed(tone()))
        assert lasting(name) == str(tmp_path / name)
    save_model(model, tmp_path / "models" / "hf:inside")
    assert load_model("hf:inside", source=tmp_path / "models").dim == 12


@pytest.mark.parametrize(
    "address, message",
    [
        ("onx:net.onnx", "no such file, and no kind of address 'onx'; did you mean 'onnx'?"),
        ("https://huggingface.co/owner/name", "no kind of address 'https'"),
        ("onnx:", "nothing follows onnx:"),
        ("hf:?layer=1", "nothing follows hf:"),
        ("package:aisfx?short", "'short' is not an option; write name=value"),
        ("package:aisfx?short=", "'short=' is not an option"),
        ("package:aisfx?short=pad&short=pad", "the option short is given twice"),
        ("package:aisfx?shrt=pad", "package: has no option 'shrt'; did you mean 'short'?"),
        ("package:aisfx?short=cut", "short=cut is wrong; it must be what to do with clips that are too short"),
        ("package:aisfx?trim=none", "aisfx has no option 'trim'; choose from short"),
        ("package:aisfx?weights=MSD", "aisfx has no option 'weights'"),
        ("package:aisfxx", "the package 'aisfxx' is not supported; did you mean 'aisfx'?"),
        ("onnx:net.onnx?rate=0", "rate=0 is wrong; it must be the sample rate in Hz"),
    ],
)
def test_wrong_addresses_are_one_line(address, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_model(address, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_an_address_has_neither_a_projection_nor_a_script():
    for wrong in ({"projection": True}, {"torchscript": True}):
        with pytest.raises(InputError, match=r"neither a projection head nor a model\.ts"):
            load_model("package:aisfx", **wrong)


def test_the_rate_of_the_audio_can_be_another():
    wide_clip = resample(clip := tone(3.0), 16000, 48000)
    narrow, wide = load_model("package:resemblyzer", input_sr=48000), load_model("package:resemblyzer")
    assert narrow.sample_rate == 48000 and narrow.licence == wide.licence == "apache-2.0"
    one, other = narrow.embed(wide_clip), wide.embed(clip)
    assert one @ other > 0.999 * np.linalg.norm(one) * np.linalg.norm(other)


def test_a_package_that_is_absent_or_of_another_version_says_how_to_install_it(monkeypatch, tmp_path):
    import importlib.metadata

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("ssl_audio.hub.foreign.package.distribution", absent)
    with pytest.raises(InputError, match=r"install it with: pip install --no-deps musicnn==0\.1\.0"):
        load_model("package:musicnn")


def test_a_further_kind_of_address_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text('''
"""`toy:<bands>`: an untrained network."""
from ssl_audio.encoders import CompactCNN
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.address import Option
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint

OPTIONS = {"size": Option(int, "of the vector")}


def load(address, options, trusted):
    frontend = LogMelSpectrogram(16000, 512, 160, int(address.rest))
    return EmbeddingModel(frontend, CompactCNN([8], options.get("size", 4)), 16000)
''')
    monkeypatch.setattr(foreign, "__path__", [*foreign.__path__, str(tmp_path)])
    assert "toy" in schemes()
    assert load_model("toy:32?size=6").dim == 6
    with pytest.raises(InputError, match="toy: has no option 'sizes'; did you mean 'size'"):
        load_model("toy:32?sizes=6")
    assert not load_address(parse_address("toy:32"), trusted=False).training


def test_an_address_keeps_its_meaning_in_another_folder(tmp_path, monkeypatch):
    (tmp_path / "net.onnx").touch()
    (tmp_path / "code.py").touch()
    monkeypatch.chdir(tmp_path)
    assert lasting("onnx:net.onnx?rate=16000") == f"onnx:{tmp_path}/net.onnx?rate=16000"
    assert lasting("call:code.py:Model?rate=16000") == f"call:{tmp_path}/code.py:Model?rate=16000"
    for name in ("hf:owner/name?layer=1", "package:aisfx", "byol", "call:package.module:f"):
        assert lasting(name) == name


def test_rows_are_named_after_what_the_address_names():
    assert model_name("hf:microsoft/wavlm-base-plus-sv") == "wavlm-base-plus-sv"
    assert model_name("hf:microsoft/wavlm-base-plus?layer=6&pool=mean") == "wavlm-base-plus-layer=6-pool=mean"
    assert model_name("package:resemblyzer") == "resemblyzer"
    assert model_name("call:a/b.py:Model") == "b.py-Model"


def test_a_test_on_a_trial_list_takes_an_address_and_records_its_licence(singers, tmp_path, capsys):
    meta = tmp_path / "meta"
    (meta / "singers").mkdir(parents=True)
    lines = [f"{int(a == b)},singer {a}/song{i}.wav,singer {b}/song{j}.wav"
             for a in range(5) for b in range(5) for i in range(2) for j in range(2, 4)]  # fmt: skip
    (meta / "singers" / "speaker_pairs.txt").write_text("\n".join(lines) + "\n")
    arguments = ["-r", str(singers.parent), "-d", "singers", "-meta", str(meta), "-m", "package:resemblyzer"]
    assert run_command("eval", [*arguments, "--draws", "0"]) == 0
    assert "resemblyzer" in capsys.readouterr().out
    record = json.loads((meta / "resemblyzer_123.json").read_text())
    assert record["models"]["features"]["licence"] == "apache-2.0"
    assert record["models"]["features"]["config"]["init_args"]["encoder"]["init_args"]["level"] is None
    assert run_command("eval", [*arguments, "-p", "True"]) == 2
    assert "neither a projection head" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_compares_models_by_address(model, singers, tmp_path, capsys):
    save_model(model, tmp_path / "ours")
    embed = ["--model", "package:aisfx?short=repeat", "--output", str(tmp_path / "others.parquet")]
    assert run_command("embed", [str(singers), *embed]) == 0
    models = [str(tmp_path / "ours"), "package:resemblyzer", "package:musicnn", f"table:{tmp_path / 'others.parquet'}"]
    report = tmp_path / "report"
    arguments = ["--data", str(singers), "--output", str(report), "--draws", "100", "--no_baselines"]
    assert run_command("evaluate", [word for one in models for word in ("--model", one)] + arguments) == 0
    metrics = json.loads((report / "metrics.json").read_text())
    text = json.dumps(metrics)
    assert all(name in text for name in ("ours", "resemblyzer", "musicnn", "others.parquet"))
    assert metrics["settings"]["licences"] == {
        **{"ours": "unknown", "resemblyzer": "apache-2.0"},
        **{"musicnn": "isc", "others.parquet": "unknown"},
    }


def test_a_packaged_model_is_pushed_with_its_licence_and_loads_from_the_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert run_command("push", ["package:resemblyzer", "someone/voices"]) == 0
    assert b"license: apache-2.0" in hub.repositories["someone/voices"].files["README.md"]
    pushed, original = load_model("someone/voices"), load_model("package:resemblyzer")
    assert pushed.licence == "apache-2.0"
    assert np.array_equal(pushed.embed(tone()), original.embed(tone()))
    assert fingerprint(pushed) == fingerprint(original)


def test_what_stays_outside_is_not_pushed(hub, model, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("path,x\na.wav,1\n")
    assert run_command("push", [f"table:{tmp_path / 't.csv'}", "someone/table"]) == 2
    assert "cannot be saved" in capsys.readouterr().err and hub.repositories == {}
