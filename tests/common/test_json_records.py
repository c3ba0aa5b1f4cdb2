"""JSON records: a type read back is the one that was written, and every other value is refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.common.json_records import add_checksum, parse_record, verify_checksum


class Kind(StrEnum):
    WORD = "word"
    PAIR = "pair"


class Row(TypedDict):
    word: str
    p_value: float | None
    note: NotRequired[str]


@dataclass(frozen=True)
class Inner:
    counts: dict[str, list[int]]
    kind: Kind


@dataclass(frozen=True)
class Outer:
    name: str
    share: float
    flag: bool
    inner: Inner
    rows: list[Row]
    pair: tuple[str, int]
    ends: tuple[float, ...] = ()
    level: Literal["high", "low"] = "low"
    anything: Any = None
    maybe: Inner | None = None
    texts: list[str] = field(default_factory=list)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(Row, word=st.text(), p_value=NUMBERS | st.none())
WHOLE = st.builds(Outer, share=NUMBERS, rows=st.lists(ROWS), ends=st.lists(NUMBERS).map(tuple))


@given(WHOLE)
def test_what_was_written_is_read_back(record: Outer) -> None:
    value = json.loads(json.dumps(asdict(record) | {"anything": None}))
    assert parse_record(value, Outer, "the record") == Outer(**{**vars(record), "anything": None})


def outer(**other: Any) -> Any:
    inner = {"counts": {"a": [1]}, "kind": "word"}
    rows = [{"word": "mask", "p_value": 0.5}]
    plain = {"name": "x", "share": 1.5, "flag": True, "inner": inner, "rows": rows, "pair": ["a", 1], "ends": [0.5]}
    return {**plain, "level": "high", "anything": [], "maybe": None, "texts": [], **other}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": 1}, "the record.name is not of type str"),
        ({"share": True}, "the record.share is not of type float"),
        ({"flag": 1}, "the record.flag is not of type bool"),
        (
            {"inner": {"counts": {"a": [1.5]}, "kind": "word"}},
            "an entry of the record.inner.counts.a is not of type int",
        ),
        ({"inner": {"counts": {}, "kind": "verb"}}, "the record.inner.kind is not one of word, pair"),
        ({"inner": {"counts": {}}}, "the record.inner does not have exactly the fields counts, kind"),
        ({"rows": [{"word": "mask"}]}, "an entry of the record.rows does not have exactly the fields"),
        ({"rows": [{"word": "mask", "p_value": "0"}]}, "an entry of the record.rows.p_value is not of type float"),
        ({"pair": ["a"]}, "the record.pair does not have 2 entries"),
        ({"level": "middle"}, "the record.level is not one of high, low"),
        ({"maybe": []}, "the record.maybe is not an object"),
        ({"more": 1}, "the record does not have exactly the fields"),
    ],
)
def test_another_type_is_refused_by_name(change: dict[str, Any], where: str) -> None:
    parse_record(outer(), Outer, "the record")
    with pytest.raises(ValueError, match=where):
        parse_record(outer(**change), Outer, "the record")


def test_an_integer_is_a_float_and_an_optional_field_may_be_missing() -> None:
    found = parse_record(outer(share=2, rows=[{"word": "mask", "p_value": 1, "note": "x"}]), Outer, "the record")
    assert found.share == 2.0 and isinstance(found.share, float) and found.rows[0]["note"] == "x"


@given(st.dictionaries(st.text(max_size=5).filter("checksum".__ne__), st.integers()), st.data())
def test_a_changed_record_does_not_match_its_checksum(record: dict[str, int], data: st.DataObject) -> None:
    written = json.dumps(add_checksum(record)).encode()
    assert verify_checksum(written) == record
    key = data.draw(st.sampled_from([*record, "more"]))
    with pytest.raises(ValueError):
        verify_checksum(json.dumps({**json.loads(written), key: -1 if record.get(key) != -1 else 0}).encode())
