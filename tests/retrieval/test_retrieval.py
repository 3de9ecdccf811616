"""Search and selection on embeddings, against brute force written out here."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.errors import InputError
from ssl_audio.retrieval import Index
from ssl_audio.retrieval.quality import index_quality, mean_cosine
from ssl_audio.retrieval.ranking import Search, State
from ssl_audio.retrieval.search import ApproximateSearch, ExactSearch, choose, normalize
from ssl_audio.retrieval.select import maximal_marginal_relevance
from ssl_audio.retrieval.tracks import Tracks


def library(tracks=40, dim=8, seed=0, groups=5):
    x = np.random.default_rng(seed).standard_normal((tracks, dim)).astype(np.float32)
    return x, [f"artist{i % groups}/song{i}.wav" for i in range(tracks)]


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def brute(x, query, own=None):
    """Every other track, most alike first, in float64."""
    x = x.astype(np.float64)
    order = sorted((i for i in range(len(x)) if i != own), key=lambda i: -cosine(x[i], query))
    return [(i, cosine(x[i], query)) for i in order]


@pytest.mark.parametrize("search", ["exact", "hnsw", "ivf"])
def test_neighbours_and_scores_equal_brute_force(search):
    x, paths = library(300, 16)
    index = Index.from_embeddings(x, paths, search=search)
    found = index.recommend([3, 77, 299], n=5)
    for query, hits in zip([3, 77, 299], found, strict=True):
        expected = brute(x, x[query], own=query)[:5]
        assert [hit.id for hit in hits] == [i for i, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([s for _, s in expected], abs=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_long_rows_are_searched_exactly(metric):
    rng = np.random.default_rng(0)
    rows, queries = (normalize(rng.standard_normal((n, 4)), metric) for n in (5037, 300))
    rows[5030] = queries[7]  # in the last, incomplete chunk
    scores, found = ExactSearch(rows, metric).nearest(queries, 3)
    true = queries @ rows.T if metric == "cosine" else -np.linalg.norm(queries[:, None] - rows[None], axis=2)
    np.testing.assert_allclose(scores, -np.sort(-true, axis=1)[:, :3], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(true, found, 1), scores, atol=1e-5)
    assert found[7, 0] == 5030


def test_scores_are_true_cosines_down_to_minus_one():
    index = Index.from_embeddings(np.array([[1.0, 0], [-2, 0], [0, 3], [5, 0]]), list("abcd"))
    assert [(hit.path, round(hit.score, 6)) for hit in index.recommend("a")] == [("d", 1), ("c", 0), ("b", -1)]


def test_euclidean_scores_are_minus_the_distance_even_between_near_twins():
    x = np.array([[100.0, 0, 0], [100.0, 1e-3, 0], [103.0, 4, 0]])
    hits = Index.from_embeddings(x, list("abc"), metric="euclidean").recommend("a")
    assert [hit.path for hit in hits] == ["b", "c"]
    assert [hit.score for hit in hits] == pytest.approx([-1e-3, -5], rel=1e-3)


@given(st.integers(2, 30), st.integers(1, 12), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_no_group_appears_more_often_than_asked_and_the_best_of_each_is_kept(tracks, n, per_group, groups, seed):
    x, paths = library(tracks, 4, seed, groups)
    hits = Index.from_embeddings(x, paths).recommend(0, n, per_group=per_group)
    expected, taken = [], {}
    for i, _ in brute(x, x[0], own=0):
        group = f"artist{i % groups}"
        if len(expected) < n and taken.get(group, 0) < per_group:
            expected.append(i)
            taken[group] = taken.get(group, 0) + 1
    assert [hit.id for hit in hits] == expected


@given(st.integers(1, 30), st.integers(1, 10), st.floats(0, 1), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_maximal_marginal_relevance_equals_the_equation(candidates, n, weight, seed):
    rng = np.random.default_rng(seed)
    vectors = normalize(rng.standard_normal((candidates, 3)), "cosine")
    scores = np.sort(rng.uniform(-1, 1, candidates))[::-1]
    chosen = maximal_marginal_relevance(scores, vectors, [""] * candidates, n, weight)
    expected: list[int] = []
    for _ in range(min(n, candidates)):
        rest = [i for i in range(candidates) if i not in expected]

        def value(i, picked=tuple(expected)):
            return weight * scores[i] - (1 - weight) * max((float(vectors[i] @ vectors[j]) for j in picked), default=0)

        best = max(rest, key=value)
        taken = chosen[len(expected)]
        assert value(taken) == pytest.approx(value(best), abs=1e-5)  # ties may fall either way
        expected.append(taken)
    assert len(chosen) == len(expected)


def test_variety_leaves_out_near_copies():
    x = np.array([[1, 0, 0], [0.99, 0.1, 0], [0.99, 0.101, 0], [0.9, 0, 0.3]])
    index = Index.from_embeddings(x, list("qabc"))
    assert {hit.path for hit in index.recommend("q", 2)} == {"a", "b"}
    assert [hit.path for hit in index.recommend("q", 2, mmr=0.4)] == ["a", "c"]
    assert [hit.path for hit in index.recommend("q", 3, mmr=1.0)] == [hit.path for hit in index.recommend("q", 3)]


@given(st.integers(2, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_tracks_of_many_windows_are_ranked_by_their_closest_pair(tracks, most, n, seed):
    rng = np.random.default_rng(seed)
    parts = [normalize(rng.standard_normal((rng.integers(1, most + 1), 3)), "cosine") for _ in range(tracks)]
    names = [f"{i}" for i in range(tracks)]
    content = Tracks.empty().appended(parts, names, names, [(0, 0, 0, 0)] * tracks, 0)
    state = State(content, {"metric": "cosine", "search": "exact"})
    (hits,) = Search(state, n, None, None, lambda path: False).run([(parts[0], 0)])
    expected = sorted(((float((parts[0] @ parts[i].T).max()), i) for i in range(1, tracks)), reverse=True)[:n]
    assert [score for _, score in hits] == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert 0 not in [position for position, _ in hits]


def test_ids_survive_removal_and_are_not_given_again():
    x, paths = library(6)
    index = Index.from_embeddings(x, paths)
    index.remove([paths[1], 4])
    assert index.ids.tolist() == [0, 2, 3, 5] and len(index) == 4
    assert [hit.id for hit in index.recommend(5, 9)] == [i for i, _ in brute(x, x[5], own=5) if i not in (1, 4)]
    with pytest.raises(InputError, match="no track has the id 4"):
        index.recommend(4)
    with pytest.raises(InputError, match="not in the index"):
        index.remove([0, "unknown.wav"])
    assert len(index) == 4


def test_removal_works_on_a_graph_too():
    x, paths = library(200, 16)
    index = Index.from_embeddings(x, paths, search="hnsw")
    nearest = index.recommend(0, 1)[0].id
    index.remove([nearest])
    assert index.recommend(0, 1)[0].id == brute(x, x[0], own=0)[1][0]


def test_the_search_is_chosen_by_size_and_said():
    assert [choose(n) for n in (1, 50_000, 50_001, 2_000_000, 2_000_001)] == ["exact", "exact", "hnsw", "hnsw", "ivf"]
    x, paths = library()
    assert Index.from_embeddings(x, paths).description == "exact search over 40 vectors, cosine"
    assert "HNSW" in Index.from_embeddings(x, paths, search="hnsw").description


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_search_finds_nearly_all_true_neighbours(kind):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 32))
    make = lambda n: normalize(centres[rng.integers(0, 60, n)] + 0.5 * rng.standard_normal((n, 32)), "cosine")  # noqa: E731
    rows, queries = make(6000), make(100)
    _, true = ExactSearch(rows).nearest(queries, 10)
    scores, found = ApproximateSearch(kind, rows).nearest(queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true, found, strict=True)])
    assert recall >= 0.95
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, rows[found]), atol=1e-5)


def test_readers_see_one_state_while_a_writer_removes():
    x, paths = library(200)
    index = Index.from_embeddings(x, paths)
    problems = []

    def read():
        try:
            for _ in range(50):
                ids = [hit.id for hit in index.recommend(0, 150)]
                assert len(set(ids)) == len(ids) >= 100
        except BaseException as error:
            problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for track in range(199, 150, -1):
        index.remove([track])
    for reader in readers:
        reader.join()
    assert not problems and len(index) == 151


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"n": 0}, "at least 1"), ({"per_group": 0}, "at least 1"), ({"mmr": 1.5}, "mmr"), ({"query": 99}, "id 99")],
)
def test_impossible_questions_are_refused(arguments, words):
    index = Index.from_embeddings(*library(4))
    with pytest.raises(InputError, match=words):
        index.recommend(**({"query": 0} | arguments))


def test_audio_without_a_model_is_refused_and_a_small_library_gives_what_it_has():
    index = Index.from_embeddings(*library(4))
    with pytest.raises(InputError, match="needs the model"):
        index.recommend(np.zeros(16000, np.float32))
    assert len(index.recommend(0, 10)) == 3


@pytest.mark.parametrize(
    ("rows", "names", "words"),
    [
        (np.zeros((0, 3)), [], "at least one"),
        (np.zeros((2, 3)), ["a"], "do not match"),
        (np.array([[0.0, 1], [np.nan, 1]]), ["a", "b"], "of b is not finite"),
        (np.eye(2), ["a", "a"], "distinct"),
    ],
)
def test_bad_embeddings_are_refused(rows, names, words):
    with pytest.raises(InputError, match=words):
        Index.from_embeddings(rows, names)


@pytest.mark.parametrize("search", ["hnsw", "ivf"])
def test_who_asks_for_the_whole_library_gets_it_from_an_approximate_search_too(search):
    x, paths = library(500, 16)
    index = Index.from_embeddings(x, paths, search=search)
    assert len({hit.id for hit in index.recommend(0, 600)}) == 499


def test_tracks_without_an_artist_folder_are_not_one_artist():
    x, _ = library(12, 8)
    index = Index.from_embeddings(x, [f"song{i}.wav" for i in range(10)] + ["a/1.wav", "a/2.wav"])
    for options in ({}, {"mmr": 0.5}):
        paths = [hit.path for hit in index.recommend(0, 12, per_group=1, **options)]
        assert len(paths) == 10 and sum(path.startswith("a/") for path in paths) == 1
    assert index_quality(index)["same_artist"]["queries"] == 2


def test_the_mean_cosine_of_two_tracks():
    x, _ = library(12, 8)
    pairs = [cosine(x[i], x[j]) for i in range(12) for j in range(12) if i != j]
    assert mean_cosine(x) == pytest.approx(np.mean(pairs), abs=1e-6) and mean_cosine(x[:1]) == 0
