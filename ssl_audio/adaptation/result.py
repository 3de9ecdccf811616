"""What an adaptation says of itself: rows of its report, the card of its model, the facts of its calibration."""

import datetime
from typing import Any

from ssl_audio.adaptation.data import Voices
from ssl_audio.adaptation.judging import Rates
from ssl_audio.decisions.calibrating import level_rule
from ssl_audio.evaluation.calibration_fit import ScoredTrials
from ssl_audio.hub.card import model_card
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint
from ssl_audio.version import __version__


def row(rates: Rates, other: Rates) -> dict[str, dict[str, Any]]:
    """{collection: equal error rates, their difference and its paired interval}, ready for JSON."""
    return {
        name: {
            "eer": rates.eer[name],
            "eer_before": other.eer[name],
            "difference": test.difference,
            "interval": list(test.interval),
        }
        for name, test in rates.against(other).items()
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of `row`, in percent."""
    lines = ["| collection | EER before, % | EER, % | difference | 95 % interval |", "|---|---|---|---|---|"]
    for name, one in rows.items():
        low, high = one["interval"]
        lines.append(
            f"| {name} | {100 * one['eer_before']:.2f} | {100 * one['eer']:.2f} | {100 * one['difference']:+.2f} | "
            f"{100 * low:+.2f} to {100 * high:+.2f} |"
        )
    return "\n".join(lines)


def card(model: EmbeddingModel, name: str, report: dict[str, Any], voices: Voices) -> str:
    """The model card, with the rungs and what they were worth."""
    people = f" of {len(voices.person_names)} people" if voices.person_names else ""
    sections = [
        model_card(model, name, data=f"Adapted to {len(voices)} recordings{people}; see Adaptation.").rstrip(),
        "## Adaptation",
        f"The start has the fingerprint {report['made_of']['start']}. Its weights did not change. "
        f"Collections: {', '.join(voices.names)}.\n\nVerdict: {report['verdict']}.",
    ]
    for rung, tried in report["tried"].items():
        kept = "kept" if tried["kept"] else f"not kept: {tried['reason']}"
        head = f"### {rung}: {tried['setting']} ({kept})" if "setting" in tried else f"### {rung} ({kept})"
        sections.append(head)
        if "against_before" in tried:
            sections.append(table(tried["against_before"]))
    titles = {"left_out": "On people left out", "verify": "On other people"}
    for where, title in titles.items():
        if where in report:
            sections += [f"### {title}, against the start", table(report[where]["against_start"])]
            sections += [f"### {title}, against the start in its best use", table(report[where]["against_best_use"])]
    return "\n\n".join(sections) + "\n"


def facts_of(model: EmbeddingModel, voices: Voices, trials: ScoredTrials, seed: int) -> dict[str, Any]:
    """The facts of a calibration on these trials, as `ssl-audio calibrate` states them."""
    return {
        "model": fingerprint(model),
        "level": level_rule(model),
        "data": ", ".join(voices.names),
        "data_sha256": voices.digest(),
        "people": len(voices.person_names),
        "people_with_two_recordings": len(set(trials.people[trials.labels][:, 0].tolist())),
        "recordings": len(voices),
        "trials": len(trials.labels),
        "same_person_trials": int(trials.labels.sum()),
        "ssl_audio_version": __version__,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seed": seed,
    }
