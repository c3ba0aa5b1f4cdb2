"""Distances: as in the published formula, unbiased, and the same however they are computed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from bert_tweets.words.statistics.energy_distance import (
    JackknifeVariance,
    energy_statistic,
    jackknife_variance,
    pairwise_distances,
)
from bert_tweets.words.statistics.exchangeable_units import Exchange, Units
from tests.words.synthetic import alone, occurrences, two_groups


def energy(vectors: np.ndarray, unit: np.ndarray, label: np.ndarray, first: int, second: int) -> float:
    """The energy distance by its definition, over all pairs of different units."""

    def mean(one: int, other: int) -> float:
        found = [
            float(np.linalg.norm(vectors[i].astype(float) - vectors[j]))
            for i in np.flatnonzero(label == one)
            for j in np.flatnonzero(label == other)
            if unit[i] != unit[j]
        ]
        return float(np.mean(found))

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)


@pytest.mark.parametrize("crossed", [False, True])
def test_the_statistic_of_two_groups_is_the_energy_distance(crossed: bool) -> None:
    random = np.random.default_rng(3)
    vectors = occurrences(random, 30) + 5
    unit = np.sort(random.integers(0, 12, 30))
    unit = np.unique(unit, return_inverse=True)[1]
    label = random.integers(0, 2, 30) if crossed else (unit % 2)
    units = Units(unit, label)
    found = energy_statistic(pairwise_distances(vectors, unit), units)
    assert found[0] == pytest.approx(energy(vectors, unit, label, 0, 1), abs=1e-5)


def test_the_statistic_of_many_groups_is_the_weighted_mean_over_pairs() -> None:
    random = np.random.default_rng(4)
    vectors, units = occurrences(random, 40), alone(np.repeat([0, 1, 2], [8, 12, 20]))
    sizes = np.bincount(units.label)
    pairs = {pair: energy(vectors, units.unit, units.label, *pair) for pair in combinations(range(3), 2)}
    weights = [sizes[a] * sizes[b] for a, b in pairs]
    found = energy_statistic(pairwise_distances(vectors, units.unit), units)[0]
    assert found == pytest.approx(np.average(list(pairs.values()), weights=weights), abs=1e-5)


def test_the_statistic_of_squared_distances_is_twice_the_debiased_distance_of_means() -> None:
    random = np.random.default_rng(5)
    vectors, units = occurrences(random, 25), two_groups(10, 15)
    first, second = vectors[:10].astype(float), vectors[10:].astype(float)
    expected = float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum())
    expected -= first.var(axis=0, ddof=1).sum() / 10 + second.var(axis=0, ddof=1).sum() / 15
    squared = pairwise_distances(vectors, units.unit, squared=True)
    assert energy_statistic(squared, units)[0] / 2 == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("groups", [2, 4])
def test_a_batch_of_shuffled_labels_gives_the_statistic_of_each(groups: int) -> None:
    random = np.random.default_rng(6)
    unit = np.repeat(np.arange(20), random.integers(1, 5, 20))
    units = Units(unit, unit % groups)
    found = pairwise_distances(occurrences(random, len(unit)), unit)
    labels = np.concatenate(list(Exchange(units).shuffles(7, random)))
    one_by_one = [energy_statistic(found, Units(unit, row))[0] for row in labels]
    assert np.allclose(energy_statistic(found, units, labels), one_by_one, atol=1e-6)


def test_a_subset_of_the_matrix_is_the_matrix_of_a_subset() -> None:
    random = np.random.default_rng(7)
    vectors, units = occurrences(random, 60), alone(np.arange(60) % 3)
    rows, pair = units.subset([0, 2])
    alone_computed = energy_statistic(pairwise_distances(vectors[rows], pair.unit), pair)
    assert np.allclose(
        energy_statistic(pairwise_distances(vectors, units.unit).subset(rows), pair), alone_computed, atol=1e-6
    )


def test_the_matrix_does_not_depend_on_the_number_of_rows_at_once() -> None:
    vectors, unit = occurrences(np.random.default_rng(8), 50), np.arange(50) // 2
    whole = pairwise_distances(vectors, unit)
    assert np.allclose(pairwise_distances(vectors, unit, rows_at_once=7).matrix, whole.matrix, atol=1e-6)
    own = unit[:, None] == unit
    assert (whole.matrix[own] == 0).all()
    pairwise = np.linalg.norm(vectors[:, None].astype(float) - vectors, axis=2)
    assert whole.mean == pytest.approx(pairwise[~own].mean(), rel=1e-6)
    assert np.allclose(whole.matrix[~own] + whole.mean, pairwise[~own], atol=1e-5)


def test_estimates_without_a_difference_are_zero_on_average_and_not_cut_off() -> None:
    random = np.random.default_rng(9)
    for sizes in ((5, 5), (5, 40)):
        units = two_groups(*sizes)
        drawn = [pairwise_distances(occurrences(random, sum(sizes)), units.unit) for _ in range(600)]
        found = np.array([energy_statistic(one, units)[0] for one in drawn])
        assert abs(found.mean()) < 3 * found.std() / np.sqrt(len(found))
        assert (found < 0).mean() > 0.4


def test_a_prolific_author_does_not_bias_the_estimate() -> None:
    """Pairs within an author are close; if they counted, the groups would seem to differ."""
    random = np.random.default_rng(10)
    unit = np.repeat(np.arange(16), [15, *[1] * 15])
    found, naive = [], []
    for _ in range(400):
        vectors = occurrences(random, len(unit))
        vectors[:15] = vectors[0] + 0.01 * vectors[:15]
        label = random.permutation(np.arange(16) % 2)[unit]
        found.append(energy_statistic(pairwise_distances(vectors, unit), Units(unit, label))[0])
        naive.append(energy_statistic(pairwise_distances(vectors, np.arange(len(unit))), alone(label))[0])
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert np.mean(naive) > 10 * np.std(naive) / 20


def test_an_interval_is_asymmetric_by_the_linear_part_and_at_least_by_the_error_of_pairs() -> None:
    for found, estimate, slope in ((JackknifeVariance(0.01, 0.4), 1.0, 0.4), (JackknifeVariance(0.01, 0.04), 1.0, 0.1)):
        low, high = found.interval(estimate)
        assert high - estimate > estimate - low > 0
        # Each end is an effect that the estimate is 1.96 of that effect's errors away from.
        for end in (low, high):
            assert abs(end - estimate) == pytest.approx(1.96 * np.sqrt(0.01 + slope * end), rel=1e-3)


def test_an_interval_is_at_least_as_wide_as_the_error_of_pairs_and_not_cut_off_at_zero() -> None:
    for estimate in (-0.3, 0.0, 0.1):
        low, high = JackknifeVariance(0.04, 0.0).interval(estimate)
        assert high - low >= 2 * 1.96 * 0.2 - 1e-4
    assert JackknifeVariance(0.04, 0.0).interval(0.0)[0] < 0


def test_the_variance_counts_an_author_once() -> None:
    random = np.random.default_rng(12)
    unit = np.repeat(np.arange(30), 4)
    units = Units(unit, unit % 2)
    found, spreads = [], []
    for _ in range(300):
        vectors = np.repeat(occurrences(random, 30), 4, axis=0) + 0.1 * occurrences(random, 120)
        drawn = pairwise_distances(vectors, unit)
        found.append(energy_statistic(drawn, units)[0])
        spreads.append(jackknife_variance(drawn, units).pairs)
    assert np.mean(spreads) == pytest.approx(np.var(found), rel=0.3)
