"""An index of real files: built, updated, saved, damaged, opened, asked."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import skip_without, tiny_frontend, tiny_model

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.saved import save_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint
from ssl_audio.retrieval import Index
from ssl_audio.retrieval.ranking import State
from ssl_audio.retrieval.tracks import Tracks

RATE = 16000


def make_model(seed=0):
    return tiny_model(32, seed=seed, frontend=tiny_frontend(normalize="none"))


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def music(tmp_path, write_tone):
    """Three artists of three 1.5 s songs; an artist's songs have nearly one pitch."""
    folder = tmp_path / "music"
    for artist, pitch in enumerate((150, 700, 3000)):
        for song in range(3):
            path = folder / f"artist {artist}" / "album" / f"song{song}.wav"
            write_tone(path, seconds=1.5, frequency=pitch * (1 + 0.01 * song), seed=artist * 3 + song)
    return folder


def build(model, folder, **options):
    return Index.build(model, folder, progress=False, workers=1, **({"window_seconds": 0.5} | options))


def names(hits):
    return [f"{Path(hit.path).parts[-3][-1]}{Path(hit.path).stem[-1]}" for hit in hits]


def test_an_artists_songs_find_each_other_and_never_themselves(model, music):
    index = build(model, music, group="top_folder")
    for path in index.paths:
        hits = index.recommend(path, 8)
        assert len(hits) == 8 and path not in [hit.path for hit in hits]
        assert {name[0] for name in names(hits[:2])} == {Path(path).parts[-3][-1]}
    hits = index.recommend(index.paths[0], 8, per_group=1)
    assert sorted(hit.group for hit in hits) == ["artist 0", "artist 1", "artist 2"]


