"""Tags over time: from a saved probe to a picture and JSON, never mispaired."""

import json

import numpy as np
import pytest
import soundfile
import torch
from helpers import tiny_model

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.downstream.tags import Tags, load_tagger, tag_file, write_taggram
from ssl_audio.errors import InputError
from ssl_audio.heads import ProbeHead
from ssl_audio.hub import save_model
from ssl_audio.model import EmbeddingModel


@pytest.fixture
def tagger(tmp_path):
    """A network with random weights whose classifier was fitted on half-second clips."""
    torch.manual_seed(0)
    head = ProbeHead(12, ["rock", "no vocals", "harp"], multi_label=True, clip_seconds=0.5)
    torch.nn.init.normal_(head.net[0].weight, std=3)
    model = tiny_model(12, head=head)
    save_model(model, tmp_path / "tagger")
    return model


@pytest.fixture
def song(tmp_path):
    """1.2 s in stereo at 44.1 kHz, another pitch in its second half."""
    time = np.arange(52920) / 44100
    wave = 0.3 * np.sin(2 * np.pi * np.where(time < 0.6, 200, 2000) * time)
    soundfile.write(tmp_path / "song.wav", np.stack([wave, 0.5 * wave], axis=1), 44100)
    return tmp_path / "song.wav"


def test_scores_are_the_models_probabilities_of_each_clip(tagger, song):
    tags = tag_file(tagger, song)
    assert tags.times.tolist() == [[0, 0.5], [0.5, 1.0], [pytest.approx(0.7), pytest.approx(1.2)]]
    whole = audio.read(song, 16000)
    expected = [1 / (1 + np.exp(-tagger.embed(whole[start : start + 8000]))) for start in (0, 8000, 11200)]
    assert np.allclose(tags.scores, expected, atol=1e-5)
    name, mean, when = tags.strongest(3)[0]
    column = tags.names.index(name)
    assert mean == pytest.approx(tags.scores[:, column].mean()) and mean == tags.means.max()
    assert when == pytest.approx(tags.times[tags.scores[:, column].argmax()].mean())
    assert len(tag_file(tagger, song, hop_seconds=0.1).times) == 8


def test_the_command_writes_picture_and_json_under_the_models_own_names(tagger, song, tmp_path, capsys):
    assert (
        main(["tag", str(song), "--model", str(tmp_path / "tagger"), "--output", str(tmp_path / "out"), "--top", "2"])
        == 0
    )
    said = capsys.readouterr().out
    assert "3 clips" in said and said.count(" strongest at ") == 2
    assert (tmp_path / "out" / "song.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / "out" / "song.json").read_text())
    tags = tag_file(tagger, song)
    assert content["tags"] == ["rock", "no vocals", "harp"] and len(content["clips"]) == 3
    assert content["clips"][1]["scores"] == pytest.approx(tags.scores[1].tolist(), abs=1e-5)
    assert content["mean"]["harp"] == pytest.approx(float(tags.means[2]), abs=1e-5)


def test_what_cannot_be_tagged_is_told(tagger, song, tmp_path, capsys):
    save_model(EmbeddingModel(tagger.frontend, tagger.encoder, 16000), tmp_path / "plain")
    with pytest.raises(InputError, match="has no classifier and no tags"):
        load_tagger(tmp_path / "plain")
    model = ["--model", str(tmp_path / "tagger")]
    assert main(["tag", str(song), str(song), "--output", str(tmp_path / "o"), *model]) == 2
    assert main(["tag", str(song), str(song), "--json", "x.json", *model]) == 2
    assert main(["tag", str(tmp_path / "none.wav"), *model]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert all("error: " in line for line in errors) and "same name" in errors[0] and "none.wav" in errors[-1]


def test_a_bad_recording_does_not_stop_the_others(tagger, song, tmp_path, capsys):
    save_model(tagger, tmp_path / "tagger")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound at all")
    names = [str(broken), str(song), "--model", str(tmp_path / "tagger"), "--output", str(tmp_path / "out")]
    assert main(["tag", *names]) == 2
    said = capsys.readouterr()
    assert "3 clips" in said.out and (tmp_path / "out" / "song.json").exists()
    assert said.err.splitlines()[-1] == "1 of 2 recordings could not be tagged" and "broken.wav" in said.err


@pytest.mark.filterwarnings("error")
def test_tags_with_dollars_and_in_other_scripts_are_drawn_without_a_word(tmp_path):
    names, scores = ["$x^{2$", "歌手"], np.array([[0.2, 0.8], [0.4, 0.6]])
    tags = Tags(tmp_path / "$a$ 歌.wav", names, False, np.array([[0.0, 1.0], [1.0, 2.0]]), scores)
    write_taggram(tmp_path / "tags.png", tags, 2)
    assert (tmp_path / "tags.png").read_bytes().startswith(b"\x89PNG")
