import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_audio.errors import InputError
from ssl_audio.evaluation.classification import ClassificationMetrics
from ssl_audio.evaluation.labels import folder_labels, read_labels
from ssl_audio.evaluation.probes import ProbeSettings, probe, singer_probe
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.splits import group_folds


def clusters(n=300, classes=4, dim=10, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(classes), rng.integers(0, classes, n - classes)]
    return (2 * rng.standard_normal((classes, dim))[y] + noise * rng.standard_normal((n, dim))).astype(np.float32), y


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_every_figure_is_scikit_learns(seed, classes, multi_label):
    rng = np.random.default_rng(seed)
    n = 60
    scores = np.round(rng.random((n, classes)), 1)  # ties
    weights = rng.integers(0, 3, n).astype(float)
    weights[: 2 * classes] = 1
    if multi_label:
        y = rng.random((n, classes)) < 0.4
        y[0], y[1] = True, False
        truth, decided = y, scores > 0.5
    else:
        y = np.r_[np.arange(classes), np.arange(classes), rng.integers(0, classes, n - 2 * classes)]
        truth, decided = np.eye(classes, dtype=bool)[y], np.eye(classes, dtype=bool)[scores.argmax(1)]
    summary, values = ClassificationMetrics(y, scores, [str(c) for c in range(classes)]).compute(weights)
    for c in range(classes):
        one = truth[:, c], decided[:, c]
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            *one, sample_weight=weights, average="binary", zero_division=0
        )
        assert (values["precision"][c], values["recall"][c], values["f1"][c]) == pytest.approx((precision, recall, f1))
        area = sk.roc_auc_score(truth[:, c], scores[:, c], sample_weight=weights)
        assert values["roc_auc"][c] == pytest.approx(area)
        average = sk.average_precision_score(truth[:, c], scores[:, c], sample_weight=weights)
        assert values["average_precision"][c] == pytest.approx(average)
    assert summary["f1"] == pytest.approx(values["f1"].mean())
    if not multi_label:
        accuracy = sk.accuracy_score(y, scores.argmax(1), sample_weight=weights)
        balanced = sk.balanced_accuracy_score(y, scores.argmax(1), sample_weight=weights)
        assert (summary["accuracy"], summary["balanced_accuracy"]) == pytest.approx((accuracy, balanced))


def test_classes_that_cannot_be_judged_are_named_and_left_out():
    y = np.array([0, 0, 1, 1, 2, 2])
    scores = np.eye(5)[y]
    trained = np.array([True, True, False, True, True])
    result = ClassificationMetrics(y, scores, list("abcde"), trained).bootstrap(resamples=10)
    assert result.left_out == {
        "c": "no positives in the training set",
        "d": "no positives in the test set",
        "e": "no positives in the test set",
    }
    assert set(result.per_class) == {"a", "b"} and result.summary["roc_auc"] == 1
    with pytest.raises(InputError, match="no class can be evaluated"):
        ClassificationMetrics(np.zeros((3, 1), bool), np.zeros((3, 1)), ["quiet"])


def test_the_linear_probe_is_regularised_logistic_regression():
    x, y = clusters(noise=3.0)
    split = np.array(["train"] * 150 + ["valid"] * 50 + ["test"] * 100)
    result = probe(x, y, settings=ProbeSettings(resamples=0), folds=split)
    (strength,) = result.chosen
    scaler = StandardScaler().fit(x[:200])
    reference = LogisticRegression(C=1 / (200 * strength), max_iter=2000, tol=1e-8)
    reference.fit(scaler.transform(x[:200]), y[:200])
    assert np.allclose(result.scores, reference.predict_proba(scaler.transform(x[200:])), atol=5e-3)
    assert result.metrics.summary["accuracy"] == pytest.approx(reference.score(scaler.transform(x[200:]), y[200:]))


