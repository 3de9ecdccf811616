"""The calibration of a model, on scores whose true log-likelihood ratio is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_audio.errors import InputError
from ssl_audio.evaluation.calibration import cllr, fit_calibration, people_folds
from ssl_audio.evaluation.calibration_fit import ScoredTrials, check_people, fit_model_calibration
from ssl_audio.evaluation.false_accepts import fit_false_accepts
from ssl_audio.evaluation.model_calibration import length_inputs


def gaussian(n=6000, people=30, shift=2.0, by_length=0.0, seed=0):
    """Different people score N(0, 1); one person N(d, 1), where d = `shift` + `by_length` x mean log length.

    The true ratio is d * score - d^2 / 2. Returns the trials and the true ratios.
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(people, size=n)
    second = np.where(rng.random(n) < 0.4, first, rng.integers(people, size=n))
    labels = first == second
    kinds = rng.choice([1.0, 2.0, 4.0, 8.0], size=n)
    difference = shift + by_length * np.log(kinds)
    scores = rng.standard_normal(n) + difference * labels
    lengths = np.stack([kinds, kinds], axis=1) if by_length else np.full((n, 2), 3.0)
    trials = ScoredTrials(labels, scores, lengths, np.stack([first, second], axis=1), kinds)
    return trials, difference * scores - difference**2 / 2


def test_a_fit_with_more_inputs_equals_scikit_learns():
    trials, _ = gaussian(by_length=0.5)
    inputs = length_inputs(trials.scores, trials.lengths * np.random.default_rng(1).uniform(0.5, 2, (6000, 2)))
    counts = np.random.default_rng(2).integers(0, 3, 6000)
    prior = 0.1
    same, different = (counts * labels for labels in (trials.labels, ~trials.labels))
    weights = prior * same / same.sum() + (1 - prior) * different / different.sum()
    reference = LogisticRegression(penalty=None, tol=1e-12, max_iter=10_000).fit(
        np.column_stack([trials.scores, inputs]), trials.labels, sample_weight=weights * 6000
    )
    line = fit_calibration(trials.labels, trials.scores, prior, inputs, counts)
    assert [line.scale, *line.weights] == pytest.approx(reference.coef_[0], rel=1e-3, abs=1e-4)
    assert line.offset == pytest.approx(reference.intercept_[0] - np.log(prior / (1 - prior)), rel=1e-3)


def test_the_true_ratio_lies_within_the_interval():
    trials, _ = gaussian(n=20_000, people=60)
    calibration = fit_model_calibration(trials)
    scores = np.array([-2.0, -1, 0, 1, 2, 3, 4])
    lengths = np.full((7, 2), 3.0)
    low, high = calibration.intervals(scores, lengths).T
    assert not calibration.uses_length
    assert np.all((low < 2 * scores - 2) & (2 * scores - 2 < high)) and np.all(high - low < 1)
    assert np.all((low < calibration.ratios(scores, lengths)) & (calibration.ratios(scores, lengths) < high))


def test_lengths_bring_the_cost_down_to_nearly_that_of_the_true_ratio():
    trials, _ = gaussian(n=20_000, people=60, shift=0.5, by_length=1.0)
    calibration = fit_model_calibration(trials, resamples=50)
    unseen, truth = gaussian(n=20_000, people=60, shift=0.5, by_length=1.0, seed=1)
    best = cllr(unseen.labels, truth)
    cost = cllr(unseen.labels, calibration.ratios(unseen.scores, unseen.lengths))
    plain = cllr(unseen.labels, fit_calibration(trials.labels, trials.scores)(unseen.scores))
    assert calibration.uses_length
    assert best < cost < best + 0.01 < plain - 0.02
    rows = calibration.facts["by_length"]
    assert [row["seconds"] for row in rows] == [1, 2, 4, 8]
    assert all(row["cllr"] < row["cllr_without_length"] + 0.005 for row in rows)
    assert [row["cllr"] for row in rows] == sorted((row["cllr"] for row in rows), reverse=True)


