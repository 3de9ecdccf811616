"""The verdict of a report: sentences that say which model is better, by how much, and whether this is significant."""

from collections.abc import Sequence

from ssl_audio.evaluation.comparison import Comparison, Evaluation

SIGNIFICANT = 0.05
FEW_SINGERS = 10


def percent(value: float | None, digits: int = 1) -> str:
    """`12.3 %`; "-" for None."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def points(value: float) -> str:
    """A difference in percentage points, such as `-12.3`; never `-0.0`."""
    return f"{round(100 * value, 1) + 0.0:.1f}"


def with_interval(value: float | None, around: tuple[float, float] | None) -> str:
    """`12.3 % (10.1 to 14.6)`."""
    if value is None or around is None:
        return percent(value)
    return f"{100 * value:.1f} % ({100 * around[0]:.1f} to {100 * around[1]:.1f})"


def verdict(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> list[str]:
    """Sentences about one test set.

    They compare the best model with every other model and with the best baseline, and warn if there are few singers.

    Args:
        evaluations: of all models on the test set.
        comparisons: paired tests, see `compare_all`.
    """
    models = sorted((e for e in evaluations if not e.baseline), key=_eer)
    baselines = sorted((e for e in evaluations if e.baseline), key=_eer)
    tests = {frozenset((c.first, c.second)): c for c in comparisons if c.test_set == evaluations[0].test_set.name}
    best = models[0]
    sentences = [_duel(best, other, tests[frozenset((best.model, other.model))]) for other in models[1:]]
    if baselines:
        sentences.append(_duel(best, baselines[0], tests[frozenset((best.model, baselines[0].model))], True))
    singers, paired = best.verification.n_singers, best.verification.n_paired_singers
    if paired < FEW_SINGERS:
        tested = f"Only {singers} singers were tested"
        if paired < singers:
            tested = f"Same-singer trials come from only {paired} of {singers} singers"
        sentences.append(
            f"{tested}: intervals from so few singers are uncertain and tend to be too narrow. Test on more singers "
            "before you rely on this result."
        )
    return sentences


def _duel(best: Evaluation, other: Evaluation, comparison: Comparison, baseline: bool = False) -> str:
    name = f"the best baseline ({other.model})" if baseline else other.model
    better = comparison.first == best.model  # the first of a comparison has the lower EER
    test = comparison.test
    gap, few = abs(100 * test.difference), best.verification.n_paired_singers < FEW_SINGERS
    low, high = sorted(-100 * bound for bound in test.interval)
    if test.difference == 0 and low == high == 0:
        return (
            f"{best.model} and {name} make the same errors: EER {percent(_eer(best))} in every resample of the singers."
        )
    rates = f"EER {percent(_eer(best))} against {percent(_eer(other))}"
    if test.p_value > SIGNIFICANT:
        span = f"{low:.1f} to {high:.1f} points"
        if low < 0 < high:
            ahead, behind = (best.model, other.model) if better else (other.model, best.model)
            span = f"{-low:.1f} points in favour of {behind} to {high:.1f} in favour of {ahead}"
        return (
            f"{best.model} and {name} do not differ significantly: {rates}, a difference of {gap:.1f} points. The 95 % "
            f"interval of the difference is {span} (p = {test.p_value:.2g}). The choice of the singers alone may "
            "explain it."
        )
    caution = "but with so few singers, chance may explain even this" if few else "the difference is significant"
    how, more = ("better", "lower") if better else ("worse", "higher")
    around = f"95 % interval {low:.1f} to {high:.1f} points, p = {test.p_value:.2g}"
    return f"{best.model} is {how} than {name}: {rates}, {gap:.1f} points {more} ({around}); {caution}."


def _eer(evaluation: Evaluation) -> float:
    assert evaluation.verification.eer is not None
    return evaluation.verification.eer
