"""The speaker benchmark as others run it: forms of trial lists, conventions of metrics, kinds of scores.

The numbers are of the definitions in WeSpeaker, sslsv and voxceleb_trainer, computed by hand.
"""

import json

import numpy as np
import pytest
import torch
from helpers import tiny_frontend, tiny_model, tone, write_voices

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import Scorer
from ssl_audio.evaluation.metrics import error_curve
from ssl_audio.evaluation.normalization import normalize_scores, reduce_cohort
from ssl_audio.evaluation.recordings import find_recordings, singer_of
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.evaluation.trials import read_trials
from ssl_audio.hub.saved import save_model

PAIR = np.array([[0, 1]])
A, B, C = "id10270/x6uYqmx31kE/00001", "id10270/8jEAjG6SegY/00008", "id10300/-cfFS4FGTBc/00001"


def test_metrics_by_each_convention():
    labels = [1] * 4 + [0] * 6
    curve = error_curve(labels, [0.9, 0.8, 0.4, 0.3, 0.7, 0.35, 0.2, 0.1, 0.05, 0.0])
    assert curve.equal_error_rate()[0] == pytest.approx(0.25)
    assert curve.closest_error_rate() == pytest.approx(1 / 3)
    costs = [curve.min_dcf(p)[0] for p in (0.01, 0.05, 0.5)]
    assert costs == pytest.approx([0.5, 0.5, 1 / 3])


def rows_with_cohort_scores(score, *scores):
    """Two unit vectors with this cosine, and a cohort to which they have these cosines."""
    pair = np.linalg.cholesky(np.array([[1, score], [score, 1]]))  # (2, 2), in the first two dimensions
    inside = np.linalg.solve(pair, np.array(scores)).T
    rest = np.diag(np.sqrt(1 - (inside**2).sum(axis=1)))
    return np.hstack([pair, np.zeros((2, len(rest)))]), np.hstack([inside, rest])


@pytest.mark.parametrize(("top", "unbiased", "expected"), [(2, False, 3.5), (2, True, 2.474874), (4, False, 2.535973)])
def test_as_norm_with_either_deviation(top, unbiased, expected):
    sides, cohort = rows_with_cohort_scores(0.5, [0.1, 0.3, 0.2, 0.0], [0.2, 0.4, -0.1, 0.1])
    assert score_trials(sides, PAIR)[0] == pytest.approx(0.5)
    found = normalize_scores(sides, PAIR, cohort, "as", top=top, unbiased=unbiased)
    assert found[0] == pytest.approx(expected, abs=1e-4)


def test_the_mean_over_pairs_of_crops_is_not_the_cosine_of_the_mean():
    crops = np.array([[[1, 0], [0.6, 0.8]], [[0.8, 0.6], [0, 1]]])
    means = crops.mean(axis=1)
    assert Scorer(cosine=False)(means, PAIR)[0] == pytest.approx(0.64)
    assert Scorer()(means, PAIR)[0] == pytest.approx(0.8)


def test_mean_subtraction():
    pair = np.array([[3.0, 1.0], [1.0, 3.0]])
    assert score_trials(pair, PAIR)[0] == pytest.approx(0.6)
    assert score_trials(pair - np.array([2.0, 2.0]), PAIR)[0] == pytest.approx(-1)


def test_a_cohort_of_speakers_or_clusters():
    rng = np.random.default_rng(0)
    voices = 5 * np.eye(3, 8)
    table = (voices[[0, 0, 1, 1, 1, 2]] + 0.1 * rng.standard_normal((6, 8))).astype(np.float32)
    names = ["x", "x", "y", "y", "y", "z"]
    by_hand = np.stack([table[:2].mean(axis=0), table[2:5].mean(axis=0), table[5]])
    np.testing.assert_allclose(reduce_cohort(table, "singer", names), by_hand, rtol=1e-5)
    clusters = reduce_cohort(table, "clusters:3", names)
    np.testing.assert_allclose(sorted(clusters.tolist()), sorted(by_hand.tolist()), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reduce_cohort(table, "file", names), table)
    for wrong in ("clusters:1", "clusters:7", "speaker"):
        with pytest.raises(InputError, match=wrong):
            reduce_cohort(table, wrong, names)


