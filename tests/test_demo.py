"""The demo: seeded tweets in which some words change, and the full pipeline on them."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from bert_tweets import demo
from bert_tweets.common.errors import UserError
from bert_tweets.config import AnalyzeConfig, DemoConfig
from bert_tweets.demo import _DAYS, _EVERYDAY, _KINDS, _START, CHANGE, CHANGING, STABLE, generate
from bert_tweets.words.analysis.verdicts import MIN_CONTROLS
from tests.processes import run, warm_commands


def test_tweets_are_a_function_of_their_seed() -> None:
    first, same, other = (list(generate(500, seed, _START, _DAYS)) for seed in (1, 1, 2))
    assert first == same and first != other
    assert [row[1] for row in first] == sorted(row[1] for row in first)


def test_only_the_changing_words_change_their_contexts() -> None:
    company: dict[tuple[str, bool], Counter[str]] = {}
    for _, day, text in generate(20_000, 0, _START, _DAYS):
        for word in (*CHANGING, *STABLE):
            if f" {word} " in text:
                key = (word, day >= CHANGE.isoformat())
                kinds = [kind for kind, (_, others) in _KINDS.items() if any(f" {o}" in text for o in others.split())]
                company.setdefault(key, Counter()).update(kinds)

    def usual(word: str, after: bool) -> str:
        return company[word, after].most_common(1)[0][0]

    for word, kinds in CHANGING.items():
        assert (usual(word, False), usual(word, True)) == kinds
    for word, kind in STABLE.items():
        assert usual(word, False) == usual(word, True) == kind


def test_each_word_has_enough_control_words_in_every_year() -> None:
    years: Counter[tuple[str, str]] = Counter()
    for _, day, text in generate(DemoConfig().tweets, 1, _START, _DAYS):
        years.update((word, day[:4]) for word in re.findall("[a-z]+", text))

    def of(word: str) -> list[int]:
        return [years[word, str(year)] for year in range(_START.year, _START.year + 4)]

    for word in (*CHANGING, *STABLE):
        alike = [other for other in _EVERYDAY.split() if sum(of(other)) <= 2 * sum(of(word)) <= 4 * sum(of(other))]
        assert sum(min(of(other)) >= AnalyzeConfig().min_clusters for other in alike) >= MIN_CONTROLS, word


@pytest.mark.dist
@pytest.mark.slow
def test_the_full_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    warm_commands(monkeypatch)
    demo.stage([f"output={folder}", "tweets=600"])
    assert capsys.readouterr().out.rstrip().endswith(str(folder / "report.html"))
    with (folder / "tweets.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 601
    assert json.loads((folder / "run/run.json").read_text())["ranks"] == 2
    metrics = json.loads((folder / "eval/metrics.json").read_text())
    assert metrics["base"] and metrics["difference"]["loss"] < 0
    summary = json.loads((folder / "words/summary.json").read_text())
    assert set(summary["words"]) == {*CHANGING, *STABLE}
    assert all(word["found"] > 5 and word["truncated"] == 0 for word in summary["words"].values())
    change = json.loads((folder / "words/change.json").read_text())
    assert {row["word"] for row in change} == {*CHANGING, *STABLE}
    assert "Texts were cleaned with the preset `tweets`" in (folder / "methods.md").read_text()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in (*CHANGING, *STABLE))
    assert (folder / "words/vectors.txt").read_text().startswith(f"{len(CHANGING) + len(STABLE)} 128\n")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    done = run(["-m", "bert_tweets.demo", f"output={tmp_path}"])
    assert done.returncode == 2 and "contains other files" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_without_the_libraries_of_the_report_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matplotlib", "sklearn"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"needs matplotlib, scikit-learn; .* pip install 'bert_tweets\[words\]'"):
        demo.stage([f"output={tmp_path / 'demo'}"])
    assert not (tmp_path / "demo").exists()
