"""Covariates: numbers, truth values, times and levels as columns, and levels that are too rare."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.words.analysis.covariates import covariate, covariate_column, has_common_levels


def column(values: list[object], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def test_levels_are_compared_with_the_first_level_of_the_word() -> None:
    party = covariate("party", column(["b", "a", None, "c", "b"]))
    assert party.levels == ["a", "b", "c"] and party.known.tolist() == [True, True, False, True, True]
    term, described = party.columns(np.array([0, 3, 4]))
    assert term.tolist() == [[0], [1], [0]] and described == [{"name": "c", "per": "change from b"}]


def test_time_is_standardised_and_a_period_is_a_level() -> None:
    times = [datetime(2020, 1, 1 + 10 * number, tzinfo=UTC) for number in range(3)]
    stamps = column([*times, None], pa.timestamp("s", tz="UTC"))
    time = covariate("time", stamps)
    term, described = time.columns(np.arange(3))
    assert term[:, 0] == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])
    assert described == [{"name": "time", "per": "standard deviation (8.165 days)"}]
    assert time.known.tolist() == [True] * 3 + [False]
    assert covariate("month", stamps).levels == ["2020-01"]


def test_numbers_and_truth_values_stay_as_they_are() -> None:
    assert covariate("retweet", column([True, False])).columns(np.arange(2))[0].tolist() == [[1], [0]]
    assert covariate("links", column([3, 0], pa.int32())).columns(np.arange(2))[0].tolist() == [[3], [0]]
    assert covariate("position", column([-1, 4], pa.int32())).known.tolist() == [False, True]
    with pytest.raises(UserError, match="covariates=vector: its column is of type list"):
        covariate("vector", column([[1.0]]))


def test_a_column_is_found_by_its_name() -> None:
    names = ["time", "links", "subwords", "group.party", "group.links"]
    columns = {"time": "time", "month": "time", "links": "links", "subwords": "subwords", "party": "group.party"}
    columns["group.links"] = "group.links"
    assert {name: covariate_column(name, names, Path("w")) for name in columns} == columns
    with pytest.raises(
        UserError, match=r"covariates=partei: w has no such column .did you mean 'party'.*it has time, day"
    ):
        covariate_column("partei", names, Path("w"))
    with pytest.raises(UserError, match="covariates=casing"):
        covariate_column("casing", names, Path("w"))


def test_rare_levels_are_left_out_until_no_level_is_rare() -> None:
    first = covariate("first", column(["a"] * 6 + ["b"] * 4 + ["c"]))
    second = covariate("second", column(["x"] * 4 + ["y"] * 2 + ["y"] + ["x"] * 4))
    rows = np.arange(11)
    selected = has_common_levels([first, second], rows, rows, 3)
    # Without c there is one x fewer; y still has three.
    assert selected.tolist() == [True] * 10 + [False]
    assert has_common_levels([first, second], rows, rows, 4).sum() == 4
    # A level of a single unit is rare, however many occurrences it has.
    assert not has_common_levels([first], rows, np.zeros(11, np.int64), 3).any()
