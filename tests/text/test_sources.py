"""Reading CSV: every sound row comes through, every other is counted, and no file ends in a traceback."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.errors import UserError
from bert_tweets.text import sources
from bert_tweets.text.rows import Columns


def read_all(*paths: Path, chunk_bytes: int = 64, **asked: str) -> tuple[list[dict[str, str]], int, int]:
    """All rows as dictionaries, and how many were malformed and not UTF-8."""
    columns = sources.find_columns(list(paths), asked)
    rows, malformed, not_utf8 = [], 0, 0
    for block in sources.read(list(paths), columns, chunk_bytes):
        fields = {"number": block.numbers.tolist()}
        fields |= {role: getattr(block, role).to_pylist() for role in columns.wanted()}
        rows += [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
        malformed += block.malformed
        not_utf8 += block.not_utf8
    return rows, malformed, not_utf8


def texts(*paths: Path, **options) -> list[str]:
    return [row["text"] for row in read_all(*paths, **options)[0]]


def made(folder: Path, data: bytes | str, name: str = "tweets.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(st.sampled_from('ab ,"\n\r😷é'), min_size=1), st.text(st.sampled_from('1,"\n')))))
def test_rows_are_those_of_pythons_csv_module(tmp_path, rows):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("text", "id"), *rows])
    path = made(tmp_path, text.getvalue())
    assert [(row["text"], row["id"]) for row in read_all(path)[0]] == rows


def test_columns_are_found_by_name_whatever_the_case(tmp_path):
    path = made(tmp_path, "Tweet_ID,Created_At,Screen_Name,Full_Text\n7,2020-01-01,ann,hello\n")
    assert sources.find_columns([path], {}) == Columns("Full_Text", "Tweet_ID", "Created_At", "Screen_Name")
    assert sources.find_columns([path], {"text": "Screen_Name"}).text == "Screen_Name"


def test_a_missing_column_is_told_with_those_there(tmp_path):
    path = made(tmp_path, "content_clean,id\nx,1\n")
    with pytest.raises(UserError, match=r"no column 'content_cleaned' for the text \(did you mean 'content_clean'\?\)"):
        sources.find_columns([path], {"text": "content_cleaned"})
    with pytest.raises(UserError, match="no column of text among content_clean, id"):
        sources.find_columns([path], {})


@pytest.mark.parametrize("mark", [";", "\t"])
def test_columns_separated_by_something_else_are_recognised(tmp_path, mark):
    data = f'\ufeffid{mark}text\n1{mark}"x{mark} ""y"""\n2{mark}a, b\n'
    assert texts(made(tmp_path, data)) == [f'x{mark} "y"', "a, b"]


def test_every_file_must_have_the_columns_wherever_they_stand(tmp_path):
    first = made(tmp_path, "id,text\n1,a\n", "a.csv")
    second = made(tmp_path, "text,more,id\nb,x,2\n", "b.csv")
    assert [(row["id"], row["text"], row["number"]) for row in read_all(first, second)[0]] == [
        ("1", "a", 1),
        ("2", "b", 2),
    ]
    with pytest.raises(UserError, match=r"c\.csv: no column 'id'"):
        sources.find_columns([first, made(tmp_path, "text\nb\n", "c.csv")], {})


def test_a_wanted_name_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="2 columns are called 'text'"):
        sources.find_columns([made(tmp_path, "text,text\na,b\n")], {})
    assert texts(made(tmp_path, "text,x,x\na,b,c\n")) == ["a"]


def test_rows_with_another_number_of_columns_are_counted(tmp_path):
    rows, malformed, _ = read_all(made(tmp_path, "text,id\na,1\nb\nc,3,4\nd,4\n"), chunk_bytes=10)
    assert [(row["text"], row["number"]) for row in rows] == [("a", 1), ("d", 4)]
    assert malformed == 2


def test_rows_that_are_not_utf8_are_counted_and_no_other_is_lost(tmp_path):
    data = "text,id\ncafé,1\n".encode() + b"caf\xe9,2\n" + b"\xff\xff\n" + "ça,3\n".encode()
    rows, malformed, not_utf8 = read_all(made(tmp_path, data))
    assert [(row["text"], row["number"]) for row in rows] == [("café", 1), ("ça", 4)]
    assert (malformed, not_utf8) == (1, 1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_refused_in_one_line(tmp_path, encoding):
    with pytest.raises(UserError, match="save the file as UTF-8"):
        sources.find_columns([made(tmp_path, "text,id\nhello,1\n".encode(encoding))], {})


@pytest.mark.parametrize(("magic", "kind"), [(b"PK\x03\x04", "Excel"), (b"PAR1", "Parquet")])
def test_files_of_another_kind_are_named(tmp_path, magic, kind):
    with pytest.raises(UserError, match=kind):
        sources.find_columns([made(tmp_path, magic + b"abcdefgh" * 9)], {})


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="is empty"):
        sources.find_columns([made(tmp_path, data)], {})


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        sources.find_columns([tmp_path / "none.csv"], {})
    with pytest.raises(UserError, match="is a folder"):
        sources.find_columns([tmp_path], {})


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
    assert [len(text) for text in texts(path, chunk_bytes=2**20)] == [1, 10_000_000, 1]


def test_an_unclosed_quote_is_told_with_its_line(tmp_path):
    path = made(tmp_path, "text,id\n" + "fine,1\n" * 5000 + '"open,2\n' + "lost,3\n" * 5000)
    with pytest.raises(UserError, match=r"line 5002 is never closed"):
        texts(path, chunk_bytes=1000)


def test_gzip_is_read_whole_or_refused(tmp_path):
    data = ("text,id\n" + "".join(f"tweet {number},{number}\n" for number in range(5000))).encode()
    packed = gzip.compress(data[:100]) + gzip.compress(data[100:])
    assert len(texts(made(tmp_path, packed, "a.csv.gz"), chunk_bytes=1000)) == 5000
    packed = gzip.compress(data)
    for broken in (packed[: len(packed) // 2], packed[:2000] + b"????" + packed[2004:], packed[:-8] + b"\0" * 8):
        with pytest.raises(UserError, match=r"b\.csv\.gz: cannot be read to its end"):
            texts(made(tmp_path, broken, "b.csv.gz"), chunk_bytes=1000)
    with pytest.raises(UserError, match="is not gzip data"):
        texts(made(tmp_path, data, "c.csv.gz"))


def test_patterns_name_files_in_order(tmp_path):
    for name in ("b.csv", "a.csv"):
        made(tmp_path, "text\nx\n", name)
    assert [path.name for path in sources.expand([str(tmp_path / "*.csv")])] == ["a.csv", "b.csv"]
    with pytest.raises(UserError, match="no file is called like this"):
        sources.expand([str(tmp_path / "*.txt")])
