"""Loading from and pushing to a hub on the loopback address, through the real `huggingface_hub` client."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from helpers import tiny_model
from loopback_hub import Repository, loopback_hub

from ssl_audio import load_model, push_to_hub, save_model
from ssl_audio.cli import main
from ssl_audio.errors import InputError

AUDIO = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mine"
    save_model(model, folder)
    return folder


def stored(folder, prefix=""):
    return {prefix + path.name: path.read_bytes() for path in folder.iterdir()}


def same(loaded, model):
    with torch.inference_mode():
        return torch.equal(loaded(AUDIO), model(AUDIO))


def downloads(hub):
    return [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]


def test_the_first_call_downloads_the_second_uses_the_cache_and_works_offline(hub, model, folder):
    hub.repositories["someone/mine"] = Repository(stored(folder))
    assert same(load_model("someone/mine"), model)
    fetched = downloads(hub)
    assert sorted(path.rpartition("/")[2] for path in fetched) == ["README.md", "config.yaml", "model.safetensors"]
    assert same(load_model("someone/mine"), model)
    assert downloads(hub) == fetched
    hub.requests.clear()
    assert same(load_model("someone/mine", local_files_only=True), model)
    assert hub.requests == []


def test_names_inside_a_repository_and_the_error_for_a_wrong_one(hub, model, folder):
    hub.repositories["lab/models"] = Repository(stored(folder, "small/") | stored(folder, "large/"))
    assert same(load_model("small", source="lab/models"), model)
    with pytest.raises(InputError, match=r"'smal'.*large, small"):
        load_model("smal", source="lab/models")


def test_a_repository_without_its_weights(hub, folder):
    files = stored(folder)
    del files["model.safetensors"]
    hub.repositories["someone/half"] = Repository(files)
    with pytest.raises(InputError, match="someone/half"):
        load_model("someone/half")


def test_a_new_revision_is_fetched_and_an_unknown_one_named(hub, model, folder):
    hub.repositories["someone/mine"] = Repository(stored(folder))
    first = hub.repositories["someone/mine"].sha
    assert same(load_model("someone/mine", revision=first), model)
    with pytest.raises(InputError, match="v9"):
        load_model("someone/mine", revision="v9")


def test_a_private_repository_needs_a_token(hub, model, folder):
    hub.repositories["someone/secret"] = Repository(stored(folder), private=True)
    for token in (None, "hf_wrong"):
        with pytest.raises(InputError, match="token"):
            load_model("someone/secret", token=token)
    assert same(load_model("someone/secret", token="hf_reader"), model)


def test_nothing_there_and_no_connection(hub, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(InputError, match="someone/nothing"):
        load_model("someone/nothing")
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/resolve/{revision}/{filename}")
    with pytest.raises(InputError, match=r"cannot be reached|failed") as error:
        load_model("someone/mine")
    assert "\n" not in str(error.value)


def whole_files(cache):
    return {path.name for path in cache.rglob("*") if path.is_symlink() or path.suffix in (".safetensors", ".yaml")}


def test_a_download_cut_in_the_middle_goes_on_where_it_stopped(hub, model, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)  # of 10 MB, the client keeps whole ones
    hub.repositories["someone/mine"] = Repository(stored(folder))
    hub.cut, hub.cuts_left = {"model.safetensors": 1000}, 1
    assert same(load_model("someone/mine"), model)
    assert hub.cuts_left == 0 and hub.ranges == ["bytes=1000-"]


def test_a_download_that_keeps_breaking_leaves_no_half_file(hub, model, folder, tmp_path):
    hub.repositories["someone/mine"] = Repository(stored(folder))
    hub.cut, hub.cuts_left = {"model.safetensors": 100}, 1000
    with pytest.raises(InputError, match=r"download|reached"):
        load_model("someone/mine")
    assert "model.safetensors" not in whole_files(tmp_path / "cache")
    hub.cuts_left = 0
    assert same(load_model("someone/mine"), model)


def test_push_then_load_gives_the_same_model(hub, model, folder):
    url = push_to_hub(folder, "someone/new", token="hf_writer", licence="mit", data="Tones.")
    repository = hub.repositories["someone/new"]
    assert url.startswith(hub.endpoint) and "someone/new" in url
    assert set(repository.files) == {"config.yaml", "model.safetensors", "README.md"}
    assert repository.commits == 1 and not repository.private
    assert same(load_model("someone/new"), model)
    push_to_hub(folder, "someone/new", token="hf_writer", licence="cc-by-4.0")  # again: only the card has changed
    assert repository.commits == 2 and b"license: cc-by-4.0" in repository.files["README.md"]


def test_the_push_command(hub, model, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert main(["push", str(folder), "me/by-command", "--private", "--licence", "mit", "--data", "two choirs"]) == 0
    assert "me/by-command" in capsys.readouterr().out and hub.repositories["me/by-command"].private
    card = hub.repositories["me/by-command"].files["README.md"].decode()
    assert "license: mit" in card and "two choirs" in card
    assert torch.equal(load_model("me/by-command")(AUDIO), model(AUDIO))
    for arguments, words in (
        ([str(tmp_path / "gone"), "me/x"], "no such folder"),
        ([str(tmp_path), "me/x"], "holds no model"),
        ([str(folder), "no owner!"], "is not a name on the Hub"),
        ([str(folder), "me/x", "--training", str(tmp_path / "gone.yaml")], "no such file"),
    ):
        assert main(["push", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1
    assert set(hub.repositories) == {"me/by-command"}


def test_push_private(hub, folder):
    push_to_hub(folder, "someone/closed", token="hf_writer", private=True)
    assert hub.repositories["someone/closed"].private


def test_the_card_tells_where_the_model_comes_from(hub, folder, tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 3\nmodel: {class_path: ssl_audio.methods.VICReg}\n")
    result = {"model": "mine", "dataset": "voices", "eer": 0.1234, "eer_interval": [0.101, 0.149], "n_trials": 500}
    record = {"results": [{**result, "mnr": None, "mnr_interval": None}]}
    (tmp_path / "record.json").write_text(json.dumps(record))
    push_to_hub(
        folder,
        "someone/told",
        token="hf_writer",
        licence="cc-by-nc-4.0",
        data="Two hours of tones: sines with noise.",
        training=tmp_path / "run.yaml",
        metrics=tmp_path / "record.json",
    )
    card = hub.repositories["someone/told"].files["README.md"].decode()
    _, front, text = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "cc-by-nc-4.0" and front["library_name"] == "ssl-audio"
    (entry,) = front["model-index"][0]["results"]
    assert entry["dataset"]["name"] == "voices" and entry["metrics"][0]["value"] == 0.1234
    assert "| voices | equal error rate | 0.1234 | 0.1010 to 0.1490 | 500 |" in text
    assert "Two hours of tones: sines with noise." in text and "ssl_audio.methods.VICReg" in text
    snippet = text.split("```python\n")[1].split("```")[0]
    assert 'load_model("someone/told")' in snippet
    from huggingface_hub import ModelCard

    assert ModelCard(card).data.eval_results[0].metric_value == 0.1234  # the Hub's own reader understands it


def test_the_snippet_of_the_card_runs(hub, model, folder, write_tone, tmp_path, monkeypatch):
    push_to_hub(folder, "someone/told", token="hf_writer")
    card = hub.repositories["someone/told"].files["README.md"].decode()
    write_tone(tmp_path / "clip.wav")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert names["embedding"].shape == (model.dim,)


def test_what_is_refused_before_anything_is_uploaded(hub, folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(InputError, match=r"config\.yaml"):
        push_to_hub(tmp_path, "someone/new", token="hf_writer")
    with pytest.raises(InputError, match="dataset"):
        push_to_hub(folder, "someone/new", token="hf_writer", metrics=[{"eer": 0.1}])
    with pytest.raises(InputError, match="owner/name"):
        push_to_hub(folder, "not a name", token="hf_writer")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, content in stored(folder).items():
        (broken / name).write_bytes(content[:500] if name == "model.safetensors" else content)
    with pytest.raises(InputError, match="safetensors"):
        push_to_hub(broken, "someone/new", token="hf_writer")
    for token in (None, "hf_reader"):
        with pytest.raises(InputError, match="token"):
            push_to_hub(folder, "someone/new", token=token)
    assert hub.repositories == {}
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be reached"):
        push_to_hub(folder, "someone/new", token="hf_writer")


def python(code, *arguments, environment):
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result


def test_a_fresh_process_pushes_loads_and_works_offline_by_its_environment(folder, tmp_path):
    code = (
        "import sys, torch, ssl_audio\n"
        "if sys.argv[1] == 'push':\n"
        "    ssl_audio.push_to_hub(sys.argv[2], 'someone/new', token='hf_writer', licence='mit')\n"
        "model = ssl_audio.load_model('someone/new')\n"
        "print(model(torch.zeros(1, 16000)).shape)\n"
    )
    with loopback_hub() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        first = subprocess.run(
            [sys.executable, "-c", code, "push", str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert first.returncode == 0, first.stderr
    offline = python(code, "load", environment={**environment, "HF_HUB_OFFLINE": "1"})
    assert first.stdout == offline.stdout == "torch.Size([1, 16])\n"
