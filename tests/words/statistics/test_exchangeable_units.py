"""Units: one occurrence per cluster, whole units are exchanged, and groups keep their sizes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.words.statistics.exchangeable_units import (
    Exchange,
    Units,
    count_cross_group_clusters,
    earliest_per_cluster,
    sample_per_owner,
)

NEVER = np.iinfo(np.int64).max


def test_the_earliest_occurrence_of_a_cluster_stays_whatever_its_group() -> None:
    cluster = np.array([7, 3, 7, 3, 9, 9])
    time = np.array([20, 5, 10, 5, NEVER, 1])
    for seed in range(20):
        kept = set(earliest_per_cluster(cluster, time, np.random.default_rng(seed)).tolist())
        assert kept in ({1, 2, 5}, {3, 2, 5})
    assert count_cross_group_clusters(cluster, np.array([0, 0, 1, 0, 1, 1])) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=60))
def test_each_cluster_keeps_one_occurrence_and_no_other_is_earlier(rows: list[tuple[int, int]]) -> None:
    cluster, time = np.array(rows).T
    kept = earliest_per_cluster(cluster, time, np.random.default_rng(0))
    assert kept.tolist() == sorted(kept.tolist())
    assert sorted(cluster[kept].tolist()) == sorted(set(cluster.tolist()))
    for row in kept.tolist():
        assert time[row] == time[cluster == cluster[row]].min()


def test_copies_without_times_are_chosen_at_random_not_by_the_order_of_rows() -> None:
    """If rows come group by group, the first group gets half of the clusters of both groups, not all."""
    clusters = np.arange(400)
    kept = earliest_per_cluster(np.tile(clusters, 2), np.full(800, NEVER), np.random.default_rng(0))
    assert 150 < (kept < 400).sum() < 250


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 5))
def test_no_owner_has_more_rows_than_the_limit(owners: list[int], limit: int) -> None:
    owner = np.array(owners)
    kept = sample_per_owner(owner, limit, np.random.default_rng(0))
    counts = Counter(owner[kept].tolist())
    assert counts == {name: min(limit, count) for name, count in Counter(owners).items()}
    assert kept.tolist() == sample_per_owner(owner, limit, np.random.default_rng(0)).tolist() == sorted(kept.tolist())
    assert sample_per_owner(owner, 0, np.random.default_rng(0)).tolist() == list(range(len(owners)))


def test_rows_of_an_owner_are_chosen_at_random() -> None:
    kept = [sample_per_owner(np.zeros(20, np.int64), 1, np.random.default_rng(seed))[0] for seed in range(400)]
    assert len(set(kept)) == 20 and abs(np.mean(kept) - 9.5) < 1


units_of_people = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=12)


@given(units_of_people)
def test_the_labels_of_a_unit_stay_together(people: list[list[int]]) -> None:
    label = np.array([group for person in people for group in person])
    unit = np.repeat(np.arange(len(people)), [len(person) for person in people])
    units = Units(unit, np.unique(label, return_inverse=True)[1])
    shuffled = np.concatenate(list(Exchange(units).shuffles(20, np.random.default_rng(1))))
    assert shuffled.shape == (20, len(label))

    def carried(labels: np.ndarray) -> list[tuple[int, ...]]:
        return [tuple(labels[unit == one].tolist()) for one in range(len(people))]

    before = carried(units.label)
    nested = all(len(set(profile)) == 1 for profile in before)
    for labels in shuffled:
        after = carried(labels)
        if nested:
            assert Counter(profile[0] for profile in after) == Counter(profile[0] for profile in before)
            assert all(len(set(profile)) == 1 for profile in after)
        else:
            assert Counter(after) == Counter(before)
            assert np.bincount(labels, minlength=3).tolist() == np.bincount(units.label, minlength=3).tolist()


@pytest.mark.parametrize(
    ("unit", "label", "ways"),
    [
        ([0, 1, 2, 3], [0, 0, 1, 1], 6),
        ([0, 0, 1, 2, 2, 2], [0, 0, 1, 1, 1, 1], 3),  # one of three authors is in group 0
        ([0, 0, 1, 1, 2], [0, 1, 0, 0, 1], 2),  # the two of two occurrences change places, the third is alone
    ],
)
def test_arrangements_are_those_that_occur(unit: list[int], label: list[int], ways: int) -> None:
    exchange = Exchange(Units(np.array(unit), np.array(label)))
    shuffled = np.concatenate(list(exchange.shuffles(300, np.random.default_rng(0))))
    assert len(np.unique(shuffled, axis=0)) == round(exchange.arrangements()) == ways


def test_too_many_arrangements_are_infinite() -> None:
    assert Exchange(Units(np.arange(4000), np.arange(4000) % 2)).arrangements() == np.inf


def test_a_subset_of_groups_has_its_units() -> None:
    units = Units(np.array([0, 0, 1, 2, 3]), np.array([0, 2, 1, 2, 0]))
    rows, pair = units.subset([0, 2])
    assert (rows.tolist(), pair.unit.tolist(), pair.label.tolist()) == ([0, 1, 3, 4], [0, 0, 1, 2], [0, 1, 1, 0])
    assert units.units_per_group().tolist() == [2, 1, 2]
