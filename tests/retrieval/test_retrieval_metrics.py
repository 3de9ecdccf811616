"""Against scikit-learn, loops, and cases that can be counted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.errors import InputError
from ssl_audio.evaluation.retrieval_metrics import library_metrics, retrieval_metrics


def reference(x, labels, exclude, k):
    """Query by query, average precision by scikit-learn."""
    from sklearn.metrics import average_precision_score

    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    rows = []
    for i in range(len(x)):
        candidates = [j for j in range(len(x)) if j != i and (exclude is None or exclude[j] != exclude[i])]
        relevant = [labels[j] == labels[i] for j in candidates]
        if any(relevant):
            scores = [float(x[i] @ x[j]) for j in candidates]
            top = [relevant[r] for r in np.argsort(scores)[::-1][:k]]
            average = average_precision_score(relevant, scores)
            rows.append((average, sum(top) / k, float(any(top)), np.mean(relevant)))
    return (*np.mean(rows, axis=0), len(rows)) if rows else None


@given(st.integers(2, 40), st.integers(1, 5), st.integers(1, 12), st.booleans(), st.integers(0, 999))
@settings(deadline=None, max_examples=60)
def test_equals_the_reference(items, classes, k, filtered, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((items, 6))
    labels = rng.integers(0, classes, items).tolist()
    exclude = [f"artist {i}" for i in rng.integers(0, 6, items)] if filtered else None
    expected = reference(x, labels, exclude, k)
    if expected is None:
        with pytest.raises(InputError, match="no item has a candidate with its label"):
            retrieval_metrics(x, labels, exclude, ks=[k])
        return
    result = retrieval_metrics(x, labels, exclude, ks=[k])
    names = ("mean_average_precision", f"precision_at_{k}", f"hit_rate_at_{k}", "chance", "queries")
    assert [result[name] for name in names] == pytest.approx(expected)
    assert result["queries"] + result["queries_without_match"] == items


def test_more_items_than_a_block_and_a_random_embedding_is_at_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 700)
    result = retrieval_metrics(rng.standard_normal((700, 16)), labels)
    assert result["precision_at_10"] == pytest.approx(result["chance"], abs=0.02)
    clustered = np.eye(4)[labels] + 0.01 * rng.standard_normal((700, 4))
    assert retrieval_metrics(clustered, labels)["mean_average_precision"] == pytest.approx(1)


def test_of_equally_near_items_the_first_comes_first():
    x = np.eye(3)[[0, 0, 0, 1, 0]]
    result = retrieval_metrics(x, [0, 1, 0, 1, 2], ks=[1])
    # query 0: items 1, 2, 4 are equally near, the relevant one is second; query 2: first of 0, 1, 4; 1: last; 3: second
    assert result["mean_average_precision"] == pytest.approx(np.mean([1 / 2, 1 / 4, 1, 1 / 2]))
    assert result["precision_at_1"] == 1 / 4


def test_the_artist_filter_takes_the_credit_for_artists_away():
    """Four artists of two genres; the embedding knows artists and nothing of genre."""
    artists = np.repeat(list("abcd"), 5)
    genres = np.repeat(["rock", "jazz", "rock", "jazz"], 5)
    angles = np.repeat([0.0, 0.5, 1.5, 2.5], 5) + 0.001 * np.arange(20)
    tables = library_metrics(np.stack([np.cos(angles), np.sin(angles)], 1), artists, genres, ks=[4])
    assert tables["same_artist"]["precision_at_4"] == 1
    assert tables["same_genre"]["precision_at_4"] == 1
    assert tables["same_genre_other_artist"]["precision_at_4"] < 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.eye(3), [0, 0]), "match in number"),
        ((np.full((2, 2), np.nan), [0, 0]), "not finite"),
        ((np.eye(2), [0, 0], None, [0]), "at least 1"),
        ((np.eye(2), [0, 1]), "no item has a candidate with its label"),
        ((np.eye(0), []), "no item has a candidate with its label"),
    ],
)
def test_impossible_input_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        retrieval_metrics(*arguments)
