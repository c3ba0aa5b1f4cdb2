"""Drift compares quantities within each space, on the same occurrences, and nothing across spaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group, rankdata, spearmanr

from bert_tweets.words.embedding import drift
from bert_tweets.words.embedding.drift import (
    RowCollector,
    SeedDrift,
    distance_ranks,
    rank_correlation,
    sample_for_distances,
    summarize_drift,
)
from bert_tweets.words.occurrences.find import FOUND, TRUNCATED, Occurrences, Places
from bert_tweets.words.store.summary import MeasureDrift
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

SPACE = VectorSpace("weights", "recipe", "12")


def occurrences(word: list[int], cluster: list[int], status: list[int]) -> Occurrences:
    rows = np.arange(len(word))
    zeros = np.zeros_like(rows)
    places = Places(np.array(word), rows, zeros, zeros)
    return Occurrences(places, np.array(status, np.int8), np.array(cluster), zeros, zeros)


@given(st.lists(st.integers(-3, 3), min_size=3, max_size=30), st.integers(0, 2**32 - 1))
def test_it_is_spearmans_correlation(values: list[int], seed: int) -> None:
    one = np.array(values, np.float64)
    other = np.random.default_rng(seed).integers(-3, 3, len(one)).astype(np.float64)
    found = rank_correlation(*(rankdata(each).astype(np.float32) for each in (one, other)))
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(one, other).statistic, abs=1e-6)


def test_rotating_and_scaling_a_space_changes_nothing() -> None:
    """That is why a dimension of one space cannot be compared with that of another."""
    points = np.random.default_rng(0).standard_normal((40, 6))
    turned = (3 * points @ ortho_group.rvs(6, random_state=1)).astype(np.float32)
    other = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)
    before = distance_ranks(Vectors(SPACE, points.astype(np.float32)), None)
    assert rank_correlation(before, distance_ranks(Vectors(replace(SPACE, weights="b"), turned), None)) > 0.9999  # type: ignore[operator]
    assert abs(rank_correlation(before, distance_ranks(Vectors(SPACE, other), None))) < 0.2  # type: ignore[arg-type]
    # Far from the origin distances differ: that is why the origin is subtracted.
    shifted = Vectors(SPACE, (points + 5).astype(np.float32))
    assert rank_correlation(before, distance_ranks(shifted, None)) < 0.9  # type: ignore[operator]
    assert rank_correlation(before, distance_ranks(shifted, np.full(6, 5.0))) > 0.9999  # type: ignore[operator]


def test_few_occurrences_have_no_ranks() -> None:
    points = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    assert distance_ranks(Vectors(SPACE, points), None) is not None
    assert distance_ranks(Vectors(SPACE, points[:9]), None) is None


def test_copies_and_occurrences_that_are_not_found_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    some = occurrences([0, 1, 0, 0, 1, 0], [5, 5, 5, 7, 8, 9], [FOUND, FOUND, FOUND, FOUND, TRUNCATED, FOUND])
    rows = sample_for_distances(some, ["a", "b", "c"], 0)
    assert [part.tolist() for part in rows] == [[0, 3, 5], [1], []]
    monkeypatch.setattr(drift, "MOST", 2)
    drawn = {tuple(sample_for_distances(some, ["a", "b", "c"], seed)[0].tolist()) for seed in range(20)}
    assert len(drawn) > 1 and all(len(one) == 2 and set(one) < {0, 3, 5} for one in drawn)


def test_selected_rows_are_collected_from_a_stream() -> None:
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    collector = RowCollector([np.array([1, 4, 9]), np.array([], np.int64), np.array([4, 5])], 2)
    for first, last in ((0, 4), (4, 5), (5, 10)):
        collector.add(slice(first, last), values[first:last])
    for word, rows in enumerate(collector.selected):
        np.testing.assert_array_equal(collector.of_word(word), values[rows])


def test_a_word_is_ranked_among_control_words_over_seeds() -> None:
    seeds = [
        SeedDrift([0.25, None, 0.125, 0.375, 0.5], [0.9, None, None, None, None]),
        SeedDrift([0.5, None, 0.625, 0.625, 0.75], [0.7, None, None, None, None]),
    ]
    first, second = summarize_drift(seeds, 2)
    # The control words' means are .375, .5 and .625: one equals the word's and ranks before it.
    assert first.neighbour_overlap == MeasureDrift([0.25, 0.5], (0.3812, 0.5, 0.6188), 2, 4)
    assert second.neighbour_overlap == MeasureDrift([None, None], (0.3812, 0.5, 0.6188), None, 4)
    assert first.distance_correlation == MeasureDrift([0.9, 0.7], None, None, 0)
