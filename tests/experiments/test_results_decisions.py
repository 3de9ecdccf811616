"""The figures of decisions: halves of people, and the tables of simulated voices."""

import re

import numpy as np
import pytest

from benchmarks import results_decisions
from benchmarks.results_decisions import Pool, halves, study


@pytest.fixture
def pool():
    """Two sets of 24 voices with four recordings each, one take a recording; cuts are noisier."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(48), 4)
    centres = rng.standard_normal((48, 16))
    noise = np.array([0.8, 1.6, 1.2, 1.0])[:, None, None] * rng.standard_normal((4, 192, 16))
    return Pool(
        sets=np.where(people < 24, "one", "two"),
        people=np.array([f"p{n:02d}" for n in people]),
        takes=np.array([f"t{n}" for n in range(192)]),
        unseen=np.ones(192, dtype=bool),
        values=(centres[people] + noise).astype(np.float32),
        seconds=np.repeat([[5.0], [1.0], [2.0], [4.0]], 192, axis=1),
        longer=np.ones((4, 192), dtype=bool),
    )


def test_halves_share_no_person_and_hold_all(pool):
    found = list(halves(pool, pool.unseen, 1))
    for calibrated, tested in found:
        assert not set(pool.people[calibrated]) & set(pool.people[tested]) and (calibrated ^ tested).all()
        assert len(set(pool.people[calibrated & (pool.sets == "one")])) == 12
    assert (found[0][0] == found[1][1]).all()


def test_a_study_has_all_its_tables(pool, monkeypatch):
    monkeypatch.setattr(results_decisions, "SETS", ("one", "two"))
    monkeypatch.setattr(results_decisions, "RESAMPLES", 5)
    monkeypatch.setattr(results_decisions, "PEOPLE", (10, 20))
    text = study("Simulated", pool, pool.unseen, 1, True)
    rows = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("| one |")]
    same, pooled, other, groups = rows
    for row in (same, pooled):
        cllr, least, ratio, eer, five = (float(x.split(" ")[0]) for x in row[1:6])
        assert least <= cllr < 1.3 * least and ratio == pytest.approx(cllr / least, abs=0.01)
        assert 0 < eer < 0.3 and 1 < five < 12
    assert float(other[2]) <= float(other[1]) < 1
    assert groups[1] == "12" and len(groups) == 8
    assert re.search(r"\| 20 \| 0\.\d+ \|", text) and "| 1 s | " in text
