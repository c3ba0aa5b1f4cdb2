"""Reading CSV: every sound row comes through, every other is counted, and no file ends in a traceback."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import byte_stream, discovery
from bert_tweets.corpus.sources.schema import Columns


def read_all(*paths: Path | str, unit_bytes: int = 64, **asked: str) -> tuple[list[dict[str, Any]], int, int]:
    """All rows as dictionaries, numbered from 0 over the whole input, and the numbers of invalid rows."""
    names = list(map(str, paths))
    columns = discovery.find_columns(names, asked)
    rows, malformed, not_utf8, read = [], 0, 0, 0
    for unit in discovery.units(names, columns, unit_bytes):
        block = discovery.read_unit(unit, columns)
        fields = {"number": (read + block.numbers).tolist()}
        fields |= {role: block.fields[role].to_pylist() for role in columns.wanted()}
        rows += [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
        malformed += block.malformed
        not_utf8 += block.not_utf8
        read += block.read
    return rows, malformed, not_utf8


def texts(*paths: Path | str, **options: Any) -> list[str]:
    return [row["text"] for row in read_all(*paths, **options)[0]]


def made(folder: Path, data: bytes | str, name: str = "tweets.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(st.sampled_from('ab ,"\n\r😷é'), min_size=1), st.text(st.sampled_from('1,"\n')))))
def test_rows_are_those_of_pythons_csv_module(tmp_path, rows):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("text", "id"), *rows])
    path = made(tmp_path, text.getvalue())
    assert [(row["text"], row["id"]) for row in read_all(path)[0]] == rows


def test_columns_are_found_by_name_whatever_the_case(tmp_path):
    path = made(tmp_path, "Tweet_ID,Created_At,Screen_Name,Full_Text\n7,2020-01-01,ann,hello\n")
    assert discovery.find_columns([str(path)], {}) == Columns("Full_Text", "Tweet_ID", "Created_At", "Screen_Name")
    assert discovery.find_columns([str(path)], {"text": "Screen_Name"}).text == "Screen_Name"


def test_space_around_names_is_no_part_of_them(tmp_path):
    path = made(tmp_path, "id, text ,Created_At \n7,hello,2020-01-01\n")
    assert discovery.find_columns([str(path)], {}) == Columns("text", "id", "Created_At")
    assert texts(path) == ["hello"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("1,hello world,2020-01-01\n", "is its first line a tweet?"),
        ("ann,so this is a tweet that went on and on for more than a name would do\n", "is its first line a tweet?"),
        ("id|body_text|date\n1|a|b\n", r"separated by commas, tabs or semicolons, not by \|"),
        ("id,body_text\n1,a\n", "text_column=NAME$"),
    ],
)
def test_a_possible_problem_of_a_header_is_reported(tmp_path, data, said):
    with pytest.raises(UserError, match=said):
        discovery.find_columns([str(made(tmp_path, data))], {})


def test_a_column_that_a_later_file_lacks_can_be_switched_off(tmp_path):
    first = made(tmp_path, '{"id_str": "1", "text": "a", "user": {"id_str": "7"}}\n', "v1.jsonl")
    second = made(tmp_path, '{"id_str": "2", "text": "b", "author_id": "7"}\n', "v2.jsonl")
    with pytest.raises(UserError, match="set author_column=none, or prepare such files separately"):
        discovery.find_columns([str(first), str(second)], {})
    assert len(texts(first, second, author="none")) == 2


def test_none_reads_no_column_unless_a_column_has_this_name(tmp_path):
    path = str(made(tmp_path, "id,text,author\n1,a,ann\n"))
    columns = discovery.find_columns([path], {"id": "none", "author": "none"})
    assert (columns.id, columns.author, columns.text) == (None, None, "text")
    path = str(made(tmp_path, "id,text,none\n1,a,x\n"))
    assert discovery.find_columns([path], {"id": "none"}).id == "none"
    with pytest.raises(UserError, match="no text column"):
        discovery.find_columns([str(made(tmp_path, "id,text\n1,a\n"))], {"text": "none"})


def test_a_missing_column_is_reported_with_the_existing_ones(tmp_path):
    path = made(tmp_path, "content_clean,id\nx,1\n")
    with pytest.raises(UserError, match=r"no column 'content_cleaned' for the text \(did you mean 'content_clean'\?\)"):
        discovery.find_columns([str(path)], {"text": "content_cleaned"})
    with pytest.raises(UserError, match="no text column among content_clean, id"):
        discovery.find_columns([str(path)], {})


@pytest.mark.parametrize("mark", [";", "\t"])
def test_columns_separated_by_something_else_are_recognised(tmp_path, mark):
    data = f'\ufeffid{mark}text\n1{mark}"x{mark} ""y"""\n2{mark}a, b\n'
    assert texts(made(tmp_path, data)) == [f'x{mark} "y"', "a, b"]


