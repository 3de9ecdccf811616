import csv
import itertools
import shutil
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from ssl_audio.errors import InputError
from ssl_audio.evaluation import mean_normalized_rank
from ssl_audio.evaluation.metrics import error_curve
from ssl_audio.evaluation.recordings import Recordings, find_recordings
from ssl_audio.evaluation.scoring import all_pairs_curve, score_trials
from ssl_audio.evaluation.trials import all_pairs, check_decidable, check_files, generate_trials, read_trials
from ssl_audio.evaluation.verification import verify


def choir(people=6, songs=3, takes=2):
    """Recordings of a made-up choir: every singer sings every song twice; the odd ones are women."""
    rows = [(p, s, t) for p in range(people) for s in range(songs) for t in range(takes)]
    return Recordings(
        root="choir",
        files=[f"singer{p}/song{s}-{t}.wav" for p, s, t in rows],
        singers=[f"singer{p}" for p, _, _ in rows],
        recording=[f"singer{p}/song{s}" for p, s, _ in rows],
        columns={
            "song": [f"song{s}" for _, s, _ in rows],
            "take": [f"{p}-{s}-{t}" for p, s, t in rows],
            "gender": ["MF"[p % 2] for p, _, _ in rows],
        },
    )


def test_a_published_list_is_read_with_its_line_numbers(tmp_path):
    path = tmp_path / "speaker_pairs.txt"
    path.write_text(
        '1,female8/f8_a_4_8_4s.wav,female8/b.wav\n\n0,Alto-7/Alto-7#歌-0005_0_4_4s.wav,"female8/a, b.wav"\n'
    )
    trials = read_trials(path)
    assert trials.files == [
        "female8/f8_a_4_8_4s.wav",
        "female8/b.wav",
        "Alto-7/Alto-7#歌-0005_0_4_4s.wav",
        "female8/a, b.wav",
    ]
    assert trials.singers == ["female8", "female8", "Alto-7", "female8"]
    assert trials.labels.tolist() == [True, False] and trials.lines.tolist() == [1, 3]
    assert trials.pairs.tolist() == [[0, 1], [2, 3]]


def test_what_is_written_is_read_again(tmp_path):
    trials = generate_trials(choir(), 20, seed=3)
    trials.write(tmp_path / "list.txt")
    again = read_trials(tmp_path / "list.txt")
    assert again.text() == trials.text() and again.digest() == trials.digest()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1,a/x.wav", "expected label"),
        ("1,a/x.wav,a/y.wav,z", "expected label"),
        ("2,a/x.wav,a/y.wav", "label must be 1"),
        ("1,x.wav,a/y.wav", "expected singer/file"),
        ("1,a/x.wav,../../y.wav", "expected singer/file"),
        ("0,a/x.wav,a/x.wav", "contradicts"),
        ("0,a/x.wav,a/y.wav", "contradicts"),
        ("1,a/x.wav,b/y.wav", "contradicts"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, says):
    path = tmp_path / "list.txt"
    path.write_text(f"1,a/1.wav,a/2.wav\n{line}\n")
    with pytest.raises(InputError, match=f"line 2.*{says}"):
        read_trials(path)


def test_missing_and_broken_files_are_named_by_line(tmp_path, singers):
    (singers / "singer 0" / "broken.wav").write_text("this is no audio")
    path = tmp_path / "list.txt"
    path.write_text(
        "1,singer 0/song0.wav,singer 0/song1.wav\n"
        "1,singer 0/song0.wav,singer 0/gone.wav\n"
        "0,singer 1/song0.wav,singer 0/broken.wav\n"
        "0,singer 1/song0.wav,singer 0/gone.wav\n"
    )
    with pytest.raises(InputError) as error:
        check_files(read_trials(path), singers)
    message = str(error.value)
    assert "line 2, 4: singer 0/gone.wav does not exist" in message and "line 3: singer 0/broken.wav" in message
    assert "\n" not in message
    path.write_text("1,singer 0/song0.wav,singer 0/song1.wav\n")
    check_files(read_trials(path), singers)


def test_empty_and_missing_lists(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match="empty"):
        read_trials(tmp_path / "empty.txt")
    with pytest.raises(InputError, match="cannot read"):
        read_trials(tmp_path / "gone.txt")


