"""From audio to notes: figures against mir_eval, a head that learns, windows that join without a seam, MIDI out."""

import json

import matplotlib.image
import mir_eval
import numpy as np
import pretty_midi
import pytest
import torch
from helpers import tone, write_musicnet

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.data.notes import Notes
from ssl_audio.encoders import CPC, CompactCNN, EfficientNet
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram, Waveform
from ssl_audio.hub.saved import save_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.pooling import StatisticsPooling
from ssl_audio.transcription import ConvHead, LinearHead, Transcriber, load_transcriber, save_transcriber
from ssl_audio.transcription.fit import (
    MODES,
    FitSettings,
    LabelledRecordings,
    LabelledWindows,
    fit,
    make_transcriber,
    read_folder,
)
from ssl_audio.transcription.metrics import Piece, average_precision, best_threshold, evaluate_transcription
from ssl_audio.transcription.output import write_midi


def cpc(**kwargs):
    torch.manual_seed(0)
    settings = {"channels": 24, "context": "none", **kwargs}
    return EmbeddingModel(Waveform(), CPC(**settings), 16000).eval()


def mel(sample_rate=22050):
    torch.manual_seed(1)
    encoder = CompactCNN(channels=(4, 8), embedding_dim=8, pooling=StatisticsPooling)
    return EmbeddingModel(LogMelSpectrogram(sample_rate, 512, 256, n_mels=32), encoder, sample_rate).eval()


def transcriber(models=None, instruments=(41, 43), nr_samples=8000, head=LinearHead):
    models = models or [cpc()]
    torch.manual_seed(2)
    dim = sum(model.encoder.frame_dim for model in models)
    return Transcriber(models, head(dim, (1 + len(instruments)) * 128), list(instruments), nr_samples).eval()


def random_notes(seed, count=30, seconds=8.0):
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0, seconds - 1, count)
    return Notes(onset, onset + rng.uniform(0.05, 1, count), rng.integers(50, 62, count), rng.choice([41, 43], count))


def jittered(notes, seed):
    rng = np.random.default_rng(seed)
    onset = np.maximum(0, notes.onset + rng.normal(0, 0.05, len(notes)))
    return Notes(onset, np.maximum(notes.offset, onset + 0.05), notes.pitch, notes.instrument)


