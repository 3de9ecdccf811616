import numpy as np
import pytest

from ssl_audio.errors import InputError
from ssl_audio.evaluation.bootstrap import (
    bootstrap_mean,
    bootstrap_verification,
    compare_eer,
    interval,
    paired_test,
    singer_multiplicities,
)
from ssl_audio.evaluation.metrics import equal_error_rate, min_dcf


def example(rng, people=12, trials=300, skill=2.0):
    """Trials whose difficulty depends on the singer."""
    labels = rng.random(trials) < 0.5
    first, second = rng.integers(0, people, (2, trials))
    second = np.where(labels, first, (first + 1 + second % (people - 1)) % people)
    hard = rng.standard_normal(people)
    scores = np.round(rng.standard_normal(trials) + labels * skill + 0.8 * hard[first] * labels, 1)
    return labels, scores, np.stack([first, second], axis=1)


def test_a_draw_equals_the_metrics_of_the_repeated_trials():
    labels, scores, singers = example(np.random.default_rng(0))
    times = singer_multiplicities(12, 5, seed=1)
    result = bootstrap_verification(labels, scores, singers, times, false_accepts=[0.1])
    for draw in range(5):
        m = times[draw].astype(int)
        weight = np.where(labels, m[singers[:, 0]], m[singers[:, 0]] * m[singers[:, 1]])
        repeated = np.repeat(labels, weight), np.repeat(scores, weight)
        assert result["eer"][draw] == pytest.approx(equal_error_rate(*repeated)[0])
        assert result["min_dcf"][draw] == pytest.approx(min_dcf(*repeated))
    assert result["miss"].shape == (5, 1)


def test_a_mean_is_weighted_by_singer():
    times = np.array([[2.0, 0, 1], [1, 1, 1]])
    values, singers = [1.0, 3.0, 5.0, 9.0], np.array([0, 0, 1, 2])
    assert bootstrap_mean(values, singers, times) == pytest.approx([(2 * 4 + 9) / 5, 18 / 4])


def test_the_seed_decides_and_rows_sum_to_the_singers():
    assert np.array_equal(singer_multiplicities(9, 20, 4), singer_multiplicities(9, 20, 4))
    assert np.all(singer_multiplicities(9, 20, 4).sum(axis=1) == 9)
    with pytest.raises(InputError, match="two"):
        singer_multiplicities(1, 20, 0)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Many small studies of new singers; the truth is the EER of a very large one."""
    labels, scores, _ = example(np.random.default_rng(99), people=20_000, trials=400_000)
    truth = equal_error_rate(labels, scores)[0]
    covered, naive = 0, 0
    studies = 120
    for study in range(studies):
        labels, scores, singers = example(np.random.default_rng(study), people=25, trials=1200)
        low, high = interval(
            bootstrap_verification(labels, scores, singers, singer_multiplicities(25, 150, study))["eer"]
        )
        covered += low <= truth <= high
        rng = np.random.default_rng(study)
        picks = rng.integers(0, len(labels), (60, len(labels)))
        low, high = interval([equal_error_rate(labels[p], scores[p])[0] for p in picks])
        naive += low <= truth <= high
    assert 0.86 <= covered / studies <= 0.99
    assert covered > naive  # trials are not independent, and an interval over trials pretends that they are


def test_a_better_model_is_found_and_a_twin_is_not():
    rng = np.random.default_rng(5)
    labels, scores, singers = example(rng, people=30, trials=3000)
    worse = scores + 1.5 * rng.standard_normal(len(scores))
    twin = scores + 1e-3 * rng.standard_normal(len(scores))
    found = compare_eer(labels, scores, worse, singers, resamples=300)
    assert found.difference < 0 and found.interval[1] < 0 and found.p_value < 0.02
    alike = compare_eer(labels, scores, twin, singers, resamples=300)
    assert alike.interval[0] <= 0 <= alike.interval[1] and alike.p_value > 0.05
    other_way = compare_eer(labels, worse, scores, singers, resamples=300)
    assert other_way.difference == pytest.approx(-found.difference) and other_way.p_value == found.p_value


def test_identical_models_do_not_differ():
    test = paired_test(0.1, 0.1, np.full(50, 0.1), np.full(50, 0.1))
    assert test.difference == 0 and test.p_value == 1


def test_draws_without_a_class_are_left_out():
    labels, singers = np.array([True, False, False]), np.array([[0, 0], [1, 2], [1, 2]])
    times = np.array([[3.0, 0, 0], [1, 1, 1]])
    resampled = bootstrap_verification(labels, [0.9, 0.1, 0.2], singers, times)
    assert np.isnan(resampled["eer"][0]) and resampled["eer"][1] == 0
    with pytest.raises(InputError, match="needs more singers"):
        interval([np.nan, np.nan])