def test_the_header_may_end_with_any_line_end(tmp_path):
    assert texts(made(tmp_path, "id;text\r1;a, b\r")) == ["a, b"]


def test_every_file_must_have_the_columns_wherever_they_stand(tmp_path):
    first = made(tmp_path, "id,text\n1,a\n", "a.csv")
    second = made(tmp_path, "text,more,id\nb,x,2\n", "b.csv")
    assert [(row["id"], row["text"], row["number"]) for row in read_all(first, second)[0]] == [
        ("1", "a", 0),
        ("2", "b", 1),
    ]
    with pytest.raises(UserError, match=r"c\.csv: no column 'id'"):
        discovery.find_columns([str(first), str(made(tmp_path, "text\nb\n", "c.csv"))], {})


def test_a_wanted_name_that_occurs_twice_is_rejected(tmp_path):
    with pytest.raises(UserError, match="2 columns are called 'text'"):
        discovery.find_columns([str(made(tmp_path, "text,text\na,b\n"))], {})
    assert texts(made(tmp_path, "text,x,x\na,b,c\n")) == ["a"]


def test_rows_with_another_number_of_columns_are_counted(tmp_path):
    rows, malformed, _ = read_all(made(tmp_path, "text,id\na,1\nb\nc,3,4\nd,4\n"), unit_bytes=10)
    assert [(row["text"], row["number"]) for row in rows] == [("a", 0), ("d", 3)]
    assert malformed == 2


def test_rows_that_are_not_utf8_are_counted_and_no_other_is_lost(tmp_path):
    data = "text,id\ncafé,1\n".encode() + b"caf\xe9,2\n" + b"\xff\xff\n" + "ça,3\n".encode()
    rows, malformed, not_utf8 = read_all(made(tmp_path, data))
    assert [(row["text"], row["number"]) for row in rows] == [("café", 0), ("ça", 3)]
    assert (malformed, not_utf8) == (1, 1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_rejected_in_one_line(tmp_path, encoding):
    with pytest.raises(UserError, match="save the file as UTF-8"):
        discovery.find_columns([str(made(tmp_path, "text,id\nhello,1\n".encode(encoding)))], {})


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PK\x03\x04" + b"\0" * 20 + b"[Content_Types].xml", "is a spreadsheet .*; save it as CSV in UTF-8"),
        (b"PK\x03\x04mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "is a spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500, "is a spreadsheet"),
        (b"PK\x03\x04" + b"\0" * 20 + b"tweets.csv", "is a zip archive; unpack it first"),
        (b"\xfd7zXZ\x00\0\0\0", "is an xz archive"),
        (b"PAR1", "is a Parquet file; give it a name that ends in .parquet"),
    ],
)
@pytest.mark.parametrize("name", ["tweets.csv", "tweets.xlsx", "tweets.jsonl"])
def test_files_of_another_kind_are_named(tmp_path, start, said, name):
    with pytest.raises(UserError, match=said):
        discovery.find_columns([str(made(tmp_path, start + b"abcdefgh" * 9, name))], {})


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_rejected(tmp_path, data):
    with pytest.raises(UserError, match="is empty"):
        discovery.find_columns([str(made(tmp_path, data))], {})


