"""Records of analyze: what is written is read back, and a damaged file is reported in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.analysis import records
from bert_tweets.words.analysis.records import AnalyzeRecord, Verdict
from bert_tweets.words.analysis.verdicts import Answers
from bert_tweets.words.store.folder import EmbedRecord
from tests.analyses import run, word, words_folder
from tests.words.analysis.test_verdicts import change_row, regression_row


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    change, regression = [change_row(Answers(True, 200, True))], [regression_row()]
    records.write_change(tmp_path, change)
    records.write_regression(tmp_path, regression)
    assert records.read_change(tmp_path) == change and records.read_regression(tmp_path) == regression
    assert records.read_change(tmp_path)[0]["verdict"] is Verdict.CHANGED
    assert json.loads((tmp_path / records.CHANGE).read_text())[0]["matched_on"] == ["frequency"]


def test_settings_are_read_back_without_paths(tmp_path: Path) -> None:
    config = AnalyzeConfig(words="w", by="month", output="o", covariates=["time"], seed=3)
    words: EmbedRecord = {"settings": {"seed": 1}, "data": "d", "weights": {"model": "w"}}
    control_words: EmbedRecord = {"settings": {"seed": 2}, "data": "d", "weights": {"model": "w"}}
    records.write_settings(tmp_path, AnalyzeRecord(config, words, control_words))
    found = records.read_settings(tmp_path)
    assert found is not None and (found.words, found.control_words) == (words, control_words)
    assert (found.settings.by, found.settings.covariates, found.settings.seed) == ("month", ["time"], 3)
    assert (found.settings.words, found.settings.output) == ("", "")


def test_files_that_are_not_there_are_none(tmp_path: Path) -> None:
    readers = (records.read_controls, records.read_regression, records.read_senses, records.read_settings)
    assert [reader(tmp_path) for reader in readers] == [None] * 4


def test_all_files_of_analyze_can_be_read(tmp_path: Path) -> None:
    folder = words_folder(tmp_path / "words", [*word("mask"), *word("rain")])
    run(folder, tmp_path / "out", "senses=true", "covariates=time", f"control_words={folder}")
    assert {row["word"] for row in records.read_change(tmp_path / "out")} == {"mask", "rain"}
    assert records.read_controls(tmp_path / "out") == []
    assert [row["term"] for row in records.read_regression(tmp_path / "out") or []] == ["time", "time"]
    senses = records.read_senses(tmp_path / "out") or {}
    assert [(name, record["count"], len(record["senses"])) for name, record in senses.items()] == [
        ("mask", 1, 1),
        ("rain", 1, 1),
    ]
    settings = records.read_settings(tmp_path / "out")
    assert settings is not None and settings.control_words == settings.words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "no evidence"}, "verdict is not one of changed"),
        ({"usage": "differs"}, "does not have exactly the fields"),
        ({"estimate": "0.2"}, "estimate is not of type float"),
    ],
)
def test_a_file_from_another_version_is_reported_in_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    row = {**change_row(Answers(True, 200, True)), **change}
    (tmp_path / records.CHANGE).write_text(json.dumps([row]))
    with pytest.raises(UserError, match=rf"change\.json: is damaged, or from another version .*{said}") as caught:
        records.read_change(tmp_path)
    assert "\n" not in str(caught.value)
