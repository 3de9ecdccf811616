"""The parts of a report about conditions (noise, codecs, ...) and about the cost of the models."""

from collections.abc import Sequence

from ssl_audio.evaluation.comparison import Arm, Comparison, Evaluation
from ssl_audio.evaluation.report import html
from ssl_audio.evaluation.report.verdict import percent, points, with_interval

_CONDITIONS_EXPLAINED = (
    "The same trials, after both recordings went through a condition. In parentheses is the 95 % interval over "
    "singers. The change is the EER under the condition minus the EER without it, paired over the same resamples."
)
_COST_EXPLAINED = (
    "An hour is an hour of audio, read, resampled and embedded on the machine of this report. An embedding is stored "
    "as float32. Read the licence itself before you use a model."
)


def conditions_section(
    ordered: Sequence[Evaluation], arms: Sequence[Arm], comparisons: Sequence[Comparison]
) -> list[str]:
    """Tables of the EER and its change under each condition, and of the paired tests between models; [] without arms.

    Args:
        ordered: evaluations of one test set, in the order of the rows.
        arms: of the same test set.
        comparisons: see `compare_all`; those of the conditions on this test set are shown, between models.
    """
    if not arms:
        return []
    names = list(dict.fromkeys(arm.condition for arm in arms))
    found = {(arm.model, arm.condition): arm for arm in arms}
    rates, changes = [], []
    for e in ordered:
        here = [found[e.model, name] for name in names]
        cells = [with_interval(arm.verification.eer, arm.verification.eer_interval) for arm in here]
        rates.append([e.model, percent(e.verification.eer), *cells])
        changes.append([e.model, *(f"{points(a.change.difference)} ({_range(a.change.interval)})" for a in here)])
    dim = [e.baseline for e in ordered]
    parts = [
        html.heading(3, "Under conditions"),
        html.paragraph(_CONDITIONS_EXPLAINED, "soft"),
        html.table(["EER of model", "clean", *names], rates, dim),
        html.table(["change of the EER, points", *names], changes, dim),
    ]
    models = {e.model for e in ordered if not e.baseline}
    shown = [c for c in comparisons if c.condition and c.test_set == ordered[0].test_set.name]
    rows = [
        [c.condition, c.first, c.second, points(c.test.difference), _range(c.test.interval), f"{c.test.p_value:.2g}"]
        for c in shown
        if {c.first, c.second} <= models
    ]
    if rows:
        header = ["condition", "model", "against", "EER difference, points", "95 % interval", "p"]
        parts.append(html.table(header, rows))
    return parts


def cost_section(ordered: Sequence[Evaluation]) -> list[str]:
    """A table of size, speed and licence of the models; [] if no cost is known."""
    header = ["model", "parameters", "dimension", "bytes an embedding", "seconds an hour", "licence"]
    known = [e for e in ordered if e.cost is not None]
    rows = []
    for e in known:
        assert e.cost is not None
        count = "-" if e.cost.parameters is None else f"{e.cost.parameters:,}"
        seconds = "-" if e.cost.seconds_per_hour is None else f"{e.cost.seconds_per_hour:.3g}"
        rows.append([e.model, count, str(e.cost.dim), f"{e.cost.embedding_bytes:,}", seconds, e.cost.licence])
    if not rows:
        return []
    table = html.table(header, rows, [e.baseline for e in known])
    return [html.heading(3, "Cost and licence"), html.paragraph(_COST_EXPLAINED, "soft"), table]


def _range(interval: tuple[float, float]) -> str:
    return " to ".join(map(points, interval))
