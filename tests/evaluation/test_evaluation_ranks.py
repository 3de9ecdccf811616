import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.errors import InputError
from ssl_audio.evaluation import mean_normalized_rank
from ssl_audio.evaluation.ranks import normalized_ranks, paper_normalized_ranks


def brute_force(embeddings, singers, pairs):
    """The definition, one candidate at a time, in float64."""
    x = np.asarray(embeddings, float)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    ranks = []
    for a, p in pairs:
        closer, candidates = 0.0, 1
        for c in range(len(x)):
            if singers[c] != singers[a]:
                candidates += 1
                difference = x[c] @ x[a] - x[p] @ x[a]
                closer += 0.5 if abs(difference) < 1e-6 else float(difference > 0)
        ranks.append(closer / candidates)
    return float(np.mean(ranks))


def ordered_pairs(singers):
    n = range(len(singers))
    return [(i, j) for i in n for j in n if i != j and singers[i] == singers[j]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40), st.integers(2, 5), st.booleans())
def test_equals_brute_force_with_and_without_ties(seed, count, people, tied):
    rng = np.random.default_rng(seed)
    x = np.eye(4)[rng.integers(0, 4, count)] if tied else rng.standard_normal((count, 7))
    singers = [f"female{k + 1}" for k in np.r_[np.arange(people) % 2, rng.integers(0, people, count)][:count]]
    pairs = ordered_pairs(singers)
    if len(set(singers)) < 2 or not pairs:
        return
    assert mean_normalized_rank(x, singers) == pytest.approx(brute_force(x, singers, pairs), abs=1e-6)
    some = rng.permutation(pairs)[:5]
    assert mean_normalized_rank(x, singers, some) == pytest.approx(brute_force(x, singers, some), abs=1e-6)


def test_a_large_group_of_partners_takes_the_sorted_way():
    rng = np.random.default_rng(1)
    x, singers = rng.standard_normal((90, 5)), ["a"] * 30 + ["b"] * 60
    assert mean_normalized_rank(x, singers) == pytest.approx(brute_force(x, singers, ordered_pairs(singers)), abs=1e-6)


def test_names_are_compared_whole():
    x = np.array([[1, 0.2], [1, 0.0], [0.9, 0.1], [0.0, 1]])
    with_ten = mean_normalized_rank(x, ["female1", "female1", "female10", "b"], [(0, 1)])
    assert with_ten == pytest.approx(1 / 3)  # female10 is a candidate, and closer


def test_perfect_is_zero_and_collapsed_is_chance():
    x = np.repeat(np.eye(5), 4, axis=0)
    who = np.repeat(list("abcde"), 4)
    assert mean_normalized_rank(x, who) == 0
    assert mean_normalized_rank(np.ones((20, 3)), who) == pytest.approx(0.5, abs=0.03)


def test_ranks_come_back_in_the_order_of_the_pairs():
    rng = np.random.default_rng(2)
    x, who = rng.standard_normal((40, 6)), list("ab") * 20
    pairs = rng.permutation(ordered_pairs(who))
    returned, ranks = normalized_ranks(x, who, pairs)
    assert np.array_equal(returned, pairs)
    for i in (0, 17, len(pairs) - 1):
        assert ranks[i] == pytest.approx(brute_force(x, who, pairs[i : i + 1]), abs=1e-6)


def test_the_papers_protocol_draws_from_its_seed_and_estimates_the_exact_rank():
    rng = np.random.default_rng(3)
    who = rng.integers(0, 6, 1200)
    x = rng.standard_normal((6, 16))[who] + 2.5 * rng.standard_normal((1200, 16))
    pairs, ranks = paper_normalized_ranks(x, who, seed=5)
    assert len(ranks) == 1000 and np.allclose(ranks * 513, np.round(ranks * 513 * 2) / 2)
    assert np.array_equal(ranks, paper_normalized_ranks(x, who, seed=5)[1])
    assert not np.array_equal(ranks, paper_normalized_ranks(x, who, seed=6)[1])
    assert ranks.mean() == pytest.approx(mean_normalized_rank(x, who, pairs), abs=0.01)
    assert len(paper_normalized_ranks(x, who, pairs[:10])[0]) == 10  # fewer than 1,000 positives is no error


@pytest.mark.parametrize(
    ("x", "who", "pairs", "says"),
    [
        (np.ones((3, 2)), ["a"] * 3, None, "two singers"),
        (np.ones((2, 2)), ["a", "b"], None, "no singer has two"),
        (np.ones((2, 2)), ["a", "b", "c"], None, "2 embeddings but 3"),
        (np.array([[1.0, np.nan], [1, 1], [1, 1]]), ["a", "a", "b"], None, "NaN"),
        (np.array([[1.0, 1], [0, 0], [1, 1]]), ["a", "a", "b"], None, "number 2 is all zeros"),
        (np.ones((3, 2)), ["a", "a", "b"], [(0, 2)], "pair 1 is of two singers"),
        (np.ones((3, 2)), ["a", "a", "b"], [(0, 1), (1, 1)], "pair 2 holds one recording twice"),
        (np.ones((3, 2)), ["a", "a", "b"], [(0, 3)], "recording 3"),
        (np.ones((3, 2)), ["a", "a", "b"], [(0, -1)], "recording -1"),
    ],
)
def test_degenerate_input_says_which(x, who, pairs, says):
    with pytest.raises(InputError, match=says):
        mean_normalized_rank(x, who, pairs)


def test_the_papers_protocol_refuses_a_set_that_is_too_small():
    with pytest.raises(InputError, match="512"):
        paper_normalized_ranks(np.random.default_rng(0).standard_normal((20, 3)), list("ab") * 10)