def test_regularisation_never_sees_the_test_items():
    x, y = clusters(noise=3.0)
    split = np.array(["train"] * 150 + ["valid"] * 50 + ["test"] * 100)
    honest = probe(x, y, settings=ProbeSettings(resamples=0), folds=split)
    x[200:] = np.random.default_rng(9).standard_normal((100, 10))
    y[200:] = np.random.default_rng(9).integers(0, 4, 100)
    spoiled = probe(x, y, settings=ProbeSettings(resamples=0), folds=split)
    assert spoiled.chosen == honest.chosen and spoiled.metrics.summary["accuracy"] < 0.5


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_given_folds_are_each_tested_once(kind):
    x, y = clusters(noise=0.3)
    folds = np.arange(300) % 5 + 1
    result = probe(x, y, list("abcd"), ProbeSettings(kind=kind, resamples=20), folds=folds)
    assert result.n_test == 300 and len(result.chosen) == 5
    assert result.metrics.summary["accuracy"] > 0.95
    low, high = result.metrics.intervals["accuracy"]
    assert low <= result.metrics.summary["accuracy"] <= high
    assert result.metrics.confusion.sum() == 300 and result.n_train == 240


def test_labels_that_mean_nothing_are_not_learned():
    x, _ = clusters()
    y = np.random.default_rng(3).integers(0, 4, 300)
    for kind in ("linear", "knn"):
        assert probe(x, y, settings=ProbeSettings(kind=kind, resamples=0)).metrics.summary["accuracy"] < 0.4


def test_several_labels_an_item():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 8)).astype(np.float32)
    y = x[:, :3] + 0.3 * rng.standard_normal((400, 3)) > 0.5
    y = np.hstack([y, np.zeros((400, 1), bool)])
    result = probe(x, y, ["rock", "loud", "slow", "never"], ProbeSettings(resamples=10))
    assert result.metrics.summary["roc_auc"] > 0.95 and result.metrics.confusion is None
    assert result.metrics.left_out == {"never": "no positives in the test set"}
    assert probe(x, y, settings=ProbeSettings(kind="knn", resamples=0)).metrics.summary["average_precision"] > 0.7


def test_validation_files_that_can_choose_nothing_are_said_to_be_so():
    """One file of several labels: of no class is there an example and a counterexample. It is no fault of the test."""
    targets = np.random.default_rng(0).random((12, 3)) < 0.5
    folds = ["train"] * 7 + ["valid"] + ["test"] * 4
    with pytest.raises(InputError, match="no class occurs in some validation files and not in others"):
        probe(np.random.default_rng(1).normal(size=(12, 4)), targets, settings=ProbeSettings(resamples=5), folds=folds)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "test", "unused"], "also holds 'unused'"),
        (["train", "test", ""], "also holds ''"),
        (["1", "2", "test"], "also holds '1', '2'"),
        (["train", "valid", "valid"], "has no items marked test"),
        (["test", "test", "valid"], "has no items marked train"),
    ],
)
def test_a_split_in_words_is_never_taken_for_folds_that_train_on_the_test(words, says):
    x, y = clusters()
    with pytest.raises(InputError, match=says):
        probe(x, y, settings=ProbeSettings(resamples=0), folds=np.resize(words, len(y)))


def test_other_spellings_of_the_parts_are_the_same_split():
    x, y = clusters(noise=3.0)
    split = np.array(["train"] * 150 + ["valid"] * 50 + ["test"] * 100)
    spelled = np.array(["Training"] * 150 + ["val "] * 50 + ["TESTING"] * 100)
    one, other = (probe(x, y, settings=ProbeSettings(resamples=0), folds=folds) for folds in (split, spelled))
    assert one.n_test == other.n_test == 100 and np.array_equal(one.scores, other.scores)


def test_groups_stay_whole_in_folds_and_classes_are_spread():
    groups = np.repeat(np.arange(40), 5)
    y = groups % 4
    folds = group_folds(y, groups, 5, seed=0)
    assert all(len(set(folds[groups == g])) == 1 for g in range(40))
    for fold in range(5):
        assert np.bincount(y[folds == fold], minlength=4).tolist() == [10, 10, 10, 10]
    assert not np.array_equal(folds, group_folds(y, groups, 5, seed=1))


def test_fractions_of_the_labels_are_drawn_from_the_seed():
    x, y = clusters(n=600, noise=2.0)
    split = np.array(["train"] * 400 + ["test"] * 200)
    sizes = {
        f: probe(x, y, settings=ProbeSettings(label_fraction=f, seed=1, resamples=0), folds=split)
        for f in (0.01, 0.1, 1.0)
    }
    assert [round(r.n_train) for r in sizes.values()] == pytest.approx([4, 40, 400], abs=3)
    assert sizes[0.01].metrics.summary["accuracy"] < sizes[1.0].metrics.summary["accuracy"]
    again = probe(x, y, settings=ProbeSettings(label_fraction=0.01, seed=1, resamples=0), folds=split)
    assert np.array_equal(again.scores, sizes[0.01].scores)
    other = probe(x, y, settings=ProbeSettings(label_fraction=0.01, seed=2, resamples=0), folds=split)
    assert not np.array_equal(other.scores, sizes[0.01].scores)