@pytest.mark.parametrize("seed", range(4))
def test_note_figures_equal_mir_eval(seed):
    reference, estimate = random_notes(seed), jittered(random_notes(seed), seed)
    rolls = [notes.instrument_roll(0, 800, 100, [41, 43]) for notes in (reference, estimate)]
    got = evaluate_transcription(
        [Piece(rolls[0], rolls[1].astype(float), reference, estimate)], {41: "a", 43: "b"}, 0.5
    )

    def mir(instrument, offset_ratio):
        parts = []
        for notes in (reference, estimate):
            kept = notes.instrument == instrument
            parts += [np.stack([notes.onset, notes.offset], 1)[kept], mir_eval.util.midi_to_hz(notes.pitch[kept])]
        return mir_eval.transcription.precision_recall_f1_overlap(*parts, offset_ratio=offset_ratio)[:3]

    for number, name in ((41, "a"), (43, "b")):
        for key, ratio in (("note", None), ("note_with_offset", 0.2)):
            figures = [got["instruments"][name][f"{key}_{part}"] for part in ("precision", "recall", "f1")]
            np.testing.assert_allclose(figures, mir(number, ratio), err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_frame_figures_equal_mir_eval(seed):
    reference, estimate = random_notes(seed).roll(0, 300, 100), random_notes(seed + 9).roll(0, 300, 100)
    estimate |= reference & (np.random.default_rng(seed).random(reference.shape) < 0.5)
    rolls = [roll[None] for roll in (reference, estimate)]
    piece = Piece(rolls[0], rolls[1].astype(float), random_notes(seed), random_notes(seed))
    got = evaluate_transcription([piece], {}, 0.5)
    times = np.arange(300) / 100
    lists = [[mir_eval.util.midi_to_hz(np.flatnonzero(row).astype(float)) for row in roll[0]] for roll in rolls]
    expected = mir_eval.multipitch.evaluate(times, lists[0], times, lists[1])
    assert got["frame_precision"] == pytest.approx(expected["Precision"])
    assert got["frame_recall"] == pytest.approx(expected["Recall"])


def test_average_precision_by_its_definition():
    rng = np.random.default_rng(0)
    targets, scores = rng.random((40, 12)) < 0.2, rng.random((40, 12))
    order = np.argsort(-scores.ravel())
    hits = targets.ravel()[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    assert average_precision(targets, scores) == pytest.approx(precision[hits].mean())
    assert average_precision(targets, targets.astype(float)) == 1
    assert np.isnan(average_precision(np.zeros((3, 3), bool), np.ones((3, 3))))
    assert 0.2 <= best_threshold(targets, np.where(targets, 0.6, 0.2)) < 0.6


def test_figures_of_a_right_a_late_and_a_silent_transcription():
    notes = Notes([0.1, 0.5], [0.4, 0.9], [60, 64], [41, 43])
    roll = notes.instrument_roll(0, 100, 100, [41, 43, 74])
    names = {41: "violin", 43: "cello", 74: "flute"}

    def figures(estimate, scores):
        return evaluate_transcription([Piece(roll, scores, notes, estimate)], names, 0.5)

    right = figures(notes, roll.astype(float))
    assert right["frame_average_precision"] == right["frame_f1"] == right["note_with_offset_f1"] == 1
    assert right["frame_chance"] == pytest.approx(70 / 12800) and set(right["instruments"]) == {"violin", "cello"}
    late = figures(Notes(notes.onset + 0.04, notes.offset + 0.2, notes.pitch, notes.instrument), roll.astype(float))
    assert late["note_f1"] == 1 and late["note_with_offset_f1"] == 0
    silent = figures(Notes([], [], []), np.zeros(roll.shape))
    assert silent["frame_f1"] == silent["note_f1"] == silent["note_recall"] == 0
    with pytest.raises(InputError, match="targets and scores must have"):
        evaluate_transcription([Piece(roll, roll[:2].astype(float), notes, notes)], names, 0.5)


def test_a_row_of_an_instrument_is_its_own():
    """Swapped instruments: notes as such are right, those of each instrument wrong."""
    notes = Notes([0.1, 0.5], [0.4, 0.9], [60, 64], [41, 43])
    swapped = Notes(notes.onset, notes.offset, notes.pitch, [43, 41])
    scores = swapped.instrument_roll(0, 100, 100, [41, 43]).astype(float)
    piece = Piece(notes.instrument_roll(0, 100, 100, [41, 43]), scores, notes, swapped)
    got = evaluate_transcription([piece], {41: "violin", 43: "cello"}, 0.5)
    assert got["note_f1"] == got["frame_f1"] == 1
    assert all(of_it["note_f1"] == of_it["frame_f1"] == 0 for of_it in got["instruments"].values())


@pytest.mark.parametrize("samples", [8000, 8001, 20000, 23999, 3000])
def test_windows_join_without_a_seam(samples):
    """An encoder that hears few frames gives the same for the whole as for its windows."""
    model = transcriber()
    clip = tone(2.0, 16000, 300.0)[:samples]
    got = model.probabilities(clip, batch_size=2)
    with torch.no_grad():
        whole = model(torch.from_numpy(clip)[None])[0].sigmoid().numpy()
    assert got.shape == (3, samples // 160, 128)
    inner = slice(4, samples // 160 - 4)
    np.testing.assert_allclose(got[:, inner], whole[:, : got.shape[1]][:, inner], atol=2e-3)


def test_models_of_other_rates_are_joined():
    model = transcriber([cpc(), mel()])
    features = model.features(torch.randn(2, 8000))
    assert features.shape == (2, 50, 24 + mel().encoder.frame_dim) and model.frame_rate == 100
    with torch.no_grad():
        clips = torch.randn(2, 8000)
        torch.testing.assert_close(model.features(clips)[..., :24], cpc().frames(clips))
        assert model(clips).shape == (2, 3, 50, 128)


@pytest.mark.parametrize("head", [LinearHead, ConvHead])
def test_a_saved_transcriber_is_the_same(tmp_path, head):
    model = transcriber([cpc(), mel()], head=head)
    model.threshold = 0.3
    model.standardize.running_mean.normal_()
    save_transcriber(model, tmp_path / "t")
    loaded = load_transcriber(tmp_path / "t")
    clip = tone(1.2)
    np.testing.assert_array_equal(loaded.probabilities(clip), model.probabilities(clip))
    assert (loaded.threshold, loaded.instruments, loaded.training) == (0.3, [41, 43], False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("m") / "musicnet"
    write_musicnet(root, seconds=(3.0, 3.0, 3.5, 3.0), test_seconds=(3.0, 3.0))
    return root


def test_windows_carry_the_notes_of_their_recording(tree):
    labelled = read_folder(tree, "train", 8000)
    data = LabelledWindows(labelled, transcriber(), 0, moving=True)
    from ssl_audio.data.sampler import Draw

    agree = total = 0
    for item in range(len(data)):
        clip, roll = data[Draw(3, item)]
        assert torch.equal(roll[0], roll[1:].any(dim=0))  # violin and cello are all that play
        loud = clip.view(50, 160).square().mean(1).sqrt() > 0.05
        agree, total = agree + int((roll[0].any(1) == loud).sum()), total + 50
    assert agree > 0.95 * total


@pytest.mark.parametrize("mode", MODES)
def test_modes_train_what_they_say(tree, mode):
    train, valid = read_folder(tree, "train", 8000).split(0.25, 0)
    made = make_transcriber([cpc()], [41, 43], mode, "linear", 8000, seed=5)
    before = {name: value.clone() for name, value in made.encoders.state_dict().items()}
    head = made.head.output.weight.detach().clone()
    history = fit(made, train, valid, FitSettings(mode, epochs=4, lr=0.01, progress=False))
    changed = any(not torch.equal(value, before[name]) for name, value in made.encoders.state_dict().items())
    assert changed == (mode in ("finetuned", "supervised"))
    fresh = all(
        not torch.equal(before[f"0.{name}"], value)
        for name, value in cpc().state_dict().items()
        if "convolutions.0.weight" in name
    )
    assert fresh == (mode in ("supervised", "untrained"))
    assert not torch.equal(made.head.output.weight, head) and history[-1]["loss"] < history[0]["loss"]


def test_kept_features_change_nothing(tree):
    """Features that are kept and features computed each epoch lead to the same head, up to the order of windows."""
    train, valid = read_folder(tree, "train", 8000).split(0.25, 0)
    found = []
    for room in (1 << 30, 0):
        made = make_transcriber([cpc()], [41, 43], "frozen", "linear", 8000, seed=5)
        fit(made, train, valid, FitSettings(epochs=1, kept_features=room, progress=False))
        found.append(made.head.output.weight.detach())
    torch.testing.assert_close(*found)


def test_from_wav_to_midi_through_the_commands(tmp_path, capsys):
    tree = tmp_path / "musicnet"
    write_musicnet(tree, seconds=(6.0, 6.0, 6.0, 6.0), test_seconds=(3.0, 3.0), pitches=(48, 60, 72))
    save_model(cpc(), tmp_path / "encoder")
    command = ["fit-transcriber", str(tree), "--model", str(tmp_path / "encoder"), "--output", str(tmp_path / "t")]
    assert (
        main([*command, "--epochs", "12", "--lr", "0.02", "--window", "0.5", "--valid", "0.25", "--device", "cpu"]) == 0
    )
    record = json.loads((tmp_path / "t" / "figures.json").read_text())
    figures = record["figures"]
    assert record["tested_on"] == "test" and set(figures["instruments"]) == {"violin", "cello"}
    assert figures["frame_average_precision"] > 0.5 > 50 * figures["frame_chance"]
    piece, midi = tree / "test_data" / "2500.wav", tmp_path / "out" / "piece.mid"
    assert main(["transcribe", str(piece), "--model", str(tmp_path / "t"), "-o", str(midi), "--device", "cpu"]) == 0
    model = load_transcriber(tmp_path / "t")
    notes = model.notes(model.probabilities(audio.read(piece, 16000)))
    assert len(notes) > 0 and f"{len(notes)} notes of 3.0 s" in capsys.readouterr().out
    written = [note for track in pretty_midi.PrettyMIDI(str(midi)).instruments for note in track.notes]
    assert sorted(note.pitch for note in written) == sorted(notes.pitch.tolist())
    np.testing.assert_allclose(sorted(note.start for note in written), notes.onset, atol=2e-3)
    assert matplotlib.image.imread(midi.with_suffix(".png")).shape[0] > 300


def test_validation_recordings_without_notes_are_refused(tree):
    """No epoch would be better than another: the head would stay as it was drawn."""
    train, valid = read_folder(tree, "train", 8000).split(0.25, 0)
    silent = LabelledRecordings(valid.groups, {path: Notes([], [], [], []) for path in valid.notes}, [])
    with pytest.raises(InputError, match="the validation recordings have no notes"):
        made = make_transcriber([cpc()], [41, 43], "frozen", "linear", 8000, 0)
        fit(made, train, silent, FitSettings(epochs=1, progress=False))


def test_what_the_figures_leave_out_is_said(tmp_path, capsys):
    tree = tmp_path / "musicnet"
    write_musicnet(tree, seconds=(3.0, 3.0, 3.0, 3.0), test_seconds=(2.0, 2.0))
    labels = tree / "test_labels" / "2500.csv"
    labels.write_text(labels.read_text().replace(",41,", ",74,"))
    audio.write(tree / "test_data" / "2501.wav", np.zeros(88200, np.float32), 44100)
    command = ["fit-transcriber", str(tree), "--model", "mel", "--output", str(tmp_path / "t"), "--epochs", "1"]
    assert main([*command, "--window", "0.5", "--valid", "0.25", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "without metrics of their own, because no training recording has them: flute" in said
    assert f"left out: {tree / 'test_data' / '2501.wav'}" in said


def test_a_test_without_notes_is_refused_before_the_training(tree, tmp_path, capsys):
    for labels in (tree / "test_labels").iterdir():
        labels.write_text(labels.read_text().splitlines()[0] + "\n")
    assert main(["fit-transcriber", str(tree), "--model", "mel", "--output", str(tmp_path / "t"), "--epochs", "1"]) == 2
    assert "the test recordings have no notes" in capsys.readouterr().err


def test_midi_keeps_programmes(tmp_path):
    write_midi(Notes([0.5, 1.0], [1.0, 2.0], [60, 64], [41, 0]), tmp_path / "a.mid")
    tracks = {track.program: track for track in pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments}
    assert set(tracks) == {40, 0} and not any(track.is_drum for track in tracks.values())  # violin; unknown
    note = tracks[40].notes[0]
    assert (note.pitch, round(note.start, 3), round(note.end, 3)) == (60, 0.5, 1.0)


def test_what_cannot_be_transcribed_is_said_in_a_line(tree, tmp_path, capsys):
    save_model(cpc(), tmp_path / "encoder")
    save_transcriber(transcriber(), tmp_path / "t")
    piece = str(tree / "test_data" / "2500.wav")

    def error(*arguments):
        assert main(list(arguments)) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        return text

    assert "without a transcription head" in error(
        "transcribe", piece, "--model", str(tmp_path / "encoder"), "-o", "a.mid"
    )
    assert "holds no transcriber" in error("transcribe", piece, "--model", str(tmp_path), "-o", "a.mid")
    assert "such as a.mid" in error("transcribe", piece, "--model", str(tmp_path / "t"), "-o", "a.wav")
    assert "no such file" in error("transcribe", "none.wav", "--model", str(tmp_path / "t"), "-o", "a.mid")
    for option, value in (("--batch_size", "0"), ("--min_seconds", "nan")):
        assert f"{option} is {value}" in error("transcribe", piece, "--model", "t", "-o", "a.mid", option, value)
    for option, value in (("--lr", "nan"), ("--window", "nan"), ("--workers", "-1"), ("--seed", "-1")):
        fit_command = ("fit-transcriber", str(tree), "--model", "mel", "--output", str(tmp_path / "u"))
        assert f"{option} is {value}" in error(*fit_command, option, value)
    assert "choose another place" in error("fit-transcriber", str(tree), "--model", "mel", "--output", piece)
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "config.yaml").write_text("transcriber: 3\n")
    assert "describes no transcriber" in error("transcribe", piece, "--model", str(tmp_path / "wrong"), "-o", "a.mid")
    short = tmp_path / "short.wav"
    audio.write(short, tone(0.005), 16000)
    said = error("transcribe", str(short), "--model", str(tmp_path / "t"), "-o", str(tmp_path / "a.mid"))
    assert "too short" in said and str(short) in said
    assert "needs a trained encoder" in error("fit-transcriber", str(tree), "--output", str(tmp_path / "u"))
    assert "no MusicNet here" in error("fit-transcriber", str(tmp_path), "--output", "u", "--mode", "supervised")
    with pytest.raises(InputError, match="has no frames"):
        bare = EfficientNet("efficientnet_b0", 8)
        bare.frame_dim = None
        make_transcriber([EmbeddingModel(LogMelSpectrogram(), bare)], [41], "frozen", "linear", 22050, 0)
    with pytest.raises(InputError, match="the head has the sizes 3"):
        Transcriber([cpc()], LinearHead(3, 256), [41], 8000)
