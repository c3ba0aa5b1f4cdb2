"""Exact spans: each has a row, and a long text becomes a window around its word."""

from __future__ import annotations

import csv
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets import embed
from bert_tweets.common.errors import UserError
from bert_tweets.words.occurrences.span_corpus import make_windows, window
from bert_tweets.words.occurrences.span_file import read_spans
from tests.helpers import make_shards
from tests.test_evaluate import export_scratch


@given(st.integers(1, 60), st.data(), st.integers(1, 20))
def test_a_window_contains_the_span_and_is_full(tokens: int, data: Any, room: int) -> None:
    first = data.draw(st.integers(0, tokens - 1))
    count = data.draw(st.integers(1, tokens - first))
    begin, stop = window(tokens, np.arange(first, first + count), room)
    assert 0 <= begin <= stop <= tokens and stop - begin == min(tokens, room)
    if count <= room:
        assert begin <= first and first + count <= stop
        before, after = first - begin, stop - first - count
        # As much on both sides, except at an end of the text.
        assert abs(before - after) <= 1 or begin == 0 or stop == tokens


def test_windows_are_parts_of_the_text(tiny_tokenizer: Any) -> None:
    filler = "the virus " * 30
    long_word = "photographtheinternetunbelievable" * 3
    texts = [f"{filler}mask {filler}", "mask on", f"{filler}{long_word} mask", "no 漢 here", f"mask {filler}", ""]
    first = len(filler)
    start = np.array([first, 0, first, 3, 0, -1])
    end = np.array([first + 4, 4, first + len(long_word), 4, 4, -1])
    tokens, status, positions = make_windows(texts, start, end, tiny_tokenizer, 16)
    whole = [len(tiny_tokenizer(texts[row])["input_ids"]) for row in (1, 3, 5)]
    assert tokens.lengths.tolist() == [16, whole[0], 16, whole[1], 16, whole[2]] and max(whole) < 16
    assert status.tolist() == [0, 0, 1, 2, 0, 2]
    bounds = np.append(0, np.cumsum(tokens.lengths))
    for row in (0, 1, 4):
        ids = tokens.input_ids[bounds[row] : bounds[row + 1]]
        found = tiny_tokenizer.convert_ids_to_tokens(ids[positions[row]].tolist())
        assert "".join(piece.removeprefix("##") for piece in found) == "mask"
        assert ids[0] == tiny_tokenizer.cls_token_id and ids[-1] == tiny_tokenizer.sep_token_id
    assert len(positions[2]) == len(positions[3]) == len(positions[5]) == 0
    assert abs(int(positions[0][0]) - 8) <= 1


ROWS = [
    {"text": "I wear a mask 😷 today", "start": 9, "end": 13, "topic": "x", "author": "ann"},
    {"text": "Banks of the river", "start": 0, "end": 5, "topic": "y,z", "author": ""},
    {"text": "a mask, and a mask", "start": 14, "end": 18, "topic": "", "author": "ann"},
]


def spans_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["spans.csv", "spans.jsonl", "spans.parquet"])
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    file = read_spans(str(spans_file(tmp_path / name, ROWS)))
    assert file.texts.to_pylist() == [row["text"] for row in ROWS]
    assert (file.start.tolist(), file.end.tolist()) == ([9, 0, 14], [13, 5, 18])
    assert [file.words[number].text for number in file.number] == ["mask", "banks", "mask"]
    assert list(file.groups) == ["topic"] and file.groups["topic"].to_pylist() == ["x", "y,z", None]
    ann, nobody, again = file.author.to_pylist()
    assert ann == again != "ann" and nobody is None


def test_author_columns_are_never_kept_as_groups(tmp_path: Path) -> None:
    rows = [{**row, "username": f"@{row['author']}", "author_id": str(number)} for number, row in enumerate(ROWS)]
    file = read_spans(str(spans_file(tmp_path / "spans.csv", rows)))
    assert list(file.groups) == ["topic"]


