import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_audio.errors import InputError
from ssl_audio.evaluation.calibration import cllr, fit_calibration, min_cllr
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.normalization import normalize_scores
from ssl_audio.evaluation.scoring import score_trials


def gaussian_trials(seed=0, n=4000, shift=2.0):
    """Scores of two unit Gaussians `shift` apart: the true log-likelihood ratio is shift * score - shift^2 / 2."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    return labels, rng.standard_normal(n) + shift * labels


def test_the_true_ratio_of_two_gaussians_is_found():
    labels, scores = gaussian_trials(n=200_000)
    line = fit_calibration(labels, 10 * scores + 3)
    assert line.scale == pytest.approx(0.2, rel=0.03)
    assert line(10 * np.array([1.0]) + 3)[0] == pytest.approx(0.0, abs=0.03)


def test_the_fit_equals_scikit_learns():
    labels, scores = gaussian_trials()
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * len(labels)
    reference = LogisticRegression(C=1e9, tol=1e-10).fit(scores[:, None], labels, sample_weight=weights)
    line = fit_calibration(labels, scores)
    assert (line.scale, line.offset) == pytest.approx((reference.coef_[0, 0], reference.intercept_[0]), rel=1e-3)


def test_cllr_of_known_cases():
    labels = np.array([1, 1, 0, 0])
    assert cllr(labels, [1e-9, 0, 0, 0]) == pytest.approx(1)
    assert cllr(labels, [50.0, 50, -50, -50]) == pytest.approx(0, abs=1e-12)
    assert cllr(labels, [-3.0, -3, 3, 3]) > 4
    value = cllr(labels, [2.0, -1, 0.5, -3])
    odds = (np.log2(1 + np.exp([-2.0, 1])).mean() + np.log2(1 + np.exp([0.5, -3])).mean()) / 2
    assert value == pytest.approx(odds)


def test_calibration_lowers_cllr_to_nearly_its_minimum():
    labels, scores = gaussian_trials(1)
    fitted = fit_calibration(*gaussian_trials(2))(scores)
    lowest = min_cllr(labels, scores)
    assert lowest <= cllr(labels, fitted) < min(lowest + 0.02, cllr(labels, scores))
    assert min_cllr(labels, 5 * scores - 9) == pytest.approx(lowest)


@pytest.mark.parametrize("sign", [1, -1])
def test_classes_that_only_touch_cannot_be_calibrated(sign):
    with pytest.raises(InputError, match="do not overlap"):
        fit_calibration([0, 0, 1, 1], sign * np.array([1.0, 2.0, 2.0, 4.0]))


def test_separable_scores_cannot_be_calibrated():
    with pytest.raises(InputError, match="do not overlap"):
        fit_calibration([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])


def two_rooms(rng, n_people, clips, dim=20):
    """Half of the singers were recorded in a room that makes all their clips alike, whoever sings."""
    who = np.repeat(np.arange(n_people), clips)
    room = 3 * (np.arange(n_people) % 2)[who, None] * np.ones(dim)
    return rng.standard_normal((n_people, dim))[who] + room + 0.7 * rng.standard_normal((len(who), dim)), who


@pytest.mark.parametrize("kind", ["z", "s", "as"])
def test_normalisation_equals_its_definition(kind):
    rng = np.random.default_rng(0)
    x, cohort, pairs = rng.standard_normal((9, 5)), rng.standard_normal((40, 5)), rng.integers(0, 9, (30, 2))
    unit, others = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, cohort))

    def standardised(score, side):
        against = np.sort(unit[side] @ others.T)[-10:] if kind == "as" else unit[side] @ others.T
        return (score - against.mean()) / against.std()

    for (a, b), got in zip(pairs, normalize_scores(x, pairs, cohort, kind, top=10), strict=True):
        score = unit[a] @ unit[b]
        sides = [standardised(score, a), standardised(score, b)]
        assert got == pytest.approx(sides[0] if kind == "z" else np.mean(sides), abs=1e-4)


def test_adaptive_normalisation_helps_where_a_room_makes_everybody_alike():
    rng = np.random.default_rng(1)
    x, who = two_rooms(rng, 30, 6)
    a, b = np.triu_indices(len(x), 1)
    labels, pairs = who[a] == who[b], np.stack([a, b], axis=1)
    cohort, _ = two_rooms(rng, 60, 3)
    raw = equal_error_rate(labels, score_trials(x, pairs))[0]
    assert equal_error_rate(labels, normalize_scores(x, pairs, cohort, "as", top=60))[0] < 0.7 * raw


@pytest.mark.parametrize(
    ("kind", "cohort", "says"),
    [("t", np.eye(3), "choose one of z"), ("s", np.ones((1, 3)), "two cohort"), ("s", np.ones((5, 3)), "vary"),
     ("s", np.eye(4), "dimensions")],
)  # fmt: skip
def test_useless_cohorts_are_refused(kind, cohort, says):
    with pytest.raises(InputError, match=says):
        normalize_scores(np.eye(3), np.array([[0, 1]]), cohort, kind)
