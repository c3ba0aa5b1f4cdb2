"""Small files that unpack to much, and fields without end: one line each, before they fill the memory or the disk."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import byte_stream, csv_splitter, discovery, json_source
from tests.helpers import generated_tweets


def rows_of(path: Path) -> int:
    columns = discovery.find_columns([str(path)], {})
    return sum(len(rows.numbers) for rows in discovery.read_tweets([str(path)], columns))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        rows_of(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zstd)])
def test_a_file_that_decompresses_to_far_more_than_tweets_do_is_rejected(tmp_path, monkeypatch, ending, pack):
    monkeypatch.setattr(byte_stream, "_UNCHECKED_BYTES", 2**20)
    bomb, tweets = tmp_path / f"bomb.csv.{ending}", tmp_path / f"tweets.csv.{ending}"
    bomb.write_bytes(pack(b"text\n" + b"a tweet\n" * 2**20))
    assert bomb.stat().st_size < 2**15
    assert "decompresses to more than 100 times its size" in refused(bomb)
    texts = generated_tweets(20_000)
    tweets.write_bytes(pack("\n".join(["text", *(text.replace(",", "") for text in texts)]).encode()))
    assert rows_of(tweets) == len(texts)


def test_a_bomb_below_a_gigabyte_is_a_file_like_any(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"text\n" + b"a tweet\n" * 2**18))
    assert rows_of(path) == 2**18


def test_a_frame_that_requests_two_gigabytes_is_rejected(tmp_path):
    path = tmp_path / "t.csv.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00")
    assert "too much memory" in refused(path)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather"])
def test_a_text_that_a_table_says_in_every_row_is_not_written_out(tmp_path, ending):
    said = pa.DictionaryArray.from_arrays(pa.array([0] * 2**16, pa.int32()), pa.array(["a" * 2**18]))
    table, path = pa.table({"text": said}), tmp_path / f"t.{ending}"
    if ending == "parquet":
        # As text: the dictionary is then of the file, not of the column.
        pa.parquet.write_table(pa.table({"text": said.slice(0, 2**12).cast(pa.string())}), tmp_path / "small.parquet")
        assert rows_of(tmp_path / "small.parquet") == 2**12
        pa.parquet.write_table(table, path, store_schema=False)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    assert path.stat().st_size < 2**20
    assert "column 'text' decodes to more than 1 GB in 65,536 rows" in refused(path)


def test_texts_that_repeat_are_read_as_they_stand(tmp_path):
    texts = [["hello", None, "hello", "ab"][n % 4] for n in range(70_000)]
    table = pa.table({"text": texts, "id": list(range(70_000)), "label": pa.array(["x"] * 70_000).dictionary_encode()})
    pa.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=50_000)
    path = str(tmp_path / "t.parquet")
    columns = discovery.find_columns([path], {}, groups=["label"])
    read = list(discovery.read_tweets([path], columns))
    assert [text for rows in read for text in rows.fields["text"].to_pylist()] == [text or "" for text in texts]
    assert [int(name) for rows in read for name in rows.fields["id"].to_pylist()] == list(range(70_000))
    assert {name for rows in read for name in rows.fields["group.label"].to_pylist()} == {"x"}


def test_a_header_of_ten_thousand_columns_is_rejected(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"text" + b"," * 2**20 + b"\na\n")
    assert "has more than 10,000 columns" in refused(path)


@pytest.mark.parametrize("field", ["a" * 2**21, '"' + "a\n" * 2**20 + '"', '"' + "a\n" * 2**20])
def test_an_endless_field_is_reported_with_its_line(tmp_path, monkeypatch, field):
    monkeypatch.setattr(csv_splitter, "LONGEST_RECORD", 2**20)
    path = tmp_path / "t.csv"
    path.write_text(f"text\nfirst\n{field}\nlast\n")
    monkeypatch.setattr("bert_tweets.corpus.sources.csv_source.UNIT_BYTES", 2**16)
    assert "line 3" in refused(path)


def test_an_endless_line_of_json_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(json_source, "_LONGEST_LINE", 2**20)
    monkeypatch.setattr(json_source, "UNIT_BYTES", 2**16)
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "a" * 2**22 + '"}\n')
    assert "a line longer than 64 MB" in refused(path)
