"""Permutation tests: p-values by their definition, ties count against a finding, and false discovery rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.words.statistics.energy_distance import energy_statistic, pairwise_distances
from bert_tweets.words.statistics.exchangeable_units import Units
from bert_tweets.words.statistics.permutation_test import permutation_test, q_values
from tests.words.synthetic import occurrences, two_groups


def test_the_p_value_counts_permutations_that_are_at_least_as_large() -> None:
    random = np.random.default_rng(0)
    units = two_groups(20, 20)
    found = pairwise_distances(occurrences(random, 40), units.unit)
    test = permutation_test(found, units, 499, np.random.default_rng(1))
    observed = energy_statistic(found, units)[0]
    assert len(test.null) == 499 and (np.diff(test.null) >= 0).all()
    assert test.p_value == ((test.null >= observed - 1e-6).sum() + 1) / 500
    assert test.min_attainable_p == 1 / 500


def test_a_tie_counts_against_the_finding() -> None:
    """Two units per group have six labellings; each partition has two of them, with the same statistic."""
    vectors = occurrences(np.random.default_rng(0), 8)
    unit = np.repeat([0, 1, 2, 3], 2)
    units = Units(unit, np.repeat([0, 0, 1, 1], 2))
    test = permutation_test(pairwise_distances(vectors, unit), units, 999, np.random.default_rng(1))
    assert test.min_attainable_p == pytest.approx(1 / 6) and test.p_value >= 0.3


def test_the_same_seed_gives_the_same_p_value_and_a_plain_difference_the_smallest() -> None:
    vectors, units = occurrences(np.random.default_rng(2), 60), two_groups(30, 30)
    vectors[:30, 0] += 3
    found = pairwise_distances(vectors, units.unit)
    first, second = (permutation_test(found, units, 199, np.random.default_rng(5)) for _ in range(2))
    assert first.p_value == second.p_value == 1 / 200
    assert (first.null == second.null).all()


def test_above_the_detectable_effect_p_is_within_the_level() -> None:
    units = two_groups(30, 30)
    found = pairwise_distances(occurrences(np.random.default_rng(2), 60), units.unit)
    test = permutation_test(found, units, 999, np.random.default_rng(5))
    for level in (0.001, 0.05, 0.3):
        threshold = test.detectable_effect(level)
        assert threshold is not None

        def p_value(estimate: float) -> float:
            return ((test.null >= estimate).sum() + 1) / 1000

        assert p_value(threshold + 1e-9) <= level < p_value(threshold)
    assert test.detectable_effect(0.0009) is None


def test_q_values_by_hand() -> None:
    assert q_values(np.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert q_values(np.array([])).tolist() == []


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=30), st.floats(0.01, 0.5))
def test_findings_are_those_of_the_step_up_procedure(p_values: list[float], level: float) -> None:
    """Findings are the k smallest p-values, for the largest k with p_k ≤ k · level / m."""
    p, q = np.array(p_values), q_values(np.array(p_values))
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= np.arange(1, len(p) + 1) * level / len(p) * (1 + 1e-12))
    threshold = ordered[below[-1]] if len(below) else -1.0
    near = np.abs(q - level) < 1e-9
    assert ((q <= level) == (p <= threshold))[~near].all()
    assert (q >= p - 1e-15).all() and (q <= 1).all()
