"""Times as tweets' archives write them."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.corpus.sources import timestamps


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2018-10-10", "2018-10-10T00:00:00"),
        ("2018-10-10 20:19", "2018-10-10T20:19:00"),
        ("2018-10-10T20:19:24.123Z", "2018-10-10T20:19:24"),
        (" 2018-10-10 20:19:24 UTC", "2018-10-10T20:19:24"),
        ("2018-10-10T20:19:24+02:00", "2018-10-10T18:19:24"),
        ("2018-01-01T00:30:00-0130", "2018-01-01T02:00:00"),
        ("Wed Oct 10 20:19:24 +0000 2018", "2018-10-10T20:19:24"),
        ("Wed Oct 10 20:19:24 +0530 2018", "2018-10-10T14:49:24"),
        ("2018/1/5 8:19 pm", "2018-01-05T20:19:00"),
        ("2018-10-10 12:19:24 AM", "2018-10-10T00:19:24"),
        ("1539202764", "2018-10-10T20:19:24"),
        (" 1539202764123 ", "2018-10-10T20:19:24"),
        ("1539202764.0", "2018-10-10T20:19:24"),
        ("2018101020", None),
        ("1050118621198921728", None),
        ("10/31/2018", None),
        ("31.10.2018 20:19", None),
        ("2018-10-10 13:19 PM", None),
        ("2018-02-30", None),
        ("2018-10-10T25:00:00", None),
        ("10/11/2018", None),
        ("Wed Xyz 10 20:19:24 +0000 2018", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_what_is_understood(written, expected):
    texts = pa.array([written])
    (time,) = timestamps.parse_times(texts).to_pylist()
    assert (time and time.replace(tzinfo=None).isoformat()) == expected
    assert timestamps.not_parsed(texts, timestamps.parse_times(texts)).to_pylist() == [
        expected is None and written != ""
    ]


@pytest.mark.parametrize(
    ("written", "month_first", "day_first"),
    [
        ("2/11/2018", "2018-02-11T00:00:00", "2018-11-02T00:00:00"),
        ("02.11.2018 20:19", "2018-02-11T20:19:00", "2018-11-02T20:19:00"),
        ("2-11-18, 8:19:24 PM", "2018-02-11T20:19:24", "2018-11-02T20:19:24"),
        ("2/11/2018 0:19 +0200", "2018-02-10T22:19:00", "2018-11-01T22:19:00"),
        ("2/24/2018", "2018-02-24T00:00:00", None),
        ("24/2/2018", None, "2018-02-24T00:00:00"),
        ("2018-10-10", "2018-10-10T00:00:00", "2018-10-10T00:00:00"),
        ("Wed Oct 10 20:19:24 +0000 2018", "2018-10-10T20:19:24", "2018-10-10T20:19:24"),
        ("1/2/1998", None, None),
    ],
)
def test_numeric_days_and_months_are_read_in_the_given_order(written, month_first, day_first):
    texts = pa.array([written, "x"])
    for time_format, expected in (("mdy", month_first), ("dmy", day_first)):
        (time, none) = timestamps.parse_times(texts, time_format).to_pylist()
        assert none is None and (time and time.replace(tzinfo=None).isoformat()) == expected


def test_a_column_may_write_its_times_in_several_ways():
    texts = pa.array(["2018-10-10", "", None, "1539202764", "Wed Oct 10 20:19:24 +0000 2018", "3/4/2018", "?"])
    parsed = timestamps.parse_times(texts, "dmy")
    assert [time and time.month for time in parsed.to_pylist()] == [10, None, None, 10, 10, 4, None]
    assert timestamps.not_parsed(texts, parsed).to_pylist() == [False] * 6 + [True]


@given(st.lists(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2099, 1, 1)), max_size=5))
def test_iso_times_and_twitters_own_are_read_back(moments):
    moments = [moment.replace(microsecond=0) for moment in moments]
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%a %b %d %H:%M:%S +0000 %Y"):
        written = pa.array([moment.strftime(form) for moment in moments], pa.string())
        assert [time.replace(tzinfo=None) for time in timestamps.parse_times(written).to_pylist()] == moments