def choir(x, recording, singers):
    return Recordings("choir", [str(i) for i in range(len(x))], singers, recording)


def test_singer_identification_cannot_use_the_room_of_a_recording():
    """Embeddings that tell the recording and nothing of the singer: a leak would make this perfect."""
    rng = np.random.default_rng(0)
    recording = np.repeat(np.arange(40), 6)
    x = (10 * rng.standard_normal((40, 30)))[recording] + 0.1 * rng.standard_normal((240, 30))
    singers = [f"s{r % 5}" for r in recording]
    data = choir(x, [f"r{r}" for r in recording], singers)
    for kind in ("linear", "knn"):
        assert singer_probe(x, data, ProbeSettings(kind, resamples=0)).metrics.summary["accuracy"] < 0.45


def test_singers_are_identified_and_those_with_one_recording_left_out():
    x, y = clusters(n=200, classes=5, noise=0.2)
    singers = [f"s{c}" for c in y]
    recording = [f"{s}-{i % 3 if s != 's4' else 0}" for i, s in enumerate(singers)]
    result = singer_probe(x, choir(x, recording, singers), ProbeSettings(resamples=20))
    assert result.metrics.summary["accuracy"] == 1 and result.classes == ["s0", "s1", "s2", "s3"]
    assert "1 singers with one recording left out" in result.notes
    assert set(y[result.tested]) == {0, 1, 2, 3}
    with pytest.raises(InputError, match="two recordings"):
        singer_probe(x, choir(x, [f"{s}" for s in singers], singers))


@pytest.mark.parametrize(
    ("change", "says"),
    [({"groups": [1]}, "groups"), ({"folds": np.zeros(300)}, "one fold"), ({"folds": ["test"] * 300}, "marked"),
     ({"classes": ["x"]}, "names")],
)  # fmt: skip
def test_impossible_probes_are_refused(change, says):
    x, y = clusters()
    with pytest.raises(InputError, match=says):
        probe(x, y, **change)
    x[3, 1] = np.nan
    with pytest.raises(InputError, match="1 of 300"):
        probe(x, y)


@pytest.mark.parametrize(("setting", "says"), [({"kind": "forest"}, "unknown"), ({"label_fraction": 0}, "fraction")])
def test_impossible_settings_of_a_probe_are_refused(setting, says):
    with pytest.raises(InputError, match=says):
        ProbeSettings(**setting)


@pytest.mark.parametrize("several", [False, True])
def test_a_split_that_can_show_nothing_is_refused_before_anything_is_learned(several):
    y = np.repeat([0, 1, 2, 3], 5)  # speakers, of whom some are in training and others in test
    targets = y[:, None] == np.arange(4) if several else y
    features = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(InputError, match="no class of the test items has training items"):
        probe(features, targets, settings=ProbeSettings(resamples=0), folds=np.where(y < 2, "train", "test"))
    with pytest.raises(InputError, match="has no items marked test"):
        probe(features, targets, settings=ProbeSettings(resamples=0), folds=np.where(y < 2, "train", "valid"))


def test_tables_and_folders_of_labels(tmp_path, write_tone):
    (tmp_path / "t.csv").write_text(
        "path,genre,tags,rock,loud,fold,artist\na.wav,pop,x|y,1,0,1,A\nb.wav,jazz,,0,1,2,B\n"
    )
    single = read_labels(tmp_path / "t.csv", "genre", fold="fold", group="artist")
    assert single.classes == ["jazz", "pop"] and single.targets.tolist() == [1, 0]
    assert single.folds == ["1", "2"] and single.groups == ["A", "B"] and single.paths[0] == tmp_path / "a.wav"
    assert read_labels(tmp_path / "t.csv", "tags", separator="|").targets.tolist() == [[True, True], [False, False]]
    assert read_labels(tmp_path / "t.csv", ["rock", "loud"]).targets.tolist() == [[True, False], [False, True]]
    with pytest.raises(InputError, match="no column mood"):
        read_labels(tmp_path / "t.csv", "mood")
    with pytest.raises(InputError, match="row 3 has no tags"):
        read_labels(tmp_path / "t.csv", "tags")
    with pytest.raises(InputError, match="0 or 1"):
        read_labels(tmp_path / "t.csv", ["rock", "genre"])
    for name in ("dog/1.wav", "rain/a/2.wav"):
        write_tone(tmp_path / "sounds" / name, seconds=0.05)
    assert folder_labels(tmp_path / "sounds").targets.tolist() == [0, 1]
    with pytest.raises(InputError, match="two class folders"):
        folder_labels(tmp_path / "sounds" / "rain")


