"""Times as tweets' archives write them."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.text import times


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
    (time,) = times.parse(texts).to_pylist()
    assert (time and time.replace(tzinfo=None).isoformat()) == expected
    assert times.not_understood(texts, times.parse(texts)).to_pylist() == [expected is None and written != ""]


@given(st.lists(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2099, 1, 1)), max_size=5))
def test_iso_times_and_twitters_own_are_read_back(moments):
    moments = [moment.replace(microsecond=0) for moment in moments]
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%a %b %d %H:%M:%S +0000 %Y"):
        written = pa.array([moment.strftime(form) for moment in moments], pa.string())
        assert [time.replace(tzinfo=None) for time in times.parse(written).to_pylist()] == moments
