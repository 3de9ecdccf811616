"""From files to a probe's report: features kept on disk, official folds, baselines, the saved model."""

import csv
import json

import numpy as np
import pytest
import torch
from helpers import skip_without, tiny_model

from ssl_audio.baselines import mean_mel, mfcc_statistics
from ssl_audio.cli import main
from ssl_audio.commands.probe import parse_options
from ssl_audio.data.corpora import load
from ssl_audio.downstream.features import AnyLength, clip_seconds, extract
from ssl_audio.downstream.frozen import common_files, probe_frozen
from ssl_audio.downstream.tasks import load_task, task_of
from ssl_audio.errors import InputError
from ssl_audio.evaluation.probes import ProbeSettings
from ssl_audio.hub import load_model, save_model


@pytest.fixture
def model():
    return tiny_model(24)


@pytest.fixture
def sounds(tmp_path, write_tone):
    """Three classes by pitch, ten files each, 1.3 s: two and a bit clips of half a second."""
    for number, name in enumerate(("high", "low", "middle")):
        for i in range(10):
            frequency = {"low": 110, "middle": 440, "high": 1760}[name] * (1 + 0.02 * i)
            write_tone(tmp_path / "sounds" / name / f"{i}.wav", seconds=1.3, frequency=frequency, seed=10 * number + i)
    return tmp_path / "sounds"


def test_clips_cover_each_file_and_equal_the_models_own_embeddings(model, sounds, write_tone, tmp_path):
    from ssl_audio import audio

    paths = [sounds / "low" / "0.wav", write_tone(tmp_path / "short.wav", seconds=0.3), sounds / "high" / "1.wav"]
    found = extract(model, paths, 0.5, cache=tmp_path / "cache")
    assert found.owner.tolist() == [0, 0, 0, 1, 2, 2, 2] and not found.unreadable
    whole = audio.read(paths[0])
    expected = [model.embed(whole[start : start + 8000]) for start in (0, 8000, 20800 - 8000)]  # the end is heard too
    assert np.allclose(found.values[:3], expected, atol=1e-5)
    assert np.allclose(found.values[3], model.embed(paths[1]), atol=1e-5)
    assert extract(model, paths, 0.5, 0.25, cache=tmp_path / "cache").owner.tolist().count(0) == 5


@pytest.mark.parametrize("sign", [*"|>-,;~#&/ ", "||"])
def test_a_separator_on_the_command_line_is_what_stands_there(sign, tmp_path):
    """YAML makes an empty text of `|`, with which every combination of labels was a class of its own."""
    quoted = f'"rock{sign}loud"'
    (tmp_path / "t.csv").write_text(f"path,tags\na.wav,{quoted}\nb.wav,rock\n")
    files = load_task("csv", tmp_path / "t.csv", parse_options(["label=tags", f"separator={sign}"])).files
    assert files.classes == ["loud", "rock"] and files.targets.tolist() == [[True, True], [False, True]]


def test_options_are_read_as_yaml():
    assert parse_options(["fold=1", "of=[de,en]", "x=true", "y=", "z=[]", "s='|'", "t='"]) == {
        "fold": 1,
        "of": ["de", "en"],
        "x": True,
        "y": "",
        "z": [],
        "s": "|",
        "t": "'",
    }


@pytest.mark.parametrize("separator", ["", 1])
def test_a_separator_that_separates_nothing_is_refused(separator, tmp_path):
    (tmp_path / "t.csv").write_text("path,tags\na.wav,rock|loud\nb.wav,rock\n")
    with pytest.raises(InputError, match="the separator must be text"):
        load_task("csv", tmp_path / "t.csv", {"label": "tags", "separator": separator})


def test_folds_that_tear_groups_apart_are_told(tmp_path):
    (tmp_path / "t.csv").write_text("path,genre,fold,song\na,x,1,A\nb,y,2,A\nc,x,1,B\nd,y,1,B\n")
    columns = {"label": "genre", "fold": "fold"}
    (note,) = load_task("csv", tmp_path / "t.csv", {**columns, "group": "song"}).notes
    assert note.startswith("1 of 2 groups (the first: A) have files in several of the given folds")
    assert load_task("csv", tmp_path / "t.csv", columns).notes == ()


def test_files_of_a_folder_that_are_split_one_by_one_are_told(tmp_path, write_tone):
    for label in "xy":
        for name in "abc":
            write_tone(tmp_path / "flat" / label / f"{name}.wav", seconds=0.05)
            write_tone(tmp_path / "deep" / label / name / "1.wav", seconds=0.05)
    (note,) = load_task("folder", tmp_path / "flat", {}).notes
    assert note.startswith("every file is its own group")
    assert load_task("folder", tmp_path / "deep", {}).notes == ()  # a folder a recording, as the note asks for