def test_crops_are_evenly_placed_and_short_files_repeated():
    model, clip = tiny_model(), torch.from_numpy(tone(3.0))[None]
    clip = clip / clip.abs().max()
    parts = [clip[:, start : start + 16000] for start in (0, 16000, 32000)]
    with torch.no_grad():
        expected = torch.stack([torch.nn.functional.normalize(model(part)) for part in parts]).mean(dim=0)
        torch.testing.assert_close(EvalProtocol(model, crops=(3, 1.0))(clip), expected)
        short = clip[:, :5000]
        repeated = torch.nn.functional.normalize(model(torch.cat([short] * 4, dim=1)[:, :16000]))
        close = EvalProtocol(model, crops=(2, 1.0))(short / short.abs().max())
        torch.testing.assert_close(torch.nn.functional.normalize(close), repeated, atol=2e-3, rtol=1e-2)


def tree(root, *names, suffix=".wav"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write((root / name).with_suffix(suffix), tone(0.1), 16000)


@pytest.mark.parametrize(
    "line",
    [
        "{a}.wav {b}.wav {c}.wav",
        "{a} {b} {c}",
        "{a}.flac\t{b}.flac\t{c}.flac",
        "{a}.wav,{b}.wav,{c}.wav",
        "kaldi",
        "{a}.m4a {b}.m4a {c}.m4a",
    ],
)
@pytest.mark.parametrize("layout", [["", "", ""], ["wav/"] * 3, ["dev/wav/", "dev/wav/", "test/wav/"]])
def test_lists_find_their_files_in_every_layout(tmp_path, line, layout):
    places = [folder + name for folder, name in zip(layout, (A, B, C), strict=True)]
    tree(tmp_path / "vox", *places)
    if line == "kaldi":
        a, b, c = (name.replace("/", "-") for name in (A, B, C))
        text = f"{a} {b} target\n{a} {c} nontarget\n"
    else:
        a, b, c = line.format(a=A, b=B, c=C).replace("\t", " ").replace(",", " ").split()
        blank = "\t" if "\t" in line else "," if "," in line else " "
        text = f"1{blank}{a}{blank}{b}\n0{blank}{a}{blank}{c}\n"
    (tmp_path / "list.txt").write_text(text)
    trials = read_trials(tmp_path / "list.txt", tmp_path / "vox")
    assert trials.files == [f"{place}.wav" for place in places]
    assert trials.singers == ["id10270", "id10270", "id10300"] and trials.labels.tolist() == [True, False]
    trials.write(tmp_path / "again.txt")
    assert read_trials(tmp_path / "again.txt").digest() == trials.digest()


def test_a_list_of_cn_celeb(tmp_path):
    names = ["enroll/id00800-enroll", "test/id00800-singing-01-001", "test/id00801-singing-01-001"]
    tree(tmp_path / "CN-Celeb", *(f"eval/{name}" for name in names))
    lines = ["id00800-enroll test/id00800-singing-01-001.wav 1", "id00800-enroll test/id00801-singing-01-001.wav 0"]
    (tmp_path / "trials.lst").write_text("\n".join(lines))
    for root in (tmp_path / "CN-Celeb", tmp_path / "CN-Celeb" / "eval"):
        trials = read_trials(tmp_path / "trials.lst", root)
        assert trials.singers == ["id00800", "id00800", "id00801"]
        assert all((root / name).is_file() for name in trials.files)


def test_names_that_mean_two_files_or_none_are_told(tmp_path):
    tree(tmp_path / "vox", f"dev/wav/{A}", f"test/wav/{A}", B)
    (tmp_path / "list.txt").write_text(f"1 {A}.wav {B}.wav\n")
    with pytest.raises(InputError, match=r"line 1: .* means dev/wav/.* and test/wav/"):
        read_trials(tmp_path / "list.txt", tmp_path / "vox")
    (tmp_path / "list.txt").write_text("id10270-gone-00001 id10270-gone-00002 target\n")
    with pytest.raises(InputError, match="line 1: expected singer/file below the data set, or a file's id"):
        read_trials(tmp_path / "list.txt", tmp_path / "vox")
    (tmp_path / "list.txt").write_text(f"same {A}.wav {B}.wav\n")
    with pytest.raises(InputError, match="the label must be 1"):
        read_trials(tmp_path / "list.txt", tmp_path / "vox")


def test_speakers_and_recordings_of_the_known_trees(tmp_path):
    assert singer_of("test/song.wav") == "test" and singer_of("wav/low-1/a.wav") == "wav"
    tree(tmp_path / "vox", f"wav/{A}", f"wav/{A[:-1]}2", f"wav/{B}")
    found = find_recordings(tmp_path / "vox")
    assert set(found.singers) == {"id10270"}
    assert len(set(found.recording)) == 2  # two clips of one video are one recording
    tree(tmp_path / "cn", "id00000/singing-01-001", "id00000/singing-01-002", "id00000/live_broadcast-02-001")
    assert len(set(find_recordings(tmp_path / "cn").recording)) == 2


def spread_model():
    """A model whose embeddings point in different directions, so that rounding does not decide an order of scores."""
    model = tiny_model(8, frontend=tiny_frontend(normalize="none"))
    mel = torch.stack([model.encoder(model.frontend(torch.from_numpy(tone(0.4, frequency=f))[None]))[0]
                       for f in (120.0, 200.0, 300.0, 500.0)])  # fmt: skip
    with torch.no_grad():
        list(model.encoder.parameters())[-1].sub_(mel.mean(dim=0))
    return model


def test_the_options_reach_the_scores(tmp_path):
    write_voices(tmp_path / "tested", people=4, files=3, seconds=0.4)
    write_voices(tmp_path / "others", people=4, files=3, seconds=0.4, seed=1)
    save_model(spread_model(), tmp_path / "one")
    given = ["evaluate", "--model", tmp_path / "one", "--data", tmp_path / "tested", "--resamples", 100]
    given += ["--no_baselines", "--probe", "none", "--cache", tmp_path / "cache"]
    cases = {
        "centred": ["--center", tmp_path / "others"],
        "speakers": ["--normalize_scores", "as", "--cohort", tmp_path / "others", "--cohort_by", "singer",
                     "--cohort_top", 3, "--cohort_deviation", "unbiased", "--center", tmp_path / "others"],
        "crops": ["--crops", 2, "--crop_seconds", 0.3],
    }  # fmt: skip
    found = {}
    for name, more in cases.items():
        assert main([*map(str, [*given, *more]), "--output", str(tmp_path / name)]) == 0
        content = json.loads((tmp_path / name / "metrics.json").read_text())
        found[name] = content["models"]["one"]["tested"]
        assert {"eer", "eer_closest", "min_dcf", "min_dcf_05"} <= set(content["conventions"]) & set(found[name])
    model = EvalProtocol(spread_model())
    tested, others = (find_recordings(tmp_path / folder) for folder in ("tested", "others"))
    x, y = (embed_recordings(model, recordings.paths(), progress=None) for recordings in (tested, others))
    first, second = np.triu_indices(len(x), 1)
    pairs = np.stack([first, second], axis=1)
    labels = np.array(tested.singers)[first] == np.array(tested.singers)[second]
    scores = {
        "centred": score_trials(x - y.mean(axis=0), pairs),
        "speakers": normalize_scores(x - y.mean(axis=0), pairs,
                                     reduce_cohort(y - y.mean(axis=0), "singer", others.singers), top=3, unbiased=True),
        "crops": score_trials(embed_recordings(EvalProtocol(spread_model(), crops=(2, 0.3)), tested.paths(),
                                               progress=None), pairs, cosine=False),
    }  # fmt: skip
    for name, values in scores.items():
        assert found[name]["eer"] == pytest.approx(error_curve(labels, values).equal_error_rate()[0], abs=1e-6), name
    assert found["crops"]["score"] == "cosine of crops" and "4 means" in found["speakers"]["cohort"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--crops", "0"], "--crops"),
        (["--crops", "3", "--center", "tested"], "leave --crops or --center out"),
        (["--cohort_by", "speaker"], "--cohort_by speaker"),
        (["--cohort_top", "1"], "--cohort_top"),
    ],
)
def test_wrong_options_are_refused(tmp_path, capsys, monkeypatch, more, says):
    write_voices(tmp_path / "tested", people=2, files=2, seconds=0.2)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--model", "none", "--data", "tested", "--output", "r", *more]) == 2
    assert says in capsys.readouterr().err
