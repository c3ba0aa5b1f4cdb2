"""Units of work: however the input is cut, and wherever a unit is read, the same rows come out."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import csv_source, discovery, table_source
from bert_tweets.corpus.sources.schema import Columns
from tests.corpus.sources.test_csv_source import made, read_all

FIELD = st.text(alphabet='ab ,"\n\ré😷\ufeff', max_size=8).map(str.encode) | st.just(b"\xff")
LINE = st.sampled_from(
    [
        b'{"text": "a"}',
        b'{"text": "b", "id": 5}',
        b'{"data": [{"text": "c"}, {"id": "1"}]}',
        b'{"data": []}',
        b"{",
        b"\xff",
        b"",
        b"  ",
    ]
)


def outcome(path: Path, unit_bytes: int) -> Any:
    try:
        return read_all(path, unit_bytes=unit_bytes)
    except UserError as error:
        return str(error)


def write_table(path: Path, rows: int, group_rows: int) -> Path:
    table = pa.table({"text": [f"tweet {number}" for number in range(rows)], "id": range(rows)})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=group_rows)
    else:
        pyarrow.feather.write_feather(table, path, chunksize=group_rows)
    return path


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.lists(st.lists(FIELD, min_size=1, max_size=3).map(b",".join), max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n"]),
    st.integers(1, 40),
)
@example([b"\xef\xbb\xbfa,1"], b"\n", 1)
def test_csv_cut_into_units_of_any_size_gives_the_same_rows(tmp_path, records, line_end, unit_bytes):
    path = made(tmp_path, line_end.join([b"text,id", *records]))
    assert outcome(path, unit_bytes) == outcome(path, 2**20)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINE, min_size=1), st.integers(1, 60))
def test_json_cut_into_units_of_any_size_gives_the_same_rows(tmp_path, lines, unit_bytes):
    path = made(tmp_path, b"\n".join([b'{"text": "a", "id": 1}', *lines]), "a.jsonl")
    assert outcome(path, unit_bytes) == outcome(path, 2**20)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text('ab,"\n\r😷', max_size=9), min_size=1), st.integers(1, 30))
def test_units_are_whole_records_of_about_the_requested_size(tmp_path, texts, unit_bytes):
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("text",), *((text,) for text in texts)])
    found = list(discovery.units([str(made(tmp_path, file.getvalue()))], Columns("text"), unit_bytes))
    assert [unit.number for unit in found] == list(range(len(found)))
    read = [row for unit in found for (row,) in csv.reader(io.StringIO(unit.payload.decode(), newline=""))]
    assert read == texts
    longest = max(len(f'"{text}"\n'.encode()) + text.count('"') for text in texts)
    assert all(len(unit.payload) <= 2 * max(unit_bytes, longest) for unit in found)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_a_unit_is_small_can_be_pickled_and_reads_the_same_twice(tmp_path, name):
    if name.endswith(("parquet", "arrow")):
        path = write_table(tmp_path / name, 50, 20)
    elif name.endswith("csv"):
        path = made(tmp_path, "text,id\n" + "".join(f"tweet {number},{number}\n" for number in range(50)), name)
    else:
        path = made(tmp_path, "".join(json.dumps({"text": f"t {n}", "id": n}) + "\n" for n in range(50)), name)
    columns = discovery.find_columns([str(path)], {})
    cut = list(discovery.units([str(path)], columns, 200))
    assert len(cut) > 2 and cut == list(discovery.units([str(path)], columns, 200))
    for unit in cut:
        packed = pickle.dumps(unit)
        assert len(packed) < 1000
        first, second = discovery.read_unit(unit, columns), discovery.read_unit(pickle.loads(packed), columns)
        assert first.fields == second.fields and (first.numbers == second.numbers).all()
        assert first.numbers[0] == 0


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_large_groups_of_a_table_are_several_units_each_within_one_group(tmp_path, name, monkeypatch):
    monkeypatch.setattr(table_source, "BATCH_ROWS", 30)
    path = write_table(tmp_path / name, 170, 100)
    columns = discovery.find_columns([str(path)], {})
    cut = list(discovery.units([str(path)], columns))
    assert [tuple(unit.payload) for unit in cut] == [
        (0, 0, 30), (0, 30, 30), (0, 60, 30), (0, 90, 10), (1, 0, 30), (1, 30, 30), (1, 60, 10),
    ]  # fmt: skip
    assert [row for unit in cut for row in discovery.read_unit(unit, columns).fields["id"].to_pylist()] == [
        str(number) for number in range(170)
    ]


def test_a_table_that_changed_after_it_was_cut_is_rejected(tmp_path):
    path = write_table(tmp_path / "a.parquet", 50, 20)
    columns = discovery.find_columns([str(path)], {})
    *_, last = discovery.units([str(path)], columns)
    write_table(path, 45, 20)
    with pytest.raises(UserError, match="has changed while it was read"):
        discovery.read_unit(last, columns)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        discovery.read_unit(last, columns)


def test_units_are_numbered_across_files_and_compressed_files_are_cut_alike(tmp_path):
    data = ("text,id\n" + "".join(f"tweet {number},{number}\n" for number in range(300))).encode()
    plain, zipped = made(tmp_path, data, "a.csv"), made(tmp_path, gzip.compress(data), "b.csv.gz")
    cut = list(discovery.units([str(plain), str(zipped)], Columns("text", "id"), 500))
    assert [unit.number for unit in cut] == list(range(len(cut)))
    payloads = {file: [unit.payload for unit in cut if unit.file == str(file)] for file in (plain, zipped)}
    assert payloads[plain] == payloads[zipped]


def test_memory_does_not_grow_with_the_input(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"text,id\n")
        for _ in range(20):
            file.write(b'"some tweet, quoted",1\n' * 50_000)
    path = str(tmp_path / "a.csv.gz")
    columns = discovery.find_columns([path], {})
    tracemalloc.start()
    total = sum(len(unit.payload) for unit in discovery.units([path], columns))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 20 * 2**20 and peak < 6 * csv_source.UNIT_BYTES


def test_missing_values_are_empty_and_no_retweet_is_null(tmp_path):
    table = pa.table(
        {
            "text": ["a", None, "c"],
            "lang": ["en", None, "de"],
            "retweeted_status_id": ["7", None, "nan"],
            "x": [1, 2, 3],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    csv_path = made(tmp_path, "text,lang,retweeted_status_id,x\na,en,7,1\n,,,2\nc,de,nan,3\n")
    for path in (str(tmp_path / "a.parquet"), str(csv_path)):
        columns = discovery.find_columns([path], {}, ["x"])
        assert columns.wanted() == {
            "text": "text", "language": "lang", "retweet_of": "retweeted_status_id", "group.x": "x",
        }  # fmt: skip
        (rows,) = discovery.read_tweets([path], columns)
        assert {role: field.to_pylist() for role, field in rows.fields.items()} == {
            "text": ["a", "", "c"],
            "language": ["en", "", "de"],
            "retweet_of": ["7", None, None],
            "group.x": ["1", "2", "3"],
        }
        with pytest.raises(UserError, match="no column 'y' for group_columns"):
            discovery.find_columns([path], {}, ["y"])