def test_files_of_which_none_can_be_read_are_named(model, tmp_path):
    with pytest.raises(InputError, match=r"none of the 2 files can be used, the first: .*a.wav"):
        extract(model, [tmp_path / "a.wav", tmp_path / "b.wav"], 0.5, cache=tmp_path / "cache")


def test_features_are_computed_once_a_model_and_a_state_of_the_files(model, sounds, tmp_path, write_tone):
    paths = sorted(sounds.rglob("*.wav"))[:3]
    passes = []
    model.encoder.register_forward_hook(lambda *_: passes.append(1))

    def run(one=model, seconds=0.5):
        passes.clear()
        return extract(one, paths, seconds, cache=tmp_path / "cache"), len(passes)

    first, worked = run()
    again, idle = run()
    assert worked and not idle and np.array_equal(first.values, again.values)
    assert run(seconds=0.6)[1]
    write_tone(paths[1], seconds=1.3, frequency=999.0)
    assert run()[1]
    with torch.no_grad():
        model.encoder.projection.bias += 1
    assert run()[1]
    one, two = (extract(baseline(), paths, 0.5, cache=tmp_path / "cache") for baseline in (mean_mel, mfcc_statistics))
    assert (one.values.shape[1], two.values.shape[1]) == (128, 40)  # the same class with other arguments


def test_a_table_that_tells_no_recordings_warns_that_they_may_be_on_both_sides(tmp_path):
    (tmp_path / "songs.csv").write_text("path,title,genre,part\na0.wav,a,pop,1\na1.wav,a,pop,2\nb.wav,b,rock,1\n")
    told = {"label": "genre"}
    (note,) = load_task("csv", tmp_path / "songs.csv", told).notes
    assert "too good" in note and "--option group" in note
    assert not load_task("csv", tmp_path / "songs.csv", told | {"group": "title"}).notes
    assert not load_task("csv", tmp_path / "songs.csv", told | {"fold": "part"}).notes


def test_what_is_too_short_for_the_model_is_repeated(model):
    clip = torch.randn(2, 100)
    assert clip.shape[1] < model.minimum_samples
    expected = model(clip.repeat(1, 100)[:, : model.minimum_samples])
    assert torch.equal(AnyLength(model)(clip), expected)
    assert clip_seconds(model) == 3.0 and clip_seconds(model, 1.0) == 1.0
    with pytest.raises(InputError, match="too short"):
        clip_seconds(model, 0.001)


def test_unreadable_files_are_refused_or_left_out_of_every_model_and_counted(model, sounds, tmp_path):
    (sounds / "low" / "3.wav").write_bytes(b"not audio")
    task = task_of(load("folder", sounds))
    features = {"a": extract(model, task.files.paths, 0.5, cache=tmp_path / "c")}
    (position,) = features["a"].unreadable
    assert task.files.paths[position].name == "3.wav"
    with pytest.raises(InputError, match=r"1 of 30 files.*--skip_unreadable"):
        common_files(task, features, skip=False)
    kept, features = common_files(task, features, skip=True)
    assert len(kept.files.paths) == 29 and kept.notes and np.array_equal(np.unique(features["a"].owner), np.arange(29))
    expected = extract(model, kept.files.paths, 0.5, cache=tmp_path / "d")
    assert np.array_equal(features["a"].owner, expected.owner)
    (result,) = probe_frozen(features["a"], kept, ProbeSettings(resamples=0))
    assert result.n_test == kept.files.folds.count("test") and result.metrics.summary["accuracy"] == 1


