import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from ssl_audio.errors import InputError
from ssl_audio.evaluation import equal_error_rate
from ssl_audio.evaluation.metrics import (
    accuracy_at,
    area_under_roc,
    curve_from_counts,
    error_curve,
    min_dcf,
    verification_metrics,
)


@st.composite
def trials(draw):
    """Labels of both classes with scores on a coarse grid, so that ties are common."""
    n = draw(st.integers(2, 60))
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))])
    scores = np.array(draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))) / 8 + labels * 0.125
    if scores.min() == scores.max():
        scores[0] += 1
    return labels, scores


def scikit_learn_eer(labels, scores):
    """Root of 1 - fpr - tpr on the full ROC polyline, parametrised by arc so that vertical pieces are single-valued."""
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    arc = fpr + tpr
    x, y = interp1d(arc, fpr), interp1d(arc, tpr)
    return float(x(brentq(lambda a: x(a) + y(a) - 1, 0, 2)))


def direct_min_dcf(labels, scores, p_target):
    costs = []
    for threshold in [*np.unique(scores), np.inf]:
        miss = np.mean(scores[labels == 1] < threshold)
        false_accept = np.mean(scores[labels == 0] >= threshold)
        costs.append(p_target * miss + (1 - p_target) * false_accept)
    return min(costs) / min(p_target, 1 - p_target)


@given(trials())
def test_equal_error_rate_is_the_root_on_scikit_learns_curve(case):
    assert equal_error_rate(*case)[0] == pytest.approx(scikit_learn_eer(*case), abs=1e-6)


@given(trials())
def test_the_fast_way_and_the_curve_agree(case):
    assert equal_error_rate(*case) == pytest.approx(error_curve(*case).equal_error_rate(), abs=1e-9)


@given(trials(), st.sampled_from([0.01, 0.05, 0.5]))
def test_min_dcf_and_auc_equal_their_definitions(case, prior):
    assert min_dcf(*case, p_target=prior) == pytest.approx(direct_min_dcf(*case, prior))
    assert area_under_roc(*case) == pytest.approx(roc_auc_score(*case))


@given(trials())
def test_the_order_of_the_trials_and_the_scale_of_the_scores_do_not_matter(case):
    labels, scores = case
    shuffle = np.random.default_rng(0).permutation(len(labels))
    assert equal_error_rate(labels[shuffle], 3 * scores[shuffle] - 7)[0] == pytest.approx(equal_error_rate(*case)[0])


@given(trials())
def test_swapping_the_classes_and_the_sign_keeps_the_eer(case):
    labels, scores = case
    assert equal_error_rate(1 - labels, -scores)[0] == pytest.approx(equal_error_rate(labels, scores)[0], abs=1e-9)


@settings(max_examples=30)
@given(trials(), st.floats(0, 1))
def test_misses_at_a_false_accept_rate_lie_on_the_curve(case, rate):
    curve = error_curve(*case)
    expected = interp1d(curve.false_accept + 1e-9 * np.arange(len(curve.miss)), curve.miss)(min(rate, 1.0))
    ends = curve.miss[np.searchsorted(curve.false_accept, rate, "right") - 1]
    assert min(abs(curve.miss_at(rate) - expected), abs(curve.miss_at(rate) - ends)) < 1e-4


def test_the_reference_values(shared):
    values = np.load(shared / "fixtures" / "eer.npz")
    eer, threshold = equal_error_rate(values["labels"], values["scores"])
    assert eer == pytest.approx(float(values["eer"]), abs=1e-4)
    assert threshold == pytest.approx(float(values["threshold"]), abs=1e-4)
    assert equal_error_rate(values["labels"], values["tied_scores"])[0] == pytest.approx(
        float(values["tied_eer"]), abs=1e-4
    )
    assert equal_error_rate(values["labels"], values["scores"].astype(np.float32))[0] == pytest.approx(
        float(values["eer"]), abs=1e-4
    )


def test_perfect_and_reversed_scores():
    labels = np.array([0, 0, 1, 1])
    assert equal_error_rate(labels, [0.1, 0.2, 0.8, 0.9])[0] == 0
    assert 0.2 < equal_error_rate(labels, [0.1, 0.2, 0.8, 0.9])[1] <= 0.8
    assert equal_error_rate(labels, [0.9, 0.8, 0.2, 0.1])[0] == 1
    assert min_dcf(labels, [0.9, 0.8, 0.2, 0.1]) == 1


def test_binned_scores_give_the_curve_of_the_bins():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5000)
    scores = np.round(rng.standard_normal(5000) + labels, 1)
    edges = np.append(np.unique(scores), 99)
    counts = [np.histogram(scores[labels == c], edges)[0] for c in (1, 0)]
    assert curve_from_counts(*counts, edges).equal_error_rate() == pytest.approx(
        error_curve(labels, scores).equal_error_rate()
    )


def test_accuracy_and_the_summary():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])
    assert accuracy_at(0.55, labels, scores) == 0.5
    summary = verification_metrics(labels, scores)
    assert summary["eer"] == 0.5 and summary["auc"] == 0.75 and summary["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([1, 1], [0.1, 0.2], "one class"),
        ([0, 0], [0.1, 0.2], "different-singer"),
        ([0, 1], [0.3, 0.3], "equal"),
        ([0, 1, 1], [0.3, np.nan, 0.1], "trial 2"),
        ([0, 1], [0.3, np.inf], "infinite"),
        ([0, 2], [0.3, 0.1], "label"),
        ([0, 1], [0.3, 0.1, 0.2], "length"),
        ([], [], "no trials"),
    ],
)
def test_degenerate_input_says_which(labels, scores, says):
    for metric in (equal_error_rate, min_dcf, area_under_roc):
        with pytest.raises(InputError, match=says):
            metric(labels, scores)


@pytest.mark.parametrize("costs", [{"c_miss": 0}, {"c_false_accept": -1}, {"c_miss": float("nan")}])
def test_an_error_that_costs_nothing_has_no_detection_cost(costs):
    with pytest.raises(InputError, match="the cost of an error must be above 0"):
        min_dcf([1, 0, 1], [0.9, 0.1, 0.2], **costs)