def test_a_missing_file_and_a_folder_are_rejected(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        discovery.find_columns([str(tmp_path / "none.csv")], {})
    with pytest.raises(UserError, match="is a folder"):
        discovery.find_columns([str(tmp_path)], {})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbftext,id\na,1\n", ["a"]),
        (b"text,id\r\na,1\r\n\r\nb,2\r\n", ["a", "b"]),
        (b"\n\ntext,id\n\na,1\n\n\nb,2", ["a", "b"]),
        (b"text,id\ra,1\rb,2", ["a", "b"]),
        (b"text,id\na\x00b,1\n", ["a\x00b"]),
        (b'text,id\n"a\nb",1\n"",2\n', ["a\nb", ""]),
        (b'text,id\nso "quoted" here,1\n', ['so "quoted" here']),
        (b"text,id\nNA,1\nnull,2\n", ["NA", "null"]),
        (b"text\na\n\nb\n", ["a", "b"]),
        (b"text,id\n", []),
        (b"text,id", []),
    ],
)
def test_shapes_that_files_come_in(tmp_path, data, expected):
    assert texts(made(tmp_path, data)) == expected


def test_a_field_of_ten_megabytes_is_a_row_like_any(tmp_path):
    path = made(tmp_path, b"text,id\na,1\n" + b"x" * 10_000_000 + b",2\nb,3\n")
    assert [len(text) for text in texts(path, unit_bytes=2**20)] == [1, 10_000_000, 1]


def test_an_unclosed_quote_is_reported_with_its_line(tmp_path):
    path = made(tmp_path, "text,id\n" + "fine,1\n" * 5000 + '"open,2\n' + "lost,3\n" * 5000)
    with pytest.raises(UserError, match=r"line 5002 is never closed"):
        texts(path, unit_bytes=1000)


def test_a_row_whose_open_quote_is_closed_by_a_later_tweet_is_counted_and_placed(tmp_path):
    rows = [f"{number},fine" for number in range(30)]
    rows[10], rows[14] = '10,"left open', '14,they said "no" to it'
    path = made(tmp_path, "id,text\n" + "\n".join(rows))
    found, malformed, _ = read_all(path, unit_bytes=2**20)
    assert malformed == 1 and [row["number"] for row in found] == [n for n in range(26) if n != 10]
    assert [int(row["id"]) for row in found] == [n for n in range(30) if not 10 <= n <= 14]
    (unit,) = discovery.units([str(path)], Columns("text"), 2**20)
    assert discovery.read_unit(unit, Columns("text")).unreadable == (10,)
    assert texts(made(tmp_path, 'text,id\n"a ""b\n"" c",1\n"q" d,2\n')) == ['a "b\n" c', "q d"]


def test_an_open_quote_is_found_after_doubled_ones_and_empty_lines(tmp_path):
    for text in ('"a ""b""\nc" d', '"a\n ""b"" c" d', '"a\r\n" d'):
        path = made(tmp_path, f"text,id\n\nx,1\n\n\ny,2\n{text},3\n\nz,4\n")
        rows, malformed, _ = read_all(path, unit_bytes=2**20)
        assert ([row["number"] for row in rows], malformed) == ([0, 1, 3], 1)


def test_the_first_unreadable_rows_are_reported(tmp_path):
    data = b"text,id\na,1\nb\nc\nd,\xff\ne\nf\ng,2\n"
    columns = Columns("text", "id")
    (unit,) = discovery.units([str(made(tmp_path, data))], columns)
    assert discovery.read_unit(unit, columns).unreadable == (1, 2, 3)


def test_gzip_is_read_completely_or_rejected(tmp_path):
    data = ("text,id\n" + "".join(f"tweet {number},{number}\n" for number in range(5000))).encode()
    packed = gzip.compress(data[:100]) + gzip.compress(data[100:])
    assert len(texts(made(tmp_path, packed, "a.csv.gz"), unit_bytes=1000)) == 5000
    packed = gzip.compress(data)
    for broken in (packed[: len(packed) // 2], packed[:2000] + b"????" + packed[2004:], packed[:-8] + b"\0" * 8):
        with pytest.raises(UserError, match=r"b\.csv\.gz: cannot be read to its end"):
            texts(made(tmp_path, broken, "b.csv.gz"), unit_bytes=1000)
    with pytest.raises(UserError, match="is not gzip data"):
        texts(made(tmp_path, data, "c.csv.gz"))


def test_reading_continues_after_a_short_read(tmp_path, monkeypatch):
    class Drops(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 7))

    path = made(tmp_path, "text\n" + "tweet\n" * 100)
    monkeypatch.setattr(byte_stream, "open_file", lambda path, **_: Drops(path))
    assert texts(path) == ["tweet"] * 100