def test_a_folder_with_its_table(tmp_path, singers):
    plain = find_recordings(singers)
    assert len(plain) == 20 and plain.singers[0] == "singer 0" and len(set(plain.recording)) == 20
    with pytest.raises(InputError, match="gender"):
        plain.known("gender")
    with open(singers.parent / "manifest.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "speaker", "gender", "utterance"])
        for i, name in enumerate(plain.files):
            table.writerow([f"{singers.name}/{name}", f"s:{plain.singers[i]}", "FM"[i % 2], f"u{i // 2}"])
    told = find_recordings(singers)
    assert told.singers[0] == "s:singer 0" and told.known("gender")[:2] == ["f", "m"]
    assert told.recording[0] == told.recording[1] != told.recording[2]


def test_of_several_columns_each_file_takes_the_first_that_is_filled(tmp_path, singers):
    names = find_recordings(singers).files
    with open(singers / "manifest.csv", "w", newline="") as file:  # of speech and singing in one table
        table = csv.writer(file)
        table.writerow(["path", "singer", "speaker", "utterance", "song"])
        for i, name in enumerate(names):
            sung = i % 2
            who = name.split("/")[0]
            table.writerow([name, who if sung else "", "" if sung else who, "" if sung else f"u{i}", "hymn" * sung])
    told = find_recordings(singers)
    assert told.singers == [name.split("/")[0] for name in names]
    songs = {
        singer: {told.recording[i] for i in range(1, 20, 2) if told.singers[i] == singer} for singer in told.singers
    }
    assert all(found == {f"{singer}/hymn"} for singer, found in songs.items())
    assert len(set(told.recording[::2])) == 10


def test_segments_of_one_file_are_one_recording(tmp_path, write_tone):
    for name in ("a/song_0_4_4s.wav", "a/song_4_8_4s.wav", "a/other_0_4_4s.wav", "b/song_0_4_4s.wav"):
        write_tone(tmp_path / name, seconds=0.1)
    recordings = find_recordings(tmp_path)
    assert len(set(recordings.recording)) == 3
    assert len(all_pairs(recordings)) == 5


@pytest.mark.parametrize("kind", ["balanced", "within-gender", "within-song", "cross-song"])
def test_generated_trials_keep_their_promise(kind):
    recordings = choir()
    trials = generate_trials(recordings, 60, seed=1, kind=kind)
    assert len(trials) == 60 if kind != "within-song" else len(trials) == 36  # 18 same-singer pairs exist
    assert trials.labels.sum() * 2 == len(trials)
    assert len({frozenset(p) for p in trials.pairs.tolist()}) == len(trials)
    song, gender = recordings.columns["song"], recordings.columns["gender"]
    for (a, b), label in zip(trials.pairs, trials.labels, strict=True):
        assert (recordings.singers[a] == recordings.singers[b]) == label
        if kind == "within-song":
            assert song[a] == song[b]
        elif label:
            assert recordings.recording[a] != recordings.recording[b]
        if kind == "cross-song":
            assert song[a] != song[b]
        if kind == "within-gender":
            assert gender[a] == gender[b]
    assert generate_trials(recordings, 60, seed=1, kind=kind).text() == trials.text()
    assert generate_trials(recordings, 60, seed=2, kind=kind).text() != trials.text()


def test_singers_with_many_files_do_not_dominate():
    big = Recordings("x", [f"a/{i}" for i in range(200)] + [f"{s}/{i}" for s in "bcd" for i in range(20)],
                     ["a"] * 200 + [s for s in "bcd" for _ in range(20)], [str(i) for i in range(260)])  # fmt: skip
    trials = generate_trials(big, 400, seed=0)
    same = Counter(big.singers[a] for a, _ in trials.pairs[trials.labels])
    assert max(same.values()) < 2 * min(same.values())


def test_impossible_kinds_are_refused():
    lonely = Recordings("x", ["a/1", "b/1"], ["a", "b"], ["r", "s"])
    with pytest.raises(InputError, match="same-singer"):
        generate_trials(lonely, 10, seed=0)
    with pytest.raises(InputError, match="song"):
        generate_trials(lonely, 10, seed=0, kind="within-song")
    with pytest.raises(InputError, match="choose one of balanced"):
        generate_trials(lonely, 10, seed=0, kind="odd")


def test_all_pairs_and_their_limit(monkeypatch):
    recordings = choir()
    trials = all_pairs(recordings)
    assert len(trials) == 36 * 35 // 2 - 6 * 3  # without the pairs of two takes of one recording
    for enumerated in (5_000_000, 0):  # both ways of choosing
        monkeypatch.setattr("ssl_audio.evaluation.trials._ENUMERATED", enumerated)
        some = all_pairs(recordings, limit=100, seed=1)
        assert len(some) == 100 and some.labels.sum() == 50
        assert len({frozenset(p) for p in some.pairs.tolist()}) == 100
        for (a, b), label in zip(some.pairs, some.labels, strict=True):
            assert (recordings.singers[a] == recordings.singers[b]) == label
            assert not label or recordings.recording[a] != recordings.recording[b]


def test_within_a_song_clips_of_one_recording_are_no_pair_whatever_they_were_cut_from(tmp_path, write_tone):
    lines = ["path,song,recording,source"]
    for singer, recording, cut in itertools.product("ab", (1, 2), (1, 2)):
        path = write_tone(tmp_path / singer / f"{recording}{cut}.wav", seconds=0.05)
        lines.append(f"{path.relative_to(tmp_path)},Lied,{singer}{recording},{singer}-{recording}-{cut}.flac")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    recordings = find_recordings(tmp_path)
    trials = generate_trials(recordings, 100, 0, "within-song")
    assert trials.labels.sum() == 8  # two singers, two clips of one recording with two of the other
    assert all(recordings.recording[a] != recordings.recording[b] for a, b in trials.pairs)


def test_scores_are_cosines():
    rng = np.random.default_rng(0)
    x, pairs = rng.standard_normal((50, 700)), rng.integers(0, 50, (999, 2))
    expected = [x[a] @ x[b] / np.linalg.norm(x[a]) / np.linalg.norm(x[b]) for a, b in pairs]
    assert np.allclose(score_trials(x, pairs), expected, atol=1e-5)
    with pytest.raises(InputError, match="recording -1"):
        score_trials(x, np.array([[0, 1], [0, -1]]))


def test_the_blockwise_curve_is_that_of_all_the_scores(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr("ssl_audio.evaluation.scoring._ROWS", 37)  # many blocks, the last ones ragged
    singers, recording = rng.integers(0, 8, 150), rng.integers(0, 60, 150)
    x = rng.standard_normal((8, 12))[singers] + rng.standard_normal((150, 12))
    a, b = np.triu_indices(150, 1)
    kept = (singers[a] != singers[b]) | (recording[a] != recording[b])
    pairs = np.stack([a, b], axis=1)[kept]
    exact = error_curve(singers[pairs[:, 0]] == singers[pairs[:, 1]], score_trials(x, pairs))
    binned = all_pairs_curve(x, singers, recording)
    assert binned.equal_error_rate()[0] == pytest.approx(exact.equal_error_rate()[0], abs=1e-4)
    assert binned.min_dcf()[0] == pytest.approx(exact.min_dcf()[0], abs=1e-3)
    assert binned.area_under_roc() == pytest.approx(exact.area_under_roc(), abs=1e-4)
    with pytest.raises(InputError, match="one class"):
        all_pairs_curve(x, np.zeros(150, int))


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_the_blockwise_curve_of_cosines_that_lie_close_together(spread):
    """As of a network before training: all cosines above 1 - spread^2."""
    rng = np.random.default_rng(0)
    singers = rng.integers(0, 8, 150)
    x = 1 + spread * (0.5 * rng.standard_normal((8, 12))[singers] + rng.standard_normal((150, 12)))
    a, b = np.triu_indices(150, 1)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    exact = error_curve(singers[a] == singers[b], -((unit[a] - unit[b]) ** 2).sum(1))
    binned = all_pairs_curve(x, singers)
    assert binned.equal_error_rate()[0] == pytest.approx(exact.equal_error_rate()[0], abs=0.01)
    assert binned.area_under_roc() == pytest.approx(exact.area_under_roc(), abs=0.01)


def test_a_recording_paired_with_itself_is_scored_and_not_ranked(tmp_path):
    """The published lists have such lines, and published error rates count them: their cosine is 1."""
    names = [f"{singer}/{number}.wav" for singer in "abc" for number in range(3)]
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(9, 3))
    pairs = [(a, b) for a, b in itertools.combinations_with_replacement(range(9), 2) if a != b or a in (0, 4)]
    lines = [f"{int(names[a][0] == names[b][0])},{names[a]},{names[b]}\n" for a, b in pairs]
    (tmp_path / "speaker_pairs.txt").write_text("".join(lines))
    trials = read_trials(tmp_path / "speaker_pairs.txt")
    assert len(trials) == 38 and "2 trials pair a recording with itself" in trials.note()
    rows = [names.index(name) for name in trials.files]
    result = verify(embeddings[rows], trials, resamples=100)

    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = np.array([unit[a] @ unit[b] for a, b in pairs])
    labels = [names[a][0] == names[b][0] for a, b in pairs]
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(result.scores, scores, atol=1e-6)
    assert result.eer == pytest.approx(brentq(lambda x: 1 - x - np.interp(x, false, true), 0, 1), abs=1e-6)
    ranked = [(a, b) for a, b in pairs if a != b and names[a][0] == names[b][0]]
    singers = [name[0] for name in names]
    assert result.n_ranks == 9 and result.mnr == pytest.approx(mean_normalized_rank(embeddings, singers, ranked))


def test_trials_of_one_recording_with_itself_decide_nothing(tmp_path):
    (tmp_path / "list.txt").write_text("1,a/1.wav,a/1.wav\n0,a/1.wav,b/1.wav\n")
    with pytest.raises(InputError, match="no same-singer trial"):
        check_decidable(read_trials(tmp_path / "list.txt"))


def test_copies_of_recordings_are_counted_and_said(tmp_path, write_tone, caplog):
    for n, name in enumerate(("a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav")):
        write_tone(tmp_path / name, seconds=0.1, seed=n)
    shutil.copy(tmp_path / "a/1.wav", tmp_path / "a/9.wav")
    shutil.copy(tmp_path / "a/2.wav", tmp_path / "b/9.wav")
    find_recordings(tmp_path)
    assert "2 of 6 files are copies of others, such as a/9.wav of a/1.wav" in caplog.text