def test_a_tracks_row_is_the_mean_direction_of_its_windows_and_max_keeps_them_all(model, music):
    path = music / "artist 1" / "album" / "song2.wav"
    wave = audio.read(path)
    windows = np.stack([model.embed(wave[start : start + RATE // 2]) for start in (0, RATE // 2, RATE)])
    windows /= np.linalg.norm(windows, axis=1, keepdims=True)
    mean = build(model, music)
    row = mean.embeddings[mean.paths.index(str(path))]
    expected = windows.mean(0) / np.linalg.norm(windows.mean(0))
    np.testing.assert_allclose(row, expected, atol=1e-5)

    closest = build(model, music, aggregate="max")
    assert "27 vectors" in closest.description
    other = closest.recommend(path, 1)[0]
    wave = audio.read(other.path)
    rows = np.stack([model.embed(wave[start : start + RATE // 2]) for start in (0, RATE // 2, RATE)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert other.score == pytest.approx(float((windows @ rows.T).max()), abs=1e-5)


def test_a_query_may_be_a_path_an_id_or_audio_of_any_rate_and_several_at_once(model, music, tmp_path):
    index = build(model, music)
    path = index.paths[4]
    inside = index.recommend(path, 3)
    assert index.recommend(int(index.ids[4]), 3) == inside
    wave = audio.read(path)
    outside = index.recommend(wave, 4)  # the same audio, not known to be a track of the library
    assert outside[0].path == path and outside[0].score == pytest.approx(1, abs=1e-5)
    assert [hit.path for hit in outside[1:]] == [hit.path for hit in inside]

    faster = audio.resample(wave, RATE, 44100)
    assert index.recommend(faster, 1, sample_rate=44100)[0].path == path
    stereo = tmp_path / "elsewhere.wav"
    audio.write(stereo, np.stack([faster, faster], 1), 44100)
    assert index.recommend(stereo, 1)[0].path == path
    assert names(index.recommend([path, stereo], 3)[0]) == names(inside)
    batch = index.recommend(torch.from_numpy(np.stack([wave, audio.read(index.paths[0])])), 1)
    assert [hits[0].path for hits in batch] == [path, index.paths[0]]
    with pytest.raises(InputError, match="mono"):
        index.recommend([np.zeros((RATE, 2), np.float32)])


def test_save_and_load_keep_every_answer(model, music, tmp_path):
    for search in ("exact", "hnsw"):
        index = build(model, music, aggregate="max", search=search)
        index.save(tmp_path / "a.index")
        again = Index.load(tmp_path / "a.index", model)
        assert again.recommend(again.paths, 5) == index.recommend(index.paths, 5)
        assert again.settings == index.settings and again.description == index.description
        assert isinstance(again._state.tracks.rows.base, np.ndarray) and not again._state.tracks.rows.flags.owndata


def test_update_embeds_what_is_new_or_changed_and_forgets_what_is_gone(model, music, write_tone):
    index = build(model, music)
    before = dict(zip(index.paths, index.ids.tolist(), strict=True))
    kept, changed, gone = index.paths[0], index.paths[4], index.paths[8]
    write_tone(Path(changed), seconds=1, frequency=150)
    Path(gone).unlink()
    write_tone(music / "new.wav", frequency=150)
    (music / "broken.wav").write_bytes(b"not audio")
    update = index.update(progress=False)
    assert [len(part) for part in (update.added, update.changed, update.removed, update.failed)] == [1, 1, 1, 1]
    assert update.failed[0][0] == "broken.wav"
    after = dict(zip(index.paths, index.ids.tolist(), strict=True))
    assert after[kept] == before[kept] and gone not in after and len(after) == 9
    assert changed in [hit.path for hit in index.recommend(kept, 4)]  # it has the pitch of artist 0 now
    assert str(index.update(progress=False)) == "1 failed"


def test_files_of_one_size_and_time_that_change_places_are_noticed(model, music, tmp_path):
    for path in sorted(music.rglob("*.wav")):
        os.utime(path, (1577836800,) * 2)  # as archives with fixed times leave them
    index = build(model, music)
    index.save(tmp_path / "a.index")
    first, second = (Path(path) for path in index.paths[:2])
    for path in index.paths:  # as after a copy of the whole library: other entries, the same content
        shutil.copy2(path, f"{path}.copy")
        os.replace(f"{path}.copy", path)
    assert str(index.update(progress=False)) == "nothing changed"
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    index = Index.load(tmp_path / "a.index", model)
    assert str(index.update(progress=False, workers=1)) == "2 changed"
    old = Index.load(tmp_path / "a.index", model)
    arrays = old._state.tracks.to_arrays()
    arrays["stamps"] = arrays["stamps"][:, :2]  # an index of 0.1
    old._state = State(Tracks.from_arrays(arrays), old.settings)
    assert str(old.update(progress=False)) == "nothing changed"


def test_an_interrupted_run_keeps_what_it_has_done_and_the_next_goes_on(tmp_path, write_tone):
    model = MelStatistics.model()
    encoder = model.encoder
    for i in range(70):
        write_tone(tmp_path / "music" / f"{i:02d}.wav", seconds=0.3, frequency=200 + 10 * i)
    index = Index({"window_seconds": None, "root": str(tmp_path / "music")}, model)
    encoder.patience = 66
    with pytest.raises(KeyboardInterrupt):
        index.update(save_to=tmp_path / "a.index", progress=False, workers=1, batch_size=1)
    encoder.patience = 1000
    index = Index.load(tmp_path / "a.index", model)
    assert len(index) == 64
    assert len(index.update(progress=False).added) == 6 and len(index) == 70
    assert index.add([index.paths[0], index.paths[0]]).changed == ["00.wav"] and len(index) == 70


def test_files_gone_since_indexing_are_reported_and_skipped(model, music):
    index = build(model, music)
    first, second = index.recommend(index.paths[0], 2)
    Path(first.path).unlink()
    reported = []
    assert index.recommend(index.paths[0], 1, on_missing=reported.append) == [second]
    assert reported == [first.path]
    with pytest.warns(UserWarning, match="does not exist any more"):
        index.recommend(index.paths[0], 1)


def test_another_models_index_is_refused(model, music, tmp_path):
    build(model, music).save(tmp_path / "a.index")
    twin, other = make_model(0), make_model(1)
    assert fingerprint(twin) == fingerprint(model) != fingerprint(other)
    slower = make_model(0)
    slower.sample_rate = 8000
    assert fingerprint(slower) != fingerprint(model)
    assert len(Index.load(tmp_path / "a.index", twin)) == 9
    with pytest.raises(InputError, match="another model"):
        Index.load(tmp_path / "a.index", other)


def test_a_folder_without_usable_audio_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="holds no audio files"):
        build(model, tmp_path)
    (tmp_path / "a.wav").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"none of its 1 audio files.*a\.wav"):
        build(model, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        build(model, tmp_path / "none")


@pytest.mark.parametrize("damage", ["cut", "flip row", "flip name", "flip header", "empty", "other file", "newer"])
def test_a_damaged_index_is_refused_in_one_line(damage, tmp_path):
    path = tmp_path / "a.index"
    Index.from_embeddings(np.random.default_rng(0).standard_normal((50, 8)), [f"{i}" for i in range(50)]).save(path)
    data = bytearray(path.read_bytes())
    length = 8 + int.from_bytes(data[:8], "little")
    if damage == "cut":
        del data[-100:]
    elif damage == "flip row":
        data[length + 999] ^= 1
    elif damage == "flip name":
        data[-20] ^= 1
    elif damage == "flip header":
        data[length - 40] ^= 0xFF
    elif damage == "empty":
        data.clear()
    elif damage == "other file":
        data = bytearray(b"\x02\0\0\0\0\0\0\0{}")
    else:
        data = bytearray(data.replace(b'"version":"1"', b'"version":"9"'))
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.index: (the index is damaged|is not an index|has format 9)") as error:
        Index.load(path)
    assert "\n" not in str(error.value)


KILLED_WRITERS = """
import os, signal, sys, time, numpy as np
from ssl_audio.retrieval import Index
x = np.random.default_rng(1).standard_normal((60000, 64))
index = Index.from_embeddings(x, [f"{i}" for i in range(len(x))], search="exact")
for delay in (0.005, 0.02, 0.04, 0.08, 0.16):
    writer = os.fork()
    while not writer:
        index.save(sys.argv[1])
    time.sleep(delay)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    print(len(Index.load(sys.argv[1])))
"""


def test_after_a_kill_while_writing_the_index_still_opens(tmp_path):
    path = tmp_path / "a.index"
    Index.from_embeddings(np.eye(8), [f"{i}" for i in range(8)]).save(path)
    run = subprocess.run([sys.executable, "-c", KILLED_WRITERS, path], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == 5 and set(run.stdout.split()) <= {"8", "60000"}
    partial = tmp_path / ".partial-left.index"
    partial.write_bytes(b"half")
    os.utime(partial, (0, 0))
    Index.from_embeddings(np.eye(8), [f"{i}" for i in range(8)]).save(path)
    assert not partial.exists()  # a dead writer's leavings


def test_readers_that_open_and_ask_while_it_is_rewritten_see_a_whole_index(tmp_path):
    path = tmp_path / "a.index"
    rng = np.random.default_rng(0)
    Index.from_embeddings(rng.standard_normal((300, 16)), [f"{i}" for i in range(300)]).save(path)
    problems, done = [], threading.Event()

    def read():
        while not done.is_set():
            try:
                index = Index.load(path)
                time.sleep(0.002)  # the file changes under the open map
                assert len(index.recommend(0, 5)) == 5 and len(index) in (300, 200)
            except BaseException as error:
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(30):
            n = 300 - 100 * (turn % 2)
            Index.from_embeddings(rng.standard_normal((n, 16)), [f"{i}" for i in range(n)]).save(path)
    finally:  # else they would read for ever
        done.set()
    for reader in readers:
        reader.join()
    assert not problems


def test_the_commands_index_recommend_and_follow_the_folder(model, music, tmp_path, capsys, monkeypatch, write_tone):
    monkeypatch.chdir(tmp_path)
    save_model(model, "model")
    command = ["index", "music", "--output", "a.index"]
    assert main([*command, "--model", "model", "--window", "0.5", "--group", "top_folder"]) == 0
    assert "9 tracks (9 added); exact search" in capsys.readouterr().out

    song = "music/artist 0/album/song0.wav"
    assert main(["recommend", song, "--index", "a.index", "-n", "3", "--json", "--m3u", "list.m3u8"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    paths = [hit["path"] for hit in answer["recommendations"]]
    assert len(paths) == 3 and all(Path(path).is_file() for path in paths)
    assert {"artist 0"} == {Path(path).parts[-3] for path in paths[:2]}
    lines = Path("list.m3u8").read_text().splitlines()
    assert lines[0] == "#EXTM3U" and lines[2::2] == paths

    write_tone(Path("outside.wav"), seconds=2, frequency=710)
    assert main(["recommend", "outside.wav", "--index", "a.index", "-n", "50", "--per_artist", "1", "--mmr", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].endswith("artist 1")
    assert len(captured.out.splitlines()) == 4 and "only 3 recommendations, not 50" in captured.err

    os.remove(paths[0])
    assert main(["recommend", song, "--index", "a.index", "-n", "2"]) == 0
    assert f"skipped: {paths[0]} no longer exists" in capsys.readouterr().err
    assert main(command) == 0
    assert "8 tracks (1 removed)" in capsys.readouterr().out

    for arguments, words in [
        (["index", "model", "--output", "a.index"], "--moved"),
        ([*command, "--window", "2"], "--rebuild"),
        (["index", "music", "--output", "b.index"], "--model"),
        ([*command, "--device", "abacus"], "device 'abacus'"),
        (["recommend", "none.wav", "--index", "a.index"], "no such file"),
        (["recommend", song, "--index", "none.index"], "no such index"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and words in error and error.count("\n") == 1

    os.rename("music", "records")
    assert main(["index", "records", "--output", "a.index", "--moved"]) == 0
    assert "8 tracks (nothing changed)" in capsys.readouterr().out

    os.symlink("records", "link")
    assert main(["index", "link", "--output", "a.index"]) == 0
    assert "8 tracks (nothing changed)" in capsys.readouterr().out
    assert main(["recommend", "link/artist 1/album/song0.wav", "--index", "a.index", "-n", "8", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    paths = [os.path.realpath(hit["path"]) for hit in answer["recommendations"]]
    assert len(paths) == 7 and os.path.realpath("records/artist 1/album/song0.wav") not in paths

    os.rename("model", "elsewhere")  # the index keeps the new place
    assert main(["index", "records", "--output", "a.index", "--model", "elsewhere"]) == 0
    assert main(["index", "records", "--output", "a.index"]) == 0


def test_quality_by_folders_and_by_labels(model, music, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(model, "model")
    lines = [
        f"artist {artist}/album/song{song}.wav,{'low' if artist < 2 else 'high'}"
        for artist in range(3)
        for song in range(3)
    ]
    Path("genres.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    command = ["index", "music", "--output", "a.index", "--labels", "genres.csv"]
    assert main([*command, "--model", "model", "--window", "0.5"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"same artist\n  mean average precision +1\.000", out)
    assert re.search(r"same genre other artist\n(.*\n)+  queries +6\n  queries without match +3", out)
    Path("genres.csv").write_text("path,label\nartist 9/album/song1.wav,low\n")
    assert main(command) == 2
    assert "line 2: names artist 9/album/song1.wav, which is not in the index" in capsys.readouterr().err


def test_real_recordings_of_one_instrument_or_song_find_each_other(shared, tmp_path):
    """By mean and standard deviation of mel bands alone; a trained model should do better."""
    folder = shared / "data" / "music" / "vocal_mixtures"
    if not folder.is_dir():
        skip_without("music recordings")
    index = build(MelStatistics.model(), folder, window_seconds=3.0)
    hits = index.recommend(index.paths, 3)
    same = [hit.group == group for group, found in zip(index.groups, hits, strict=True) for hit in found]
    assert np.mean(same) > 0.6  # chance: 3 of 19, .16


class MelStatistics(torch.nn.Module):
    """Mean and standard deviation of each mel band: what any trained model has to beat."""

    dim, minimum_frames = 128, 2
    patience = 1000  # forward passes until somebody presses Ctrl-C

    def forward(self, features):
        self.patience -= 1
        if self.patience < 0:
            raise KeyboardInterrupt
        return torch.cat([features.mean(-1), features.std(-1)], 1)

    @classmethod
    def model(cls):
        return EmbeddingModel(LogMelSpectrogram(sample_rate=RATE, n_mels=64), cls(), sample_rate=RATE).eval()
