"""Whatever bytes a file holds, each row comes out or is counted, or the file ends in one line."""

from __future__ import annotations

import bz2
import codecs
import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import discovery, timestamps

CSV = 'id,text,created_at,lang\n1,"a ""quoted"", 😷\nline",2020-01-01,en\n2,café,,de\n'
TWEET = {
    "id_str": "1",
    "text": "RT @b: a 😷…",
    "user": {"screen_name": "ann", "id_str": "9"},
    "retweeted_status": {"id_str": "7", "user": {"screen_name": "b"}, "extended_tweet": {"full_text": "a 😷 b"}},
    "created_at": "Wed Oct 10 20:19:24 +0000 2018",
}
PAGE = {
    "data": [
        {"id": "1", "text": "RT @b: a…", "author_id": "3", "referenced_tweets": [{"type": "retweeted", "id": "7"}]}
    ],
    "includes": {"tweets": [{"id": "7", "text": "a whole one"}]},
}
JSON = "".join(json.dumps(line) + "\n" for line in (TWEET, PAGE, {"text": "x", "lang": "en"}))
VALID = [(".csv", CSV.encode()), (".tsv", CSV.replace(",", "\t").encode()), (".jsonl", JSON.encode())]
ENCODINGS = [
    "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7", "latin-1", "cp1252",
    "cp037", "cp437", "koi8-r", "shift_jis", "gb18030", "big5", "euc-jp", "mac-roman",
]  # fmt: skip
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: bytes(pa.Codec("zstd").compress(data)),
}
quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
serial = itertools.count()


def survives(folder: Path, ending: str, data: bytes, unit_bytes: int = 2**20) -> bool:
    """Read a file with these bytes; False if it ended in one line."""
    path = folder / f"{next(serial)}{ending}"
    path.write_bytes(data)
    try:
        paths = discovery.expand([str(path)])
        assert discovery.file_identity(paths[0])["bytes"] == len(data)
        columns = discovery.find_columns(paths, {})
        for number, unit in enumerate(discovery.units(paths, columns, unit_bytes)):
            rows = discovery.read_unit(unit, columns)
            assert unit.number == number and set(rows.fields) == set(columns.wanted())
            for role, field in rows.fields.items():
                field.validate(full=True)
                assert field.type == pa.string() and len(field) == len(rows.numbers)
                assert role == "retweet_of" or not field.null_count
            assert sorted(set(rows.numbers.tolist())) == rows.numbers.tolist()
            assert not len(rows.numbers) or 0 <= rows.numbers[0] <= rows.numbers[-1] < rows.read
            timestamps.parse_times(rows.fields.get("time", rows.fields["text"]))
    except UserError as error:
        assert str(error).strip() and "\n" not in str(error)
        return False
    finally:
        path.unlink()
    return True


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with some runs of them replaced, doubled or taken out."""
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(data)))
        last = draw(st.integers(first, min(len(data), first + 12)))
        new = draw(
            st.binary(max_size=6) | st.sampled_from([b'"', b"\n", b"\r", b",", b"\\", b"\0", b"{", b"[", b"\xff"])
        )
        data = data[:first] + new * draw(st.integers(0, 3)) + data[last:]
    return data


@quick
@given(st.binary(max_size=300), st.sampled_from([".csv", ".tsv", ".jsonl", ".csv.gz", ".parquet", ".arrow", ""]))
def test_random_bytes(tmp_path, data, ending):
    survives(tmp_path, ending, data)


@quick
@given(st.sampled_from([b"text\n", b"text,id\n", b"id;text\r\n"]), st.binary(max_size=200), st.integers(1, 50))
def test_random_bytes_below_a_header(tmp_path, header, data, unit_bytes):
    survives(tmp_path, ".csv", header + data, unit_bytes)


@settings(quick, max_examples=400)
@given(st.data(), st.sampled_from(VALID), st.integers(1, 300))
def test_mutated_files(tmp_path, data, valid, unit_bytes):
    ending, content = valid
    survives(tmp_path, ending, data.draw(mutated(content)), unit_bytes)


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud83d"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "id_str", "text", "type"]), inner)
    ),
    max_leaves=6,
)
KEYS = [*TWEET, *PAGE, "full_text", "extended_tweet", "note_tweet", "referenced_tweets", "author_id", "lang"]


@quick
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON_VALUE, max_size=6), min_size=1, max_size=4))
def test_objects_whose_values_are_of_any_kind(tmp_path, objects):
    lines = [json.dumps(found) for found in [TWEET, *objects]]
    assert survives(tmp_path, ".jsonl", "\n".join(lines).encode())


@pytest.mark.parametrize(("ending", "content"), VALID)
def test_files_cut_off_anywhere(tmp_path, ending, content):
    ends = [survives(tmp_path, ending, content[:end]) for end in range(len(content) + 1)]
    assert ends[-1] and not ends[0]


@pytest.mark.parametrize(("ending", "pack"), PACKED.items())
@pytest.mark.parametrize("valid", VALID, ids=lambda valid: valid[0])
def test_zipped_files_cut_off_anywhere_end_in_one_line(tmp_path, ending, pack, valid):
    packed = pack(valid[1] * 3)
    for end in range(1, len(packed)):
        assert not survives(tmp_path, valid[0] + ending, packed[:end])
    assert survives(tmp_path, valid[0] + ending, packed)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("ending", "content"), VALID)
def test_every_encoding(tmp_path, ending, content, encoding):
    codecs.lookup(encoding)
    data = content.decode().encode(encoding, errors="replace")
    whole = survives(tmp_path, ending, data)
    assert whole or not encoding.startswith("utf-8")


@pytest.mark.parametrize("depth", [50, 900, 985, 100_000])
def test_objects_inside_of_objects_to_any_depth(tmp_path, depth):
    nested = '{"text": "a", "retweeted_status": ' * depth + "{}" + "}" * depth
    assert survives(tmp_path, ".jsonl", f'{{"text": "first"}}\n{nested}\n'.encode())


def test_odd_names_of_files(tmp_path):
    for name in ("\0", "a" * 5000, "no-such://a/b.csv", "://", "::", "http://", "memory://", "~nobody-here/x.csv"):
        with pytest.raises(UserError) as caught:
            paths = discovery.expand([name])
            for path in paths:
                discovery.file_identity(path)
            discovery.find_columns(paths, {})
        assert "\n" not in str(caught.value)
