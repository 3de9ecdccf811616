"""Who shares a batch: each promise of the four compositions, on one process and on several."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.data.batch_composition import CompositionSampler


class Layout:
    """Windows of recordings with so many windows each; recordings i and i + 3 are of one category."""

    def __init__(self, counts):
        self.sequences = np.repeat(np.arange(len(counts)), counts)
        self.categories = self.sequences % 3

    def __len__(self):
        return len(self.sequences)


counts = st.lists(st.integers(0, 12), min_size=1, max_size=9)
KINDS = ["uniform", "samesequence", "samecategory", "sequential"]


def batches(windows, composition, batch_size, seed=0, ranks=1, epoch=0, done=0):
    """(ranks, steps, batch_size) items as the processes' loaders would put them together."""
    found = []
    for rank in range(ranks):
        sampler = CompositionSampler(windows, composition, batch_size, seed, num_replicas=ranks, rank=rank)
        sampler.resume(epoch, done)
        items = [draw.item for draw in sampler]
        assert all(draw.epoch == epoch for draw in sampler)
        assert len(items) == len(sampler) - done // ranks and len(items) % batch_size == 0
        found.append(np.reshape(items, (-1, batch_size)).astype(int))
    return np.stack(found)


@settings(max_examples=60, deadline=None)
@given(counts, st.sampled_from(KINDS), st.integers(1, 4), st.integers(0, 9), st.integers(1, 3), st.integers(0, 2))
def test_no_window_twice_and_little_left_out(counts, composition, batch_size, seed, ranks, epoch):
    windows = Layout(counts)
    found = batches(windows, composition, batch_size, seed, ranks, epoch)
    assert len(np.unique(found)) == found.size and np.isin(found, np.arange(len(windows))).all()
    kinds = {"samesequence": windows.sequences, "samecategory": windows.categories}.get(composition)
    if kinds is None:
        assert len(windows) - found.size < batch_size * ranks
    else:
        assert found.shape[1] == sum(size // (batch_size * ranks) for size in np.bincount(kinds, minlength=1))
        assert all(len(set(kinds[found[:, step]].ravel())) == 1 for step in range(found.shape[1]))  # of all processes


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(1, 4), st.integers(0, 9), st.integers(1, 3))
def test_a_row_of_sequential_batches_plays_recordings_through(counts, batch_size, seed, ranks):
    windows = Layout(counts)
    for rows in batches(windows, "sequential", batch_size, seed, ranks):
        for row in rows.T:
            same = windows.sequences[row[1:]] == windows.sequences[row[:-1]]
            assert (np.diff(row)[same] == 1).all()  # the very next window of the recording
            first = np.flatnonzero(np.diff(windows.sequences, prepend=-1))
            assert np.isin(row[1:][~same], first).all()  # or the beginning of another


@pytest.mark.parametrize("composition", KINDS)
def test_seed_and_epoch_decide_the_order(composition):
    windows = Layout([5, 9, 7, 8, 6, 7])
    first = batches(windows, composition, 3, seed=1, epoch=2)
    np.testing.assert_array_equal(first, batches(windows, composition, 3, seed=1, epoch=2))
    assert (first != batches(windows, composition, 3, seed=1, epoch=3)).any()
    assert (first != batches(windows, composition, 3, seed=2, epoch=2)).any()


@pytest.mark.parametrize("composition", KINDS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_epoch_goes_on_with_the_batches_not_yet_seen(composition, ranks):
    windows = Layout([5, 9, 7, 8, 6, 7])
    whole = batches(windows, composition, 3, ranks=ranks, epoch=4)
    rest = batches(windows, composition, 3, ranks=ranks, epoch=4, done=2 * 3 * ranks)
    np.testing.assert_array_equal(whole[:, 2:], rest)


@settings(max_examples=30, deadline=None)
@given(counts, st.sampled_from(KINDS), st.integers(0, 9))
def test_any_number_of_processes_sees_the_same_in_a_step(counts, composition, seed):
    """With as many items a step together: what a run needs that goes on with other processes."""
    windows = Layout(counts)
    steps = []
    for ranks in (1, 2, 4):
        found = batches(windows, composition, 4 // ranks, seed, ranks, epoch=1)
        steps.append([sorted(found[:, step].ravel()) for step in range(found.shape[1])])
    assert steps[0] == steps[1] == steps[2]


def test_batches_of_a_kind_are_mixed():
    windows = Layout([40, 40, 40])
    found = batches(windows, "samesequence", 4)[0]
    of = windows.sequences[found[:, 0]]
    assert (np.diff(of) != 0).sum() > 10  # not one recording after the other
    assert any((np.diff(batch) != 1).any() for batch in found)  # nor window after window


def test_uniform_mixes_the_whole_corpus():
    windows = Layout([50] * 20)
    found = batches(windows, "uniform", 10)[0]
    distinct = [len(set(windows.sequences[batch])) for batch in found]
    assert np.mean(distinct) == pytest.approx(20 * (1 - 0.95**10), rel=0.1)  # as ten independent draws
