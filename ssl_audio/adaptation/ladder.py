"""Try rung after rung on people left out, keep those that help, and save the adapted model or advise against it."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.adaptation.chain import RUNGS, Chain, Step, candidates, fit
from ssl_audio.adaptation.data import FOLDERS, NONE, Embedded, Voices, check_apart, find_voices, people_digests
from ssl_audio.adaptation.judging import OVERALL, Judge, Rates, judged_collections, verified
from ssl_audio.adaptation.result import card, facts_of, row
from ssl_audio.config import refuse_outside
from ssl_audio.errors import InputError
from ssl_audio.evaluation.bootstrap import percentile_interval
from ssl_audio.evaluation.calibration_fit import ScoredTrials, fit_model_calibration
from ssl_audio.evaluation.model_calibration import ModelCalibration
from ssl_audio.hub import save_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint
from ssl_audio.utils.files import write_text
from ssl_audio.version import __version__

REPORT, WORK = "adaptation.json", "adaptation-work"
_WORSE_AT_MOST = 0.9  # of the resamples of people, in so many a rung must help


def adapt(
    recordings: Sequence[str | os.PathLike],
    start: EmbeddingModel,
    output: str | os.PathLike,
    *,
    groups: str = FOLDERS,
    rungs: Sequence[str] = RUNGS,
    verify: Sequence[str | os.PathLike] = (),
    seed: int = 0,
    restart: bool = False,
    say: Callable[[str], None] = print,
    **embedding: Any,
) -> dict[str, Any]:
    """Adapt a model to recordings; an interrupted call with the same arguments goes on after its last finished rung.

    Args:
        recordings: folders, each a collection `person/**/file`.
        start: the model; it is not changed.
        output: folder of the adapted model and of `adaptation.json`, the report.
        groups: see `find_voices`. With "none" nothing can be tried, and only the mean of the recordings is subtracted.
        rungs: of `RUNGS`, the ones to try, in the order of `RUNGS`.
        verify: collections of other people, on which start and result are compared.
        seed: of halves, trials and resamples.
        restart: throw away what an earlier call left in `output`.
        say: prints a line.
        **embedding: `batch_size`, `device` of `embed_files`.

    Returns:
        The report; see docs/adaptation.md.

    Raises:
        InputError: recordings that cannot be used, a model that cannot be saved, `output` holding something else.
    """
    refuse_outside(start, "adapted")
    unknown = sorted(set(rungs) - set(RUNGS))
    if unknown:
        raise InputError(f"unknown rung {unknown[0]!r}; choose of {', '.join(RUNGS)}")
    output = Path(output)
    voices = find_voices(recordings, start, groups)
    others = find_voices(verify, start) if verify else None
    if groups != NONE:
        judged_collections(voices)
    if others is not None:
        check_apart(voices, others)
        judged_collections(others)
    made_of = {
        "start": fingerprint(start),
        "recordings": voices.digest(),
        "verify": None if others is None else others.digest(),
        "groups": NONE if groups == NONE else FOLDERS,
        "rungs": [rung for rung in RUNGS if rung in rungs],
        "seed": seed,
        "ssl_audio_version": __version__,
    }
    report = _begun(output, made_of, restart)
    if report.get("verdict"):
        say(f"{output} holds this adaptation already")
        return report
    data = Embedded(voices, start, output / WORK / "recordings", **embedding)
    say(_about(voices))
    if groups == NONE:
        report["kept"] = [["mean", "all"]]
        say(
            "nobody is known, so nothing can be tried on people left out; only the mean of the recordings is subtracted"
        )
    else:
        _climb(data, report, output, seed, say)
    steps = [Step(*step) for step in report["kept"]]
    chain = fit(steps, data, np.arange(len(voices)))
    if groups != NONE:
        _judge(Judge(data, seed + 1), steps, report)
    if others is not None:
        tested = Embedded(others, start, output / WORK / "verify", **embedding)
        usual = fit(_best_use(steps), data, np.arange(len(voices)))
        adapted, used, plain = verified(tested, [chain, usual, Chain()], seed)
        report["verify"] = {"against_start": row(adapted, plain), "against_best_use": row(adapted, used)}
    report["verdict"], keep = _verdict(report)
    if keep:
        model = chain.model(start)
        if chain.cohort is not None:
            model.calibration = cohort_calibration(model, chain, data, steps, seed)
        model.to("cpu")
        save_model(model, output, card(model, output.resolve().name, report, voices))
    _write(output, report)
    shutil.rmtree(output / WORK, ignore_errors=True)
    return report


def _about(voices: Voices) -> str:
    people = "" if not voices.person_names else f" of {len(voices.person_names)} people"
    copies = f"; {voices.copies} copies of others left out" if voices.copies else ""
    return f"{len(voices)} recordings{people} in {len(voices.names)} collections{copies}"


def _begun(output: Path, made_of: dict[str, Any], restart: bool) -> dict[str, Any]:
    """The report of an interrupted call with these settings, or a new one."""
    path = output / REPORT
    if restart:
        shutil.rmtree(output / WORK, ignore_errors=True)
        path.unlink(missing_ok=True)
    elif path.is_file():
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            same = report["made_of"] == made_of
        except (OSError, ValueError, KeyError, TypeError):
            same, report = False, {}
        if same:
            return report
        raise InputError(f"{output} holds an adaptation of other settings; choose another --output, or give --restart")
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is not empty; choose another --output")
    report = {"made_of": made_of, "kept": [], "tried": {}}
    shutil.rmtree(output / WORK, ignore_errors=True)
    _write(output, report)
    return report


def _write(output: Path, report: dict[str, Any]) -> None:
    write_text(output / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def _climb(data: Embedded, report: dict[str, Any], output: Path, seed: int, say: Callable[[str], None]) -> None:
    """Try the rungs that are not tried yet; the report is written after each."""
    judge = Judge(data, seed)
    kept = [Step(*step) for step in report["kept"]]
    current: Rates | None = None
    for rung in report["made_of"]["rungs"]:
        if rung in report["tried"]:
            continue
        current = judge.rates(kept) if current is None else current
        tried, problem = _try(judge, kept, rung)
        if not tried:
            report["tried"][rung] = {"kept": False, "reason": problem}
            say(f"{rung}: not tried, {problem}")
        else:
            step, rates = min(tried, key=lambda pair: pair[1].eer[OVERALL])
            reason = refusal(rates, current)
            report["tried"][rung] = {
                "setting": step.setting,
                "kept": reason is None,
                "reason": reason,
                "against_before": row(rates, current),
                "settings": {step.setting: rates.eer[OVERALL] for step, rates in tried},
            }
            say(
                f"{step}: EER {100 * current.eer[OVERALL]:.2f} -> {100 * rates.eer[OVERALL]:.2f} % on people left out, "
                + ("kept" if reason is None else f"not kept: {reason}")
            )
            if reason is None:
                kept, current = [*kept, step], rates
        report["kept"] = [list(step) for step in kept]
        _write(output, report)


def _try(judge: Judge, kept: list[Step], rung: str) -> tuple[list[tuple[Step, Rates]], str]:
    """The rates of each setting of a rung that can be fitted, and why the last of the others cannot."""
    found, problem = [], "there is nothing to choose"
    for step in candidates(rung, judge.data):
        try:
            found.append((step, judge.rates([*kept, step])))
        except InputError as error:
            problem = str(error)
    return found, problem


def refusal(rates: Rates, before: Rates) -> str | None:
    """Why a rung is not kept; None if it is.

    It must help in 90 % of the resamples of people and may make no collection significantly worse.
    """
    tests = rates.against(before)
    worse = [name for name, test in tests.items() if name != OVERALL and test.interval[0] > 0]
    if tests[OVERALL].difference >= 0:
        return "it does not help"
    if worse:
        return f"{worse[0]} gets worse"
    upper = percentile_interval(rates.resampled[OVERALL] - before.resampled[OVERALL], 2 * _WORSE_AT_MOST - 1)[1]
    return None if upper < 0 else "it helps too few people to be sure"


def _best_use(steps: Sequence[Step]) -> list[Step]:
    """The steps that only use the start well: its views and the mean of the recordings."""
    return [step for step in steps if step.rung in ("use", "mean")]


def _judge(judge: Judge, steps: Sequence[Step], report: dict[str, Any]) -> None:
    """Adapted against start and against its best use, by other halves of the people than those that chose."""
    adapted, used, plain = judge.rates(steps), judge.rates(_best_use(steps)), judge.rates([])
    report["left_out"] = {"against_start": row(adapted, plain), "against_best_use": row(adapted, used)}


def _verdict(report: dict[str, Any]) -> tuple[str, bool]:
    """The verdict in a sentence, and whether the adapted model is to be used."""
    if not report["kept"]:
        return "keep what you have: no rung helped people left out", False
    where = "verify" if "verify" in report else "left_out"
    if where not in report:
        return "not tested: nobody is known; give --verify FOLDER of known people to see whether it helps", True
    test = report[where]["against_start"][OVERALL]
    low, high = test["interval"]
    change = f"{100 * test['difference']:+.2f} points of EER ({100 * low:+.2f} to {100 * high:+.2f}) against the start"
    worse = [name for name, one in report[where]["against_start"].items() if name != OVERALL and one["interval"][0] > 0]
    if worse:
        return f"keep what you have: {worse[0]} gets significantly worse ({change})", False
    if test["difference"] >= 0:
        return f"keep what you have: the adapted model is not better ({change})", False
    sure = "the adapted model is better" if high < 0 else "the adapted model is probably better, not significantly"
    return f"{sure}: {change}", True


def cohort_calibration(
    model: EmbeddingModel, chain: Chain, data: Embedded, steps: Sequence[Step], seed: int
) -> ModelCalibration:
    """A calibration with the recordings as cohort, fitted on scores of people who were not in the cohort."""
    voices = data.voices
    pairs, labels, scores = Judge(data, seed).left_out_scores(steps)
    people = np.unique(voices.people[pairs], return_inverse=True)[1].reshape(pairs.shape)
    trials = ScoredTrials(labels, scores, voices.seconds[pairs], people, np.full(len(labels), np.nan))
    return fit_model_calibration(
        trials,
        seed=seed,
        normalization="as",
        cohort=chain.cohort,
        people=people_digests(voices),
        audio=np.unique(voices.digests),
        facts=facts_of(model, voices, trials, seed),
    )