def test_environmental_sounds_by_their_official_folds(shared):
    from ssl_audio.baselines import mfcc_statistics
    from ssl_audio.embedding.recordings import embed_recordings

    table = shared / "data" / "esc" / "esc10.csv"
    data = read_labels(table, "category", file="filename", fold="fold", group="src_file")
    kept = [i for i in range(len(data.paths)) if i % 2 == 0]  # a hundred sounds are enough
    x = embed_recordings(mfcc_statistics(), [data.paths[i] for i in kept], progress=None)
    result = probe(
        x, data.targets[kept], data.classes, ProbeSettings(resamples=20), folds=[data.folds[i] for i in kept]
    )
    assert result.metrics.summary["accuracy"] > 0.5  # ten classes; published MFCC baselines reach about .7 of all 400


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (np.array([0, 1, -1, 1]), "class numbers from 0, got int64 such as .*-1"),
        (np.array([0.0, 0.5, 1.0, 0.0]), "class numbers from 0, got float64"),
        (np.array(["a", "b", "a", "b"]), "class numbers from 0"),
        (np.zeros(0, dtype=int), "there are no items"),
    ],
)
def test_targets_that_are_no_classes_are_refused(targets, says):
    with pytest.raises(InputError, match=says):
        probe(np.ones((len(targets), 3)), targets)


def test_an_item_of_no_fold_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,genre,fold\na.wav,rock,1\nb.wav,folk,2\nc.wav,rock,\n")
    with pytest.raises(InputError, match="row 4 has no fold"):
        read_labels(tmp_path / "t.csv", "genre", fold="fold")


def test_a_file_listed_twice_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,genre\na.wav,rock\nb.wav,folk\na.wav,rock\n")
    with pytest.raises(InputError, match=r"lists a.wav twice, so that it could be in training and in test"):
        read_labels(tmp_path / "t.csv", "genre")


def test_a_difference_is_paired_over_the_groups_that_both_were_tested_on():
    rng = np.random.default_rng(0)
    y, groups = np.repeat(np.arange(4), 100), np.arange(400) // 5
    right = rng.random(80)[groups] < 0.7  # whole recordings are easy or hard, for both alike
    better = right | (rng.random(400) < 0.2)

    def judged(hits, **how):
        guess = np.where(hits, y, (y + 1) % 4)
        return ClassificationMetrics(y, np.eye(4)[guess], list("abcd")).bootstrap(groups, **{"resamples": 400, **how})

    a, b = judged(better), judged(right)
    value, (low, high) = a.difference(b, "accuracy")
    assert value == pytest.approx(better.mean() - right.mean()) and 0 < low < value < high
    assert a.intervals["accuracy"][0] < b.intervals["accuracy"][1]  # apart only as a pair
    assert a.difference(a, "accuracy") == (0.0, (0.0, 0.0))
    with pytest.raises(InputError, match="the same resamples for both models, got 400 and 10"):
        a.difference(judged(right, resamples=10), "accuracy")


@pytest.mark.parametrize("kind", ["linear", "knn"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_class_that_is_tested_only_where_it_was_not_trained_is_left_out_and_named(kind, multi_label):
    rng = np.random.default_rng(0)
    y = np.array([0] * 20 + [1] * 20 + [2] * 3)
    x = 10 * np.eye(3)[y] + 0.1 * rng.normal(size=(43, 3))
    groups = [str(i) for i in range(40)] + ["lonely"] * 3
    targets = np.eye(3, dtype=bool)[y] if multi_label else y
    found = probe(x, targets, ["a", "b", "c"], ProbeSettings(kind, resamples=0), groups=groups).metrics
    assert found.left_out == {"c": "no positives in the training set"}
    if not multi_label:
        assert found.summary["balanced_accuracy"] == 1
