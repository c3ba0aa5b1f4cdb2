"""Files of pairs: each known format gives the same spans and labels, and errors name the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.words.meaning_test.pair_files import Pairs, read_pairs

FIRST, SECOND = "The bank of a river .", "My  bank lends money"


def spans(pairs: Pairs) -> list[str]:
    return [text[first:last] for text, first, last in zip(pairs.texts, pairs.start, pairs.end, strict=True)]


def lines(path: Path, records: list[Any]) -> str:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records), encoding="utf-8")
    return str(path)


def test_tab_separated_lines_with_their_gold_file(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "dev.data.txt", [f"bank\tN\t1-1\t{FIRST}\t{SECOND}", f"river\tN\t4-0\t{FIRST}\tRivers flow"]
    )
    lines(tmp_path / "dev.gold.txt", ["F", "T", ""])
    pairs = read_pairs(path)
    assert (spans(pairs), pairs.same.tolist()) == (["bank", "bank", "river", "Rivers"], [0, 1])
    assert pairs.words == ["bank", "river"] and len(pairs) == 2
    assert read_pairs(path, lines(tmp_path / "own", ["1", "0"])).same.tolist() == [1, 0]


def test_json_lines_of_superglue(tmp_path: Path) -> None:
    record = {"word": "Bank ", "sentence1": FIRST, "sentence2": SECOND, "start1": 4, "end1": 8, "start2": 4, "end2": 8}
    records = [record | {"idx": 0, "label": False}, "", record | {"idx": 1, "label": True}]
    pairs = read_pairs(lines(tmp_path / "val.jsonl", records))
    assert (spans(pairs), pairs.same.tolist(), pairs.words) == (["bank"] * 4, [0, 1], ["bank"] * 2)


def test_json_lines_of_tempowic_with_labels_by_id(tmp_path: Path) -> None:
    tweet = {"text": "🦠 bank\u2028holiday", "text_start": 2, "text_end": 6, "date": "2020-01"}
    records = [{"id": f"17{number}-bank", "word": "bank", "tweet1": tweet, "tweet2": tweet} for number in range(3)]
    path = lines(tmp_path / "train.data.jl", records)
    lines(tmp_path / "train.labels.tsv", ["id\tlabel", "172-bank\t1", "170-bank\t0", "171-bank\t1"])
    pairs = read_pairs(path)
    assert (spans(pairs), pairs.same.tolist()) == (["bank"] * 6, [0, 1, 1])
    few = read_pairs(path, lines(tmp_path / "few", ["171-bank\t0", "9-bank\t1"]))
    assert (len(few), few.same.tolist(), few.unlabelled) == (1, [0], 2)
    with pytest.raises(UserError, match=r"other: has no label with the id of a pair of .*train\.data\.jl"):
        read_pairs(path, lines(tmp_path / "other", ["9-bank\t0"]))


@pytest.mark.parametrize("odd", ['"start1": Infinity', '"start1": null', '"text1": "\\ud83d bank"'])
def test_half_a_surrogate_pair_is_one_line(tmp_path: Path, odd: str) -> None:
    record = {"word": "bank", "text1": "a bank", "start1": 2, "end1": 6, "text2": "a bank", "start2": 2, "end2": 6}
    line = json.dumps({**record, "label": 1})
    assert len(read_pairs(lines(tmp_path / "fine.jsonl", [line]))) == 1
    with pytest.raises(UserError, match=r"odd\.jsonl:1: is not a pair"):
        read_pairs(lines(tmp_path / "odd.jsonl", [f"{line[:-1]}, {odd}}}"]))


def test_json_lines_of_our_own_format(tmp_path: Path) -> None:
    record = {
        "word": "bank",
        "text1": FIRST,
        "start1": 4,
        "end1": 8,
        "text2": SECOND,
        "start2": 4,
        "end2": 8,
        "label": 1,
    }
    assert spans(read_pairs(lines(tmp_path / "own.jsonl", [record]))) == ["bank", "bank"]


RECORD = {"word": "a", "text1": "a b", "start1": 0, "end1": 1, "text2": "a", "start2": 0, "end2": 1, "label": "1"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (RECORD | {"end1": 9}, r"f:2: 0 to 9 is not a span of its text of 3 characters"),
        (RECORD | {"start2": 1, "end2": 1}, "f:2: 1 to 1 is not a span"),
        (RECORD | {"label": "maybe"}, "f:2: its label is 'maybe'"),
        (RECORD | {"label": -1}, "f:2: its label is '-1'"),
        (RECORD | {"text1": 5}, "f:2: is not a pair; give tab-separated lines"),
        ({"word": "a"}, "f:2: is not a pair"),
        ("{", "f:2: is not JSON"),
        ("one\ttwo", "f:2: is not a pair"),
        ("a\tN\t0-7\ta\ta b", "f:2: its text has 2 tokens, but the word's index is 7"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_pairs(lines(tmp_path / "f", [RECORD, line]))
    assert "\n" not in str(caught.value)


def test_missing_files_and_labels_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        read_pairs(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="has no pairs"):
        read_pairs(lines(tmp_path / "empty", [""]))
    path = lines(tmp_path / "x.data.txt", ["a\tN\t0-0\ta\ta"])
    with pytest.raises(UserError, match="has no labels, and there is no label file next to it"):
        read_pairs(path)
    with pytest.raises(UserError, match=r"has 2 lines, .* has 1 pairs"):
        read_pairs(path, lines(tmp_path / "two", ["T", "F"]))
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_pairs(str(tmp_path / "bytes"))
    assert np.array_equal(read_pairs(path, lines(tmp_path / "one", ["T"])).same, [1])
