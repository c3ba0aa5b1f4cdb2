"""Pair metrics: the same as in scikit-learn, with the best threshold, and bootstrapped by whole words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from bert_tweets.words.statistics.pair_metrics import (
    bootstrap_weights,
    choose_threshold,
    cosines,
    pair_scores,
    percentile_intervals,
    weighted_auc,
)

PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30)


@given(PAIRS, st.integers(-6, 6), st.integers(0, 99))
def test_weighted_measures_are_those_of_repeated_pairs(
    pairs: list[tuple[int, bool]], threshold: int, seed: int
) -> None:
    scores, same = np.array([score / 5 for score, _ in pairs]), np.array([int(same) for _, same in pairs])
    weights = np.random.default_rng(seed).integers(0, 3, (4, len(pairs)))
    found = pair_scores(scores, same, threshold / 5, weights.astype(float))
    for one, counts in zip(found.T, weights, strict=True):
        truth, repeated = np.repeat(same, counts), np.repeat(scores, counts)
        if len(truth):
            said = (repeated >= threshold / 5).astype(int)
            assert one[0] == pytest.approx(f1_score(truth, said, labels=[0, 1], average="macro", zero_division=0))
            assert one[1] == pytest.approx(accuracy_score(truth, said))
        if len(set(truth.tolist())) == 2:
            assert one[2] == pytest.approx(roc_auc_score(truth, repeated))
        else:
            assert np.isnan(one[2])


@given(PAIRS)
def test_the_threshold_is_the_best(pairs: list[tuple[int, bool]]) -> None:
    scores, same = np.array([score / 5 for score, _ in pairs]), np.array([int(same) for _, same in pairs])
    frozen = choose_threshold({"3": scores}, same)
    every = [
        pair_scores(scores, same, threshold, np.ones((1, len(same))))[0, 0] for threshold in np.arange(-1.1, 1.2, 0.1)
    ]
    assert frozen.macro_f1 == pytest.approx(max(every))
    assert pair_scores(scores, same, frozen.threshold, np.ones((1, len(same))))[0, 0] == pytest.approx(frozen.macro_f1)


def test_the_layer_is_the_best_and_the_first_among_equals() -> None:
    same = np.array([0, 0, 1, 1])
    good, bad = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.9, 0.1, 0.8, 0.2])
    frozen = choose_threshold({"1": bad, "2": good, "3": 2 * good}, same)
    assert (frozen.layer, frozen.threshold, frozen.macro_f1, frozen.auc) == ("2", 0.5, 1, 1)


def test_the_sign_of_the_scores_is_not_flipped() -> None:
    same, scores = np.array([1, 1, 0, 0]), np.array([0.1, 0.2, 0.8, 0.9])
    assert weighted_auc(scores, same, np.ones((1, 4))).tolist() == [0]
    assert choose_threshold({"1": scores}, same).auc == 0


def test_words_are_drawn_with_all_their_pairs() -> None:
    words = ["a"] * 3 + ["b"] + ["c"] * 6
    weights = bootstrap_weights(words, 4000, np.random.default_rng(0))
    assert weights.shape == (4001, 10) and (weights[0] == 1).all()
    assert (weights[:, :3] == weights[:, :1]).all() and (weights[:, 4:] == weights[:, 4:5]).all()
    assert (weights[:, [0, 3, 4]].sum(axis=1) == 3).all() and weights[1:].mean() == pytest.approx(1, abs=0.03)


def test_intervals_over_words_cover_the_truth_and_those_over_pairs_do_not() -> None:
    """Each word has an accuracy of its own, .7 on average; 30 words of 20 pairs."""
    random, covered = np.random.default_rng(0), []
    words = np.repeat(np.arange(30), 20).astype(str).tolist()
    for _ in range(150):
        right = random.random(600) < np.repeat(random.beta(2.8, 1.2, 30), 20)
        same = random.integers(0, 2, 600)
        scores = np.where(right, same, 1 - same).astype(float)
        row = []
        for names in (words, list(map(str, range(600)))):
            bounds = percentile_intervals(pair_scores(scores, same, 0.5, bootstrap_weights(names, 400, random)))[
                "accuracy"
            ]
            low, high = bounds[1], bounds[2]
            assert low is not None and high is not None
            row.append(low <= 0.7 <= high)
        covered.append(row)
    ours, naive = np.mean(covered, axis=0)
    assert ours > 0.88 and naive < 0.75


def test_an_undefined_measure_is_none() -> None:
    same, scores = np.ones(4, np.int64), np.arange(4.0)
    found = percentile_intervals(
        pair_scores(scores, same, 1.5, bootstrap_weights(list("aabb"), 50, np.random.default_rng(0)))
    )
    assert found["auc"] == [None, None, None] and found["accuracy"][0] == 0.5


def test_cosines_are_nan_where_a_vector_is_missing() -> None:
    first = np.array([[1, 0], [1, 1], [np.nan, np.nan]], np.float32)
    second = np.array([[0, 1], [2, 2], [1, 0]], np.float32)
    assert cosines(first, second)[:2] == pytest.approx([0, 1]) and np.isnan(cosines(first, second)[2])
