"""Sources of other formats than CSV: the same tweets come out of each, and every damage is one line or a count."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import discovery, table_source
from tests.corpus.sources.test_csv_source import made, read_all

TWEETS = [
    {"id": "1", "created_at": "2020-01-01", "author": "ann", "text": 'a "quoted", tab\there'},
    {"id": "2", "created_at": "2020-01-02", "author": "bob", "text": "two 😷\nlines"},
    {"id": "3", "created_at": "2020-01-03", "author": "", "text": "café"},
]
EXPECTED = [
    {"number": number, "id": t["id"], "time": t["created_at"], "author": t["author"], "text": t["text"]}
    for number, t in enumerate(TWEETS)
]


def json_lines(tweets: list[object]) -> bytes:
    return "".join(json.dumps(tweet, ensure_ascii=False) + "\n" for tweet in tweets).encode()


def write(folder: Path, name: str) -> Path:
    path = folder / name
    table = pa.Table.from_pylist(TWEETS)
    if ".parquet" in name:
        pq.write_table(table.set_column(3, "text", table["text"].dictionary_encode()), path, row_group_size=2)
    elif ".feather" in name or ".arrow" in name:
        pyarrow.feather.write_feather(table, path, chunksize=2)
    else:
        if ".tsv" in name:
            quoted = [[f'"{value.replace(chr(34), chr(34) * 2)}"' for value in tweet.values()] for tweet in TWEETS]
            data = "\n".join("\t".join(row) for row in [list(TWEETS[0]), *quoted]).encode()
        else:
            data = json_lines(list(TWEETS))
        packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": pa.Codec("zstd").compress}.get(path.suffix, bytes)
        path.write_bytes(packed(data))
    return path


@pytest.mark.parametrize(
    "name", ["a.tsv", "a.tsv.gz", "a.jsonl", "a.json.zst", "a.ndjson.bz2", "a.parquet", "a.feather", "a.arrow"]
)
@pytest.mark.parametrize("unit_bytes", [7, 10_000])
def test_the_same_tweets_come_out_of_every_format(tmp_path, name, unit_bytes):
    assert read_all(write(tmp_path, name), unit_bytes=unit_bytes) == (EXPECTED, 0, 0)


def test_files_of_several_formats_are_one_input(tmp_path):
    for name in ("a.tsv", "b.jsonl", "c.parquet"):
        write(tmp_path, name)
    (tmp_path / "notes.txt").write_text("not tweets")
    paths = discovery.expand([str(tmp_path)])
    assert [Path(path).name for path in paths] == ["a.tsv", "b.jsonl", "c.parquet"]
    rows = read_all(*paths)[0]
    assert [row["number"] for row in rows] == list(range(9))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no file"):
        discovery.expand([str(tmp_path / "empty")])


def test_tweets_of_the_first_interface_are_read_at_full_length(tmp_path):
    user = {"screen_name": "ann", "id_str": "7"}
    long = {"text": "cut of…", "truncated": True, "extended_tweet": {"full_text": "cut off nowhere"}}
    tweets = [
        {"id_str": "1", "created_at": "Wed Oct 10 20:19:24 +0000 2018", "user": user, "full_text": "whole"},
        {"id_str": "2", "created_at": "Wed Oct 10 20:19:24 +0000 2018", "user": user, **long},
        {
            "id_str": "3",
            "user": user,
            "text": "RT @bob: cut of…",
            "retweeted_status": {"user": {"screen_name": "bob"}, **long},
        },
    ]
    path = made(tmp_path, json_lines(tweets), "v1.jsonl")
    rows, malformed, _ = read_all(path, text="text", author="user.screen_name")
    assert [row["text"] for row in rows] == ["whole", "cut off nowhere", "RT @bob: cut off nowhere"]
    assert [row["author"] for row in rows] == ["ann"] * 3 and malformed == 0
    found = discovery.find_columns([str(path)], {})
    assert (found.id, found.time, found.author) == ("id_str", "created_at", "user.id_str")


def test_pages_of_the_v2_api_are_split_into_tweets(tmp_path):
    page = {
        "data": [{"id": "1", "text": "a", "author_id": "9"}, {"id": "2", "text": "b", "author_id": "8"}],
        "meta": {},
    }
    single = {"data": {"id": "3", "text": "c", "author_id": "9"}}
    rows, malformed, _ = read_all(made(tmp_path, json_lines([page, single]), "v2.jsonl"))
    assert [(row["number"], row["id"], row["text"], row["author"]) for row in rows] == [
        (0, "1", "a", "9"),
        (1, "2", "b", "8"),
        (2, "3", "c", "9"),
    ]
    assert malformed == 0


def test_a_key_data_next_to_a_text_is_not_a_page(tmp_path):
    tweets = [
        {"text": "one", "id": "1", "data": [1, 2]},
        {"text": "two", "id": "2", "data": []},
        {"text": "three", "id": "3", "data": {"text": "another"}},
        {"text": "four", "id": "4", "data": [{"text": "another"}]},
    ]
    rows, malformed, _ = read_all(made(tmp_path, json_lines(tweets), "a.jsonl"))
    assert [row["text"] for row in rows] == ["one", "two", "three", "four"] and not malformed


def test_what_a_page_holds_is_counted_whatever_it_is(tmp_path):
    pages = [
        {"data": [{"text": "a"}, None, 5]},
        {"data": []},
        {"data": [], "meta": {"result_count": 0}},
        {"data": None},
    ]
    path = made(tmp_path, json_lines(pages), "a.jsonl")
    (block,) = discovery.read_tweets([str(path)], discovery.find_columns([str(path)], {}))
    assert block.fields["text"].to_pylist() == ["a"]
    assert (block.read, block.malformed, block.notices, block.unreadable) == (6, 2, 3, (1, 2))


def test_retweets_of_the_v1_api_are_recognised(tmp_path):
    user = {"screen_name": "ann", "id_str": "7"}
    tweets = [
        {"id_str": "1", "user": user, "text": "first", "lang": "en"},
        *({"id_str": str(number), "user": user, "text": "later"} for number in range(200)),
        {"id_str": "2", "user": user, "text": "RT @b: x", "retweeted_status": {"id_str": "1", "text": "x"}},
        {"id_str": "3", "user": user, "text": "RT @b: x", "retweeted_status": {"id": 1}},
        {"id_str": "4", "user": user, "text": "RT @b: x", "retweeted_status": {}},
    ]
    rows, _, _ = read_all(made(tmp_path, json_lines(tweets), "v1.jsonl"))
    assert [row["retweet_of"] for row in rows] == [None] * 201 + ["1", "1", ""]
    assert [row["language"] for row in rows[:2]] == ["en", ""]


def test_a_file_of_tweets_need_not_begin_with_a_retweet(tmp_path):
    retweet = {"text": "x", "retweeted_status": {"id_str": "1"}}
    first = made(tmp_path, json_lines([retweet]), "a.jsonl")
    second = made(tmp_path, json_lines([{"text": "y"}] * 200 + [retweet]), "b.jsonl")
    assert [row["retweet_of"] for row in read_all(first, second)[0]] == ["1", *[None] * 200, "1"]


def test_retweets_of_the_v2_api_get_their_full_text_from_the_page(tmp_path):
    def retweet(original: str) -> dict[str, object]:
        references = [{"type": "quoted", "id": "0"}, {"type": "retweeted", "id": original}]
        return {"id": "9", "author_id": "1", "text": "RT @bob: cut: o…", "referenced_tweets": references}

    reply = {"id": "8", "author_id": "1", "text": "no", "referenced_tweets": [{"type": "replied_to", "id": "5"}]}
    long = {"id": "6", "text": "cut: o…", "note_tweet": {"text": "cut: off nowhere at all"}}
    includes = {"tweets": [{"id": "5", "text": "cut: off nowhere"}, long], "users": []}
    page = {"data": [retweet("5"), retweet("6"), retweet("4"), reply], "includes": includes}
    rows, malformed, _ = read_all(made(tmp_path, json_lines([page, {"data": [], "meta": {}}]), "v2.jsonl"))
    assert [(row["text"], row["retweet_of"]) for row in rows] == [
        ("RT @bob: cut: off nowhere", "5"),
        ("RT @bob: cut: off nowhere at all", "6"),
        ("RT @bob: cut: o…", "4"),
        ("no", None),
    ]
    assert malformed == 0


def test_a_column_of_retweeted_ids_says_nothing_in_many_ways(tmp_path):
    values = ["12", " 13 ", "", "nan", "NaN", "None", "null", "0", "False"]
    data = "text,retweet_of\n" + "".join(f"a,{value}\n" for value in values)
    found = [row["retweet_of"] for row in read_all(made(tmp_path, data))[0]]
    assert found == ["12", "13", *[None] * 7]
    data = json_lines([{"text": "a", "retweet_of": value} for value in [*values, None, False, 14]])
    found = [row["retweet_of"] for row in read_all(made(tmp_path, data, "a.jsonl"))[0]]
    assert found == ["12", "13", *[None] * 9, "14"]


REPLY, QUOTE = {"type": "replied_to", "id": "1"}, {"type": "quoted", "id": "2"}
RETWEET = {"type": "retweeted", "id": "3"}
REFERENCES = [None, [], [REPLY], [QUOTE], [RETWEET], [REPLY, RETWEET], [RETWEET, QUOTE], [{**RETWEET, "id": None}]]
RETWEET_OF = [None, None, None, None, "3", "3", "3", ""]


@pytest.mark.parametrize(
    "written",
    [
        json.dumps,
        str,
        lambda found: str([{"id": entry["id"], "type": entry["type"]} for entry in found]),
        lambda found: json.dumps(json.dumps(found)),
        lambda found: str([SimpleReference(entry) for entry in found]),
    ],
)
def test_a_flattened_column_of_references_distinguishes_retweets_from_replies_and_quotes(tmp_path, written):
    values = ["" if found is None else written(found) for found in REFERENCES]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "referenced_tweets"), *(("a", value) for value in [*values, "5"])])
    assert [row["retweet_of"] for row in read_all(path)[0]] == [*RETWEET_OF, None]
    lines = json_lines([{"text": "a", "referenced_tweets": value} for value in values])
    assert [row["retweet_of"] for row in read_all(made(tmp_path, lines, "a.jsonl"))[0]] == RETWEET_OF


class SimpleReference:
    """An entry as tweepy prints it."""

    def __init__(self, entry: dict[str, str]):
        self.entry = entry

    def __repr__(self) -> str:
        return f"<ReferencedTweet id={self.entry['id']} type={self.entry['type']}"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("unit_rows", [2, 100])
def test_references_of_a_table_are_read_as_lists_of_structs(tmp_path, name, unit_rows, monkeypatch):
    monkeypatch.setattr(table_source, "BATCH_ROWS", unit_rows)
    kind = pa.list_(pa.struct([("type", pa.string()), ("id", pa.string())]))
    table = pa.table({"text": ["a"] * len(REFERENCES), "referenced_tweets": pa.array(REFERENCES, kind)})
    if name.endswith("parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        pyarrow.feather.write_feather(table, tmp_path / name)
    assert [row["retweet_of"] for row in read_all(tmp_path / name)[0]] == RETWEET_OF


def test_columns_that_hold_no_text_are_not_found_by_their_names(tmp_path):
    table = pa.table(
        {
            "text": ["a"],
            "user": [{"id": 1, "screen_name": "ann"}],
            "username": ["ann"],
            "author": [["ann"]],
            "date": [{"y": 2020}],
            "referenced_tweets": [["1"]],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    columns = discovery.find_columns([str(tmp_path / "a.parquet")], {})
    assert columns.wanted() == {"text": "text", "author": "username"}
    assert read_all(tmp_path / "a.parquet")[0] == [{"number": 0, "text": "a", "author": "ann"}]


def test_notices_of_the_stream_are_no_malformed_tweets(tmp_path):
    notices: list[object] = [
        {"connected": True},
        {"limit": {"track": 12}},
        {"delete": {"status": {"id": 1}, "timestamp_ms": "1"}},
        {"status_withheld": {"id": 1}},
        {"limit": "none", "text": "a tweet"},
        {"id": 3},
        {},
    ]
    path = str(made(tmp_path, json_lines([*notices, {"text": "b"}]), "a.jsonl"))
    columns = discovery.find_columns([path], {})
    assert columns.wanted() == {"text": "text", "id": "id"}
    (rows,) = discovery.read_tweets([path], columns)
    assert rows.fields["text"].to_pylist() == ["a tweet", "b"] and rows.numbers.tolist() == [4, 7]
    assert (rows.notices, rows.malformed, rows.read, rows.unreadable) == (4, 2, 8, (5, 6))


def test_whole_numbers_of_a_table_have_no_decimal_point(tmp_path):
    numbers = {"id": [5.0e15, None, float("nan")], "score": [0.5, 1.0, 2e16], "is_reply": [True, False, None]}
    table = pa.table({"text": ["a", "b", "c"], **numbers})
    pyarrow.feather.write_feather(table, tmp_path / "a.arrow")
    path = str(tmp_path / "a.arrow")
    lines = [{"text": "a", **{name: column[row] for name, column in numbers.items()}} for row in range(3)]
    for file in (path, str(made(tmp_path, json_lines(lines), "a.jsonl"))):
        (rows,) = discovery.read_tweets([file], discovery.find_columns([file], {}, ["score", "is_reply"]))
        assert rows.fields["id"].to_pylist() == ["5000000000000000", "", ""]
        assert rows.fields["group.score"].to_pylist() == ["0.5", "1", "2e+16"]
        assert rows.fields["group.is_reply"].to_pylist() == ["true", "false", ""]


def test_what_is_kept_must_be_no_object_or_list_in_json_as_in_tables(tmp_path):
    for value, said in (({"id": 1}, "an object, not text; name a key inside it, such as place.id"), ([1], "a list")):
        path = str(made(tmp_path, json_lines([{"text": "a", "place": None}, {"text": "b", "place": value}]), "a.jsonl"))
        with pytest.raises(UserError, match=f"a.jsonl: column 'place' is {said}"):
            list(discovery.read_tweets([path], discovery.find_columns([path], {}, ["place"])))


def test_lines_that_are_bad_are_counted(tmp_path):
    bad = [b'{"text": "ok"}', b"{", b"[1]", b'{"text": 5}', b'{"id": "1"}', b'{"text": "\xff"}', b'"text"', b""]
    bad += [b'{"text": "half \\ud83d"}', b"[" * 100_000, b'{"text": "last"}']
    rows, malformed, not_utf8 = read_all(made(tmp_path, b"\n".join(bad), "bad.jsonl"))
    assert [(row["number"], row["text"]) for row in rows] == [(0, "ok"), (9, "last")]
    assert (malformed, not_utf8) == (7, 1)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.binary(max_size=40) | st.just(b'{"text": "x"}'), min_size=1), st.integers(1, 50))
def test_no_bytes_end_in_a_traceback(tmp_path, lines, unit_bytes):
    path = made(tmp_path, b"\n".join(lines), "fuzz.jsonl")
    try:
        rows, malformed, not_utf8 = read_all(path, unit_bytes=unit_bytes)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(rows) + malformed + not_utf8 >= 1


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.json", b'[{"text": "a"}]', "a JSON array"),
        ("a.jsonl", b"text,id\na,1\n", "does not begin with JSON objects; JSON Lines have one object per line$"),
        ("a.json", b'{\n "text": "a"\n}\n', r"does an object span several lines\? \(jq -c \.\)"),
        ("a.parquet", b"text,id\na,1\n", "is not parquet data"),
        ("a.arrow", b"ARROW1 but not really", "is not arrow data"),
        ("a.jsonl.gz", b'{"text": "a"}', "is not gzip data"),
        ("a.jsonl", b'{"id": "1"}\n', "no text column"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_one_line(tmp_path, name, data, said):
    with pytest.raises(UserError, match=said) as caught:
        discovery.find_columns([str(made(tmp_path, data, name))], {})
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_text_is_rejected(tmp_path):
    pq.write_table(pa.table({"text": [[1, 2]], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no text column among id;"):
        read_all(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column 'text' is list"):
        read_all(tmp_path / "a.parquet", text="text")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_an_unused_name_may_occur_twice(tmp_path, name):
    table = pa.table([["x"], ["y"], ["a"]], names=["more", "more", "text"])
    with (tmp_path / name).open("wb") as file:
        if name == "a.parquet":
            pq.write_table(table, file)
        else:
            pyarrow.feather.write_feather(table, file)
    assert read_all(tmp_path / name)[0] == [{"number": 0, "text": "a"}]
    with pytest.raises(UserError, match="2 columns are called 'more'"):
        read_all(tmp_path / name, text="more")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary(), pa.binary_view()])
def test_every_kind_of_text_that_is_not_utf8_is_called_so(tmp_path, kind):
    broken = pa.array([b"caf\xe9"])
    broken = pa.Array.from_buffers(kind, 1, broken.buffers()) if kind == pa.string() else broken.cast(kind)
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.schema({"text": kind})) as file:
        file.write(pa.record_batch({"text": broken}))
    with pytest.raises(UserError, match="column 'text' has bytes that are not UTF-8"):
        read_all(tmp_path / "a.arrow")


def test_a_table_whose_text_is_not_utf8_is_rejected(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    pyarrow.feather.write_feather(pa.table({"text": broken}), tmp_path / "a.arrow", compression="uncompressed")
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(UserError, match="column 'text' has bytes that are not UTF-8"):
            read_all(tmp_path / name)


def test_numbers_and_times_of_tables_become_text(tmp_path):
    times = pa.array(np.array(["2020-01-01T10:00:00"], dtype="datetime64[s]"))
    pq.write_table(pa.table({"text": ["a"], "id": [2**60], "created_at": times}), tmp_path / "a.parquet")
    (row,) = read_all(tmp_path / "a.parquet")[0]
    assert row["id"] == str(2**60) and row["time"].startswith("2020-01-01 10:00:00")