def test_lengths_that_tell_nothing_are_no_inputs_for_the_ratio_to_hang_on():
    trials, _ = gaussian(n=4000)
    lengths = np.random.default_rng(3).uniform(1, 8, (4000, 2))
    calibration = fit_model_calibration(
        ScoredTrials(trials.labels, trials.scores, lengths, trials.people, trials.kinds)
    )
    short, long = (calibration.ratios([1.0, 3.0], np.full((2, 2), seconds)) for seconds in (1.0, 8.0))
    assert short == pytest.approx(long, abs=0.6)


@pytest.mark.parametrize("by_length", [0.0, 1.0])
def test_the_rate_that_is_asked_for_is_reached_by_others_at_every_length(by_length):
    trials, _ = gaussian(n=20_000, shift=1.0, by_length=by_length)
    calibration = fit_model_calibration(trials, resamples=50)
    unseen, _ = gaussian(n=40_000, shift=1.0, by_length=by_length, seed=4)
    for rate in (0.1, 0.05, 0.01):
        accepted = calibration.accepts(rate, unseen.scores, unseen.lengths)
        for kind in (1.0, 8.0):
            here = ~unseen.labels & (unseen.kinds == kind)
            assert accepted[here].mean() == pytest.approx(rate, rel=0.35)
        row = next(row for row in calibration.facts["rates"] if row["asked"] == rate)
        low, high = row["false_accept_interval"]
        assert low <= row["false_accept"] <= high and low < rate < high


def test_the_rate_of_a_score_is_that_of_the_normal_distribution():
    scores = np.random.default_rng(0).standard_normal(50_000)
    rates = fit_false_accepts(scores)
    assert rates([0.0, 1.2816, 2.3263]) == pytest.approx([0.5, 0.1, 0.01], rel=0.05)
    assert rates.smallest == pytest.approx(10 / 50_000)
    with pytest.raises(InputError, match=r"ask for 0\.0002 or more"):
        rates.accepts(1e-5, [1.0])
    assert rates.accepts(0.0002, [9.0]).all()


def test_scores_beyond_those_seen_count_as_the_outermost():
    trials, _ = gaussian()
    calibration = fit_model_calibration(trials, resamples=50)
    lengths = np.full((2, 2), 3.0)
    top = calibration.score_range[1]
    assert calibration.ratios([top, 1e6], lengths).tolist() == [calibration.ratios([top], lengths[:1])[0]] * 2
    assert calibration.outside([top, top + 1, -1e6]).tolist() == [False, True, True]


def test_no_fold_is_judged_by_a_fit_that_has_seen_its_people():
    people = np.random.default_rng(0).integers(12, size=(3000, 2))
    judged_in_all = np.zeros(3000, dtype=int)
    for judged, others in people_folds(people):
        judged_in_all += judged
        assert not set(people[judged].ravel()) & set(people[others].ravel())
    assert np.all(judged_in_all == 1)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda scores, labels: np.where(np.arange(len(scores)) == 7, np.nan, scores), "1 of 6000 scores are NaN"),
        (lambda scores, labels: np.ones_like(scores), "all scores are equal"),
        (lambda scores, labels: labels + 0.1 * scores / np.abs(scores).max(), "do not overlap"),
    ],
)
def test_scores_that_cannot_be_calibrated(change, message):
    trials, _ = gaussian()
    bad = ScoredTrials(trials.labels, change(trials.scores, trials.labels), trials.lengths, trials.people, trials.kinds)
    with pytest.raises(InputError, match=message):
        fit_model_calibration(bad)


@pytest.mark.parametrize(
    "people, recording, counts",
    [("aabb", "1234", "here are 2, 2 of"), ("abcdef", "123456", "here are 6, 0 of"), ("aabbccdd", "11223344", "4, 0")],
)
def test_too_few_people_are_counted(people, recording, counts):
    with pytest.raises(InputError, match=counts):
        check_people(people, recording, "voices")