def test_a_run_of_the_command_writes_its_figures_and_a_model_with_named_outputs(model, sounds, tmp_path, capsys):
    save_model(model, tmp_path / "model")
    base = ["probe", "--model", str(tmp_path / "model"), "--corpus", "folder", "--root", str(sounds), "--clip", "0.5"]
    fractions = ["--fractions", "0.3", "1", "--seeds", "1", "--draws", "10"]
    assert main([*base, *fractions, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "27 files for training, 3 for testing" in said and "every file is its own group" in said
    assert "30 files, 3 classes" in said and "mean mel" in said and "MFCC statistics" in said and "untrained" in said
    record = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert record["classes"] == ["high", "low", "middle"] and len(record["results"]) == 4 * 2
    assert [r["model"] for r in record["results"] if not r["baseline"]] == ["model"] * 2
    own = record["results"][1]
    assert own["accuracy"] == 1 and own["n_test"] == 3 and own["label_fraction"] == 1
    beside = {d["other"]: d["accuracy"] for d in record["differences"] if d["label_fraction"] == 1}
    assert len(beside) == 3 and "accuracy against mean mel: " in said
    for other in (r for r in record["results"] if r["baseline"] and r["label_fraction"] == 1):
        value, low, high = beside[other["model"]]
        assert value == pytest.approx(1 - other["accuracy"]) and low <= value <= high
    report = json.loads((tmp_path / "out" / "classification_report.json").read_text())["model"]
    assert report["macro avg"]["f1-score"] == 1 and report["low"]["support"] == 1 and "weighted avg" in report
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "out" / "figures.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    tagger = load_model(tmp_path / "out" / "model")
    assert tagger.head.classes == record["classes"] and tagger.head.clip_seconds == 0.5
    scores = np.load(tmp_path / "out" / "scores.npz")
    task = task_of(load("folder", sounds))
    first = task.files.paths[scores["tested"][0]]
    clips = extract(tagger, [first], 0.5, cache=tmp_path / "c")
    probabilities = tagger.head.probabilities(torch.from_numpy(clips.values)).mean(0).numpy()
    assert np.allclose(probabilities, scores["model"][0], atol=1e-5)  # the tested head is kept


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--corpus", "esc11"], "no corpus 'esc11'; there are cnceleb, esc10"),
        (["--option", "shape=round"], "folder has no option shape; it has fractions"),
        (["--model", "another"], "--model is given more than once; a probe tests one model"),
        (["--option", "x"], "is not NAME=VALUE"),
        (["--corpus", "csv"], "csv needs --option label=COLUMN"),
        (["--fractions", "0"], "--fractions must be above 0"),
        (["--clip", "0.001"], "too short; this model needs"),
        (["--corpus", "nsynth"], "nsynth-train/examples.json (from https://magenta"),
    ],
)
def test_mistakes_are_told_in_one_line(change, says, model, sounds, tmp_path, capsys):
    save_model(model, tmp_path / "model")
    base = ["probe", "--model", str(tmp_path / "model"), "--corpus", "folder", "--root", str(sounds)]
    assert main([*base, *change]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and says in error


def test_a_table_of_several_labels_with_its_own_split(model, sounds, tmp_path):
    rows = ["path,tags,part"]
    for i, path in enumerate(sorted(sounds.rglob("*.wav"))):
        tags = {"high": "bright|loud", "low": "dark", "middle": ""}[path.parent.name]
        rows.append(
            f"{path.relative_to(tmp_path)},{tags},{'test' if i % 5 == 0 else 'valid' if i % 5 == 1 else 'train'}"
        )
    (tmp_path / "tags.csv").write_text("\n".join(rows))
    task = load_task("csv", tmp_path / "tags.csv", {"label": "tags", "separator": "|", "fold": "part"})
    features = extract(model, task.files.paths, 0.5, cache=tmp_path / "cache")
    (result,) = probe_frozen(features, task, ProbeSettings(resamples=10))
    assert result.classes == ["bright", "dark", "loud"] and result.n_test == 6
    assert result.metrics.summary["roc_auc"] == 1 and result.head.multi_label


def test_environmental_sounds_by_their_official_folds_beside_baselines(shared, model, tmp_path):
    root = shared / "data" / "esc"
    if not root.is_dir():
        skip_without("environmental sounds")
    corpus = load("esc10", root)
    assert (len(corpus.tracks), len(corpus.label_names)) == (200, 10)
    sources = {}
    for track in corpus.tracks:
        assert sources.setdefault(track.group, track.fold) == track.fold  # cut from one recording: in one fold
    task = task_of(corpus)
    task = task.without([i for i in range(200) if i % 3], "a third is enough for a test")
    features = extract(mfcc_statistics(), task.files.paths, 5.1, cache=tmp_path / "cache", label="MFCC")
    (result,) = probe_frozen(features, task, ProbeSettings(resamples=20))
    assert result.n_test == 67 and len(result.chosen) == 5
    assert result.metrics.summary["accuracy"] > 0.3  # ten classes


def test_a_model_named_as_a_baseline_is_still_the_one_judged():
    from ssl_audio.commands.probe import beside

    found = beside("runs/untrained", "mine", {"untrained": "theirs", "mean mel": "mel"})
    assert list(found.values()) == ["mine", "theirs", "mel"]
    assert list(beside("runs/mine", "mine", {"untrained": "theirs"})) == ["mine", "untrained"]
    assert list(beside("runs/mine/0", "mine", {})) == ["mine-0"]  # a numbered run says whose


def test_transfer_refuses_what_only_a_frozen_probe_does(model, sounds, tmp_path, capsys):
    save_model(model, tmp_path / "model")
    words = ["probe", "--model", str(tmp_path / "model"), "--corpus", "folder", "--root", str(sounds)]
    assert main([*words, "--mode", "transfer", "--head", "mlp", "--hop", "1"]) == 2
    assert "omit --head, --hop" in capsys.readouterr().err