def test_a_file_may_be_a_url(tmp_path: Path) -> None:
    path = spans_file(tmp_path / "spans.csv", ROWS)
    assert read_spans(path.as_uri()).sha256 == read_spans(str(path)).sha256 == sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 30, "end": 33}, "row 2: 30 to 33 is not a span of its text of 18 characters"),
        ({"start": 5, "end": 5}, "row 2: 5 to 5"),
        ({"start": 5, "end": 19}, "row 2: 5 to 19"),
        ({"start": -1}, "row 2: start is '-1'"),
        ({"end": "x"}, "row 2: end is 'x'"),
        ({"start": 5, "end": 6}, "row 2: its span is of spaces only"),
        ({"word": ""}, "row 2: has no word"),
    ],
)
def test_a_wrong_span_names_its_row(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [{"word": "w", **row} if "word" in change else row for row in ROWS]
    rows[1] = {**rows[1], **change}
    with pytest.raises(UserError, match=message) as caught:
        read_spans(str(spans_file(tmp_path / "spans.csv", rows)))
    assert "\n" not in str(caught.value)


def test_a_file_without_its_columns_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column 'start'"):
        read_spans(str(spans_file(tmp_path / "spans.csv", [{"text": "mask", "end": 4}])))
    (tmp_path / "empty.csv").write_text("text,start,end\n")
    with pytest.raises(UserError, match="has no rows"):
        read_spans(str(tmp_path / "empty.csv"))


@pytest.fixture(scope="module")
def ours(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the recipe of shards."""
    return export_scratch(tmp_path_factory.mktemp("ours") / "model", shards, 0)


def test_every_span_has_a_row(ours: Path, tmp_path: Path) -> None:
    long = "the internet and the virus " * 40
    rows = [
        {"text": "see https://t.co/mask and my mask😷", "start": 29, "end": 33, "word": "mask", "topic": "a"},
        {"text": "see https://t.co/mask and my mask😷", "start": 17, "end": 21, "word": "mask", "topic": "a"},
        {"text": f"{long}mask {long}", "start": len(long), "end": len(long) + 4, "word": "mask", "topic": "b"},
        {"text": "the virus &amp; the virus", "start": 20, "end": 25, "word": "virus", "topic": "b"},
        {"text": "the 漢 virus", "start": 4, "end": 5, "word": "kanji", "topic": "b"},
    ]
    output = tmp_path / "words"
    where = [f"model={ours}", f"occurrences={spans_file(tmp_path / 's.csv', rows)}", f"output={output}"]
    embed.stage([*where, "layers=-1", "background_minimum=1", "include_text=true", "device=cpu"])
    found = {(row["tweet_id"], row["start"]): row for row in pq.read_table(output / "occurrences.parquet").to_pylist()}
    assert len(found) == 5
    statuses = []
    for number, row in enumerate(rows, 1):
        made = found[str(number), row["start"]]
        statuses.append(made["status"])
        assert (made["end"], made["word"], made["group.topic"]) == (row["end"], row["word"], row["topic"])
        assert made["text"] == row["text"] and made["control"] is False
        assert (made["vector"] is not None) == (made["status"] == "found")
    assert statuses == ["found", "unknown", "found", "found", "unknown"]
    # Copies of one text are one cluster; the window has its word in the middle.
    assert found["1", 29]["cluster"] == found["2", 17]["cluster"] != found["4", 20]["cluster"]
    longest = found["3", len(long)]
    assert longest["tweet_length"] > 60 and abs(longest["position"] - longest["tweet_length"] // 2) < 3
    summary = json.loads((output / "summary.json").read_text())
    assert summary["words"]["mask"]["found"] == 2 and summary["words"]["mask"]["neighbours"]
    assert any("2 of the spans" in note for note in summary["notes"])


def test_spans_give_the_vectors_of_shards(ours: Path, shards: Path, tmp_path: Path) -> None:
    """The same occurrences, given by their spans, get the vectors that a search in shards gives them."""
    texts = [f"my mask {number} is on" for number in range(30)]
    own = make_shards(tmp_path / "own", texts, tokenizer=str(shards / "tokenizer"))
    where = [f"model={ours}", "layers=-1", "background_tweets=0", "controls=0", "device=cpu"]
    embed.stage([*where, f"data.path={own}", "words=mask", f"output={tmp_path / 'a'}"])
    rows = [{"id": str(number), "text": text, "start": 3, "end": 7} for number, text in enumerate(texts)]
    embed.stage([*where, f"occurrences={spans_file(tmp_path / 's.csv', rows)}", f"output={tmp_path / 'b'}"])
    sides = [
        {row["tweet_id"]: row["vector"] for row in pq.read_table(tmp_path / side / "occurrences.parquet").to_pylist()}
        for side in "ab"
    ]
    assert sides[0].keys() == sides[1].keys() and len(sides[0]) == 30
    for name, vector in sides[0].items():
        np.testing.assert_allclose(vector, sides[1][name], atol=1e-5)


def test_spans_and_words_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        embed.main(["model=m", "occurrences=s.csv", "output=o", "words=mask", "data.path=s"])
    assert "leave out words, data.path" in capsys.readouterr().err
