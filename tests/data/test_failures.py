"""The log of failures: each recording once, a report that holds all of them, and a limit that is one."""

import csv
from pathlib import Path

import pytest

from ssl_audio.data.failures import FailureLog, NoAudioError
from ssl_audio.data.index import LeftOut
from ssl_audio.errors import InputError


def rows(path: Path) -> list[tuple[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["path"], row["reason"]) for row in csv.DictReader(file)]


def test_the_report_names_what_was_left_out_and_what_failed_each_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, report = FailureLog(0.5), tmp_path / "report.csv"
    log.begin([LeftOut("a.wav", "is silent")], str(report))
    assert rows(report) == [("a.wav", "is silent")]
    for _ in range(3):
        log.count(10, [LeftOut("b, 1.wav", "no such file"), LeftOut("a.wav", "no such file")])
    assert rows(report) == [("a.wav", "is silent"), ("b, 1.wav", "no such file")]
    assert caplog.text.count("another file takes its place") == 1 and str(report) in caplog.text


def test_the_limit_counts_from_a_hundred_clips_and_is_a_fraction_of_all() -> None:
    log = FailureLog(0.1)
    log.count(9, [LeftOut(f"{n}.wav", "no such file") for n in range(9)])  # too early to tell
    log.count(81, [])
    log.count(10, [LeftOut("9.wav", "no such file")])  # 10 of 100
    with pytest.raises(
        InputError, match=r"11 of 101 clips .* data\.max_failures = 0\.1 allows; the last: 10\.wav gone"
    ):
        log.count(1, [LeftOut("10.wav", "gone")])


@pytest.mark.parametrize("limit", [-0.1, 1.1])
def test_a_limit_that_is_no_fraction_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match=rf"data\.max_failures is {limit}; it must be from 0 to 1"):
        FailureLog(limit)


def test_an_error_of_a_worker_stays_one_line() -> None:
    wrapped = (
        "Caught NoAudioError in DataLoader worker process 0.\nOriginal Traceback:\n  ...\nNoAudioError: 16 files\n"
    )
    assert str(NoAudioError(wrapped)) == "16 files"
