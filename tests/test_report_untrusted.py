"""Untrusted records: their markup is shown as text, and a damaged one ends in a one-line error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bert_tweets import report
from bert_tweets.corpus.shards.funnel import SplitCounts
from bert_tweets.corpus.sources.schema import Columns
from tests.test_report import EVALUATION, METRICS_LINE, NEVER, RUN, WORDS, Page, funnel_record, page_of, study, word

CLOSING = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'"


def test_markup_in_any_text_is_shown_as_text(tmp_path: Path) -> None:
    clean, poisoned = tmp_path / "clean", tmp_path / "poisoned"
    clean.mkdir()
    poisoned.mkdir()
    plain = {**WORDS, "words": {"mask": word(200)}}
    tags = page_of(study(clean, words=plain)).tags
    base = {**EVALUATION["base"], "name": CLOSING}
    evaluation = {**EVALUATION, "verdict": CLOSING, "notes": [CLOSING], "base": base}
    evaluation["model"] = {**EVALUATION["model"], "name": CLOSING}
    near = {"neighbours": [[CLOSING, 0.9], ["b", 0.5]], "base_neighbours": [[NEVER, 0.8], ["c", 0.4]]}
    words = {**WORDS, "words": {CLOSING: word(200, **near)}, "vectors_layer": CLOSING, "base": CLOSING}
    run = {**RUN, "model": CLOSING, "device": CLOSING, "versions": {CLOSING: CLOSING}}
    arguments = study(poisoned, evaluation=evaluation, words=words, run=run)
    splits = {"train": SplitCounts(899, 9000), CLOSING: SplitCounts(1, 1)}
    funnel = funnel_record(columns=Columns(CLOSING), splits=splits, unreadable=[CLOSING], examples={CLOSING: CLOSING})
    (poisoned / "shards" / "funnel.json").write_text(json.dumps(funnel))
    embed = {"settings": {"words": [CLOSING], "seed": CLOSING}, "data": CLOSING, "weights": {}}
    (poisoned / "words" / "embed.json").write_text(json.dumps(embed))
    page = page_of([*arguments, f"title={CLOSING}"])
    assert page.tags.count("script") == tags.count("script")
    assert "img" not in page.tags and not page.loads
    assert "alert(1)" in page.text
    whole = (poisoned / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in whole and "<img src=x" not in whole


def broken() -> dict[str, tuple[str, Any]]:
    """Damaged files and their contents, by test name."""
    return {
        "nothing in it": ("run/run.json", {}),
        "steps of text": ("run/run.json", {**RUN, "steps": "many"}),
        "a list of steps": ("run/run.json", {**RUN, "steps": [1], "tokens": {}}),
        "a list": ("run/run.json", [RUN]),
        "losses of text": ("run/run.json", {**RUN, "validation_loss": NEVER}),
        "lines that are lists": ("run/metrics.jsonl", [1, 2]),
        "lines of other fields": ("run/metrics.jsonl", {**METRICS_LINE, "steps": 1}),
        "validation of other fields": ("run/validation.jsonl", {"epoch": 1}),
        "a funnel of text": ("shards/funnel.json", {**funnel_record(), "read": "all", "kept": None}),
        "a funnel of lists": ("shards/funnel.json", {**funnel_record(), "dropped": [1]}),
        "words that are numbers": ("words/summary.json", {**WORDS, "words": 3}),
        "neighbours of text": ("words/summary.json", {**WORDS, "words": {"mask": word(3, neighbours="ab")}}),
        "no weights": ("words/summary.json", {**WORDS, "weights": None}),
        "figures of text": ("eval/metrics.json", {**EVALUATION, "model": {**EVALUATION["model"], "loss": "low"}}),
        "no difference": ("eval/metrics.json", {**EVALUATION, "difference": {"loss": 1}}),
        "settings of text": ("words/embed.json", {"settings": "none", "data": "", "weights": {}}),
    }


@pytest.mark.parametrize("case", broken(), ids=str)
def test_records_with_other_fields_or_types_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments = study(tmp_path)
    file, record = broken()[case]
    (tmp_path / file).write_text(json.dumps(record))
    assert_one_line(arguments, tmp_path, capsys)


@pytest.mark.parametrize("file", ["run/run.json", "eval/metrics.json", "run/metrics.jsonl", "shards/funnel.json"])
@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b"\xff\xfe{}", b"1" * 10_000, b'{"a": '], ids=["deep", "bytes", "long", "cut off"]
)
def test_invalid_json_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, data: bytes) -> None:
    arguments = study(tmp_path)
    (tmp_path / file).write_bytes(data)
    assert_one_line(arguments, tmp_path, capsys)


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN", "9" * 400])
def test_numbers_of_any_size_are_shown_or_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    arguments = study(tmp_path)
    for name in ("run/run.json", "eval/metrics.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("3.5", number).replace("12345", number).replace("2.4", number))
    try:
        report.main(arguments)
    except SystemExit:
        assert capsys.readouterr().err.count("\n") == 1
    else:
        Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def assert_one_line(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        report.main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert not (folder / "report.html").exists()
