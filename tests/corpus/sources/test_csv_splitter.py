"""Cutting at record ends: the pieces, parsed one by one, give the same rows as the whole."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import csv_splitter

FIELDS = st.text(alphabet='ab ,"\n\ré😷', max_size=8)


class Bytes:
    """A stream of some bytes."""

    def __init__(self, data: bytes):
        self.left = data

    def read(self, size: int) -> bytes:
        given, self.left = self.left[:size], self.left[size:]
        return given

    def unread(self, data: bytes) -> None:
        self.left = data + self.left


def cut(data: bytes, size: int) -> list[bytes]:
    return list(csv_splitter.pieces(Bytes(data), size, "tweets.csv"))


def arrow_rows(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """The rows of two columns as Arrow reads them, and how many others there are."""
    others = []
    if not data.strip(b"\r\n"):
        return [], 0
    table = pyarrow.csv.read_csv(
        pa.py_buffer(data),
        read_options=pyarrow.csv.ReadOptions(column_names=["a", "b"], block_size=len(data) + 1, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(
            newlines_in_values=True, invalid_row_handler=lambda row: others.append(row) or "skip"
        ),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"a": pa.binary(), "b": pa.binary()}),
    )
    return list(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)), len(others)


@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=8), st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
def test_quoted_commas_newlines_and_quotes_at_any_size_size(rows, size, line_end):
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(rows)
    pieces = cut(text.getvalue().encode(), size)
    found = [row for piece in pieces for row in csv.reader(io.StringIO(piece.decode(), newline=""))]
    assert found == [list(row) for row in rows]
    assert b"".join(pieces) == text.getvalue().encode()


@given(st.text(alphabet='a,"\n\r', max_size=30), st.integers(1, 12))
@example('1,x"y\n2,"a\nb"\n', 3)
@example('1,"q"tail,x"\n4,5\n', 4)
@example('a,"b""\n\n"""\n', 1)
def test_stray_quotes_are_read_as_arrow_reads_them(text, size):
    data = text.encode()
    try:
        pieces = cut(data, size)
    except UserError as error:
        assert "never closed" in str(error)
        return
    assert b"".join(pieces) == data
    parts = [arrow_rows(piece) for piece in pieces]
    whole = arrow_rows(data)
    assert ([row for rows, _ in parts for row in rows], sum(count for _, count in parts)) == whole


@given(st.text(alphabet='a,"\n', max_size=30))
def test_the_fast_and_the_slow_path_agree_where_every_quote_is_well_placed(text):
    import numpy as np

    data = np.frombuffer(text.encode(), dtype=np.uint8)
    quotes = np.flatnonzero(data == csv_splitter.QUOTE)
    slow = csv_splitter._toggles_one_by_one(quotes, data)
    fast = csv_splitter.quote_toggles(data)
    assert len(slow) % 2 == len(fast) % 2
    inside = [np.searchsorted(toggles, np.flatnonzero(data == csv_splitter.NEWLINE)) % 2 for toggles in (slow, fast)]
    assert (inside[0] == inside[1]).all()


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_an_unclosed_quote_is_reported_with_its_line(line_end, size):
    data = line_end.join(["id,text", '1,"two', 'lines"', '2,"never closed', "3,x", ""]).encode()
    with pytest.raises(UserError, match=r"tweets\.csv: the quote that opens in line 4 is never closed"):
        cut(data, size)


def test_a_record_without_an_end_is_given_up_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(csv_splitter, "LONGEST_RECORD", 1000)
    with pytest.raises(UserError, match="line 2 is never closed"):
        cut(b'text\n"' + b"x\n" * 5000, 100)
    with pytest.raises(UserError, match="line 2 is longer"):
        cut(b"text\n" + b"x" * 5000, 100)


@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_lines_of_records_are_those_that_python_counts(rows, line_end):
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(rows)
    ends = [sum(csv_splitter.count_lines(field.encode()) for field in row) for row in rows]
    found = csv_splitter.spans(text.getvalue().encode())
    assert dict(zip(found.records.tolist(), found.lines.tolist(), strict=True)) == {
        number: count + 1 for number, count in enumerate(ends) if count
    }
    assert not len(found.swallowing)


@given(st.text(alphabet="a\n\r").map(str.encode), st.integers(1, 5))
def test_lines_are_counted_whatever_ends_them(data, cached):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_splitter, "_CACHED_BYTES", cached)
        assert csv_splitter.count_lines(data) == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n")
