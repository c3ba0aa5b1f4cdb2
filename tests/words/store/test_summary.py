"""summary.json and embed.json are read as their declared types, or rejected in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.words.store.folder import EMBED_RECORD, SUMMARY, read_embed_record
from bert_tweets.words.store.summary import Summary, read_summary, write_summary
from tests.words.summaries import control_word_record, summary_record, word_record, write_records

MEASURE = {"by_seed": [0.5, None], "control_quantiles": [0.1, 0.2, 0.3], "rank": 2, "num_ranked": 4}
DRIFT = {"neighbour_overlap": MEASURE, "distance_correlation": {**MEASURE, "control_quantiles": None, "rank": None}}


def full_summary() -> dict[str, Any]:
    word = word_record(3, truncated=2, unknown=1, matches=9, neighbours=[["flu", 0.5]], drift=DRIFT)
    return summary_record(words={"virus": word, "2020": word_record()}, control_words={"the": control_word_record()})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_records(tmp_path, full_summary())
    summary = read_summary(tmp_path)
    word = summary.words["virus"]
    assert list(summary.words) == ["virus", "2020"] and (word.sampled, word.neighbour_overlap) == (6, 0.5)
    assert word.neighbours == [("flu", 0.5)] and summary.words["2020"].neighbour_overlap is None
    (tmp_path / "again").mkdir()
    write_summary(tmp_path / "again", summary)
    assert read_summary(tmp_path / "again") == summary
    assert json.loads((tmp_path / "again" / SUMMARY).read_text()) == full_summary()


@pytest.mark.parametrize(
    "change",
    [
        {"words": 3},
        {"words": {"virus": {"found": 1}}},
        {"words": {"virus": word_record(neighbours="ab")}},
        {"words": {"virus": word_record(drift={"neighbour_overlap": MEASURE})}},
        {"weights": None},
        {"seed": "0"},
        {"further": 1},
    ],
)
def test_records_of_other_types_or_fields_are_rejected(tmp_path: Path, change: dict[str, Any]) -> None:
    write_records(tmp_path, {**full_summary(), **change})
    with pytest.raises(UserError, match=r"summary\.json: cannot be read as written by embed \(summary\.json.*again"):
        read_summary(tmp_path)


def test_every_field_is_required(tmp_path: Path) -> None:
    for name in Summary.__dataclass_fields__:
        write_records(tmp_path, {key: value for key, value in full_summary().items() if key != name})
        with pytest.raises(UserError, match="does not have exactly the fields"):
            read_summary(tmp_path)


def test_a_missing_file_names_the_folder(tmp_path: Path) -> None:
    for read in (read_summary, read_embed_record):
        with pytest.raises(UserError, match=r"has no .*\.json; give a folder written by embed"):
            read(tmp_path)


def test_a_damaged_embed_record_is_rejected(tmp_path: Path) -> None:
    write_records(tmp_path, full_summary(), words=["virus"])
    assert read_embed_record(tmp_path)["settings"] == {"words": ["virus"]}
    for damaged in ("{", '{"settings": "none"}', "[]"):
        (tmp_path / EMBED_RECORD).write_text(damaged)
        with pytest.raises(UserError, match="cannot be read as written by embed"):
            read_embed_record(tmp_path)
