"""Helpers for runs of different lengths agree with plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.arrays import ranges, run_starts

ROWS = st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), max_size=20)


@given(ROWS)
def test_a_run_starts_where_a_row_differs_from_the_one_before(rows: list[tuple[int, int]]) -> None:
    table = np.array(rows, np.int64).reshape(-1, 2)
    expected = [place for place, row in enumerate(rows) if not place or row != rows[place - 1]]
    assert run_starts(table[:, 0], table[:, 1]).tolist() == expected


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 5)), max_size=20))
def test_ranges_are_those_of_python(runs: list[tuple[int, int]]) -> None:
    table = np.array(runs, np.int64).reshape(-1, 2)
    assert ranges(table[:, 0], table[:, 1]).tolist() == [
        n for start, count in runs for n in range(start, start + count)
    ]
