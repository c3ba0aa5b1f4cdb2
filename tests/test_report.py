"""The page is self-contained, escapes all texts, and claims no improvement that was not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bert_tweets import report
from bert_tweets.config import DataConfig, ModelConfig, TrainConfig, parser
from bert_tweets.corpus.shards.funnel import DropReason, Funnel, Note, SplitCounts
from bert_tweets.corpus.sources.schema import Columns
from tests.words.summaries import summary_record, word_record

NEVER = "<script>alert(1)</script>"
RUN: dict[str, Any] = {
    "model": "some-bert",
    "has_trained_head": True,
    "best_step": 20,
    "validation_loss": 2.5,
    "start_validation_loss": 3.5,
    "stopped_early": False,
    "ranks": 1,
    "engine": "ddp",
    "device": "cpu",
    "precision": "fp32",
    "recipe": "abc",
    "data": "def",
    "versions": {"bert_tweets": "0.1.0", "torch": "2.13.0"},
    "steps": 20,
    "planned_steps": 20,
    "seconds": 1.5,
    "tokens": 12345,
    "tweets": 890,
    "rows": 890,
    "epochs": 1.0,
    "weights": "before",
    "exported": "after",
}
SCORES = {
    "name": "run/model",
    "loss": 2.4,
    "low": 2.2,
    "high": 2.6,
    "perplexity": 11.0,
    "accuracy": 0.43,
    "masked_tokens": 500,
    "tweets": 90,
}
EVALUATION: dict[str, Any] = {
    "model": SCORES,
    "base": {**SCORES, "name": "some-bert", "loss": 4.3217, "accuracy": 0.337},
    "excluded_base": None,
    "difference": {"loss": -1.9217, "low": -2.1, "high": -1.7, "accuracy": 0.093, "clusters": 80, "samples": 2000},
    "outcome": "helped",
    "verdict": "Adaptation helped: the loss fell.",
    "notes": [],
    "weights": {"model": "after", "base": "before"},
    "recipe": "abc",
    "data": "def",
    "seed": 0,
}


def word(found: int, **changes: Any) -> dict[str, Any]:
    """A word of summary.json that keeps half of its two neighbours."""
    overlap = {"by_seed": [0.5], "control_quantiles": None, "rank": None, "num_ranked": 0}
    record = {
        "truncated": 3,
        "unknown": 2,
        "neighbours": [["cough", 0.9], ["party", 0.5]],
        "base_neighbours": [["party", 0.8], ["wig", 0.4]],
        "drift": {"neighbour_overlap": overlap, "distance_correlation": {**overlap, "by_seed": [None]}},
    }
    return word_record(found, **{**record, **changes})


WORDS = summary_record(
    words={"mask": word(200), NEVER: word(19), "@alice": word(20, neighbours=[["@bob", 0.5]], base_neighbours=[])},
    base="some-bert",
    vectors_layer="mean(2)",
    weights={"model": "after", "base": "before"},
    recipe="abc",
    data="def",
    background_tweets=2000,
    background_words=114,
)
METRICS_LINE = {
    "time": "2026-01-01T00:00:00",
    "step": 10,
    "epoch": 0.5,
    "learning_rate": 1e-4,
    "loss": 3.5,
    "loss_mean": 3.5,
    "grad_norm": 1.0,
    "tokens_per_second": 100.0,
    "tweets_per_second": 10.0,
    "mfu": None,
    "padding_fraction": 0.1,
    "data_wait_fraction": 0.0,
    "step_seconds": 0.1,
    "rank_compute_seconds": [[0.1, 0.1]],
    "rank_data_wait_seconds": [[0.0, 0.0]],
    "slowest_rank": 0,
}


def funnel_record(**changes: Any) -> dict[str, Any]:
    """funnel.json of 1,000 rows."""
    funnel = Funnel(
        Columns("text"),
        "abc",
        read=1000,
        dropped=dict.fromkeys(DropReason, 0) | {DropReason.DUPLICATE: 100},
        notes=dict.fromkeys(Note, 0) | {Note.UNKNOWN_TWEETS: 7},
        splits={"train": SplitCounts(890, 9000), "validation": SplitCounts(10, 100)},
    )
    return dict(replace(funnel, **changes).to_json())


class Page(HTMLParser):
    """The external resources that a browser would load, and the text that it would show."""

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.shown: list[str] = []
        self.tags: list[str] = []
        self._hidden = 0
        self.feed(text)
        self.text = " ".join(" ".join(self.shown).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden += tag in ("script", "style")
        self.loads += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.shown.append(data)


def study(folder: Path, evaluation: Any = EVALUATION, words: Any = WORDS, run: Any = RUN) -> list[str]:
    """Write the records of all stages but analyze; return the arguments of report."""
    for name in ("run", "shards", "eval", "words"):
        (folder / name).mkdir()
    config = TrainConfig(
        output=str(folder / "run"), data=DataConfig(path=str(folder / "shards")), model=ModelConfig(name="some-bert")
    )
    (folder / "run/config.yaml").write_text(parser.dump(config))
    write_lines(folder, [4 - step / 20 for step in (10, 20)], [3.5 - step / 20 for step in (0, 10, 20)])
    records = {"run/run": run, "shards/funnel": funnel_record(), "eval/metrics": evaluation, "words/summary": words}
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    parts = [f"{key}={folder / name}" for key, name in (("run", "run"), ("evaluation", "eval"), ("words", "words"))]
    return [*parts, f"output={folder / 'report.html'}", "pictures=false"]


def write_lines(folder: Path, training: list[float], validation: list[float]) -> None:
    """Write metrics.jsonl and validation.jsonl with a line every 10 steps; validation starts at step 0."""
    lines = [{**METRICS_LINE, "step": 10 * n, "loss_mean": loss} for n, loss in enumerate(training, 1)]
    validations = [
        {"time": METRICS_LINE["time"], "step": 10 * n, "epoch": 0, "validation_loss": loss}
        for n, loss in enumerate(validation)
    ]
    for name, records in (("metrics", lines), ("validation", validations)):
        (folder / f"run/{name}.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")


def page_of(arguments: list[str]) -> Page:
    report.main(arguments)
    output = next(word.removeprefix("output=") for word in arguments if word.startswith("output="))
    assert Path(output).stat().st_size < 10_000_000
    return Page(Path(output).read_text(encoding="utf-8"))


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    page = page_of(study(tmp_path))
    assert page.loads == [] and "link" not in page.tags and "iframe" not in page.tags
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "plotly.js v" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("eval", "methods.md", "references.bib", "report.html", "reproduce.json", "run", "shards", "words")
    ]


def test_the_page_shows_settings_and_results(tmp_path: Path) -> None:
    text = page_of(study(tmp_path)).text
    for part in (
        "Adaptation helped: the loss fell.",
        "900 tweets kept of 1,000 rows",
        "dropped: duplicate",
        "33.7 → 43.0%",
        "-1.9217",
        "-2.1000 to -1.7000",
        "from 3.500 to 2.500 at step 20",
        "200 found, 50% of the neighbours kept",
        "not yet a change of its meaning",
        "torch 2.13.0",
        "bert-tweets train",
    ):
        assert part in text, part
    assert "dropped: empty" not in text


def test_new_and_lost_neighbours_are_marked(tmp_path: Path) -> None:
    study_arguments = study(tmp_path)
    report.main(study_arguments)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<span class="new">cough</span>' in text and '<span class="gone">wig</span>' in text
    assert '<span class="new">party</span>' not in text and '<span class="gone">party</span>' not in text


def test_rare_words_are_flagged(tmp_path: Path) -> None:
    page = page_of(study(tmp_path))
    # The word found 19 times, in table and card; not the one found 20 times.
    assert page.text.count("too rare") == 2


def test_words_are_escaped_and_accounts_masked(tmp_path: Path) -> None:
    arguments = study(tmp_path)
    page = page_of([*arguments, "title=<b>Tweets of @carol & me</b>"])
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert NEVER not in raw and NEVER in page.text
    assert "<b>Tweets of @user & me</b>" in page.text
    for account in ("@alice", "@bob", "@carol"):
        assert account not in raw


def test_no_figure_of_a_base_that_is_not_comparable_is_shown(tmp_path: Path) -> None:
    verdict = "Whether adaptation helped cannot be said."
    base = {"base": None, "difference": None, "excluded_base": {"name": "some-bert", "reason": "it has no head"}}
    page = page_of(study(tmp_path, {**EVALUATION, **base, "outcome": "base not comparable", "verdict": verdict}))
    assert verdict in page.text and "not comparable: it has no head" in page.text
    for figure in ("4.3217", "33.7", "-1.9217", "difference", "bootstrap"):
        assert figure not in page.text, figure


def test_a_new_head_is_not_adaptation(tmp_path: Path) -> None:
    page = page_of(study(tmp_path, run={**RUN, "has_trained_head": False}))
    assert "not adaptation to tweets" in page.text


def test_a_run_alone_is_enough_for_a_page(tmp_path: Path) -> None:
    run, *_, output, _ = study(tmp_path)
    (tmp_path / "shards/funnel.json").unlink()
    (tmp_path / "run/validation.jsonl").unlink()
    summary = {**RUN, "best_step": None, "validation_loss": None, "start_validation_loss": None}
    (tmp_path / "run/run.json").write_text(json.dumps(summary))
    text = page_of([run, output]).text
    assert "was not evaluated" in text and "There was no validation" in text


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("run/run.json", "train has not finished"),
        ("run/config.yaml", "incomplete"),
        ("eval/metrics.json", "evaluate has not finished"),
        ("words/summary.json", "embed has not finished"),
    ],
)
def test_unfinished_folders_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], remove: str, message: str
) -> None:
    arguments = study(tmp_path)
    (tmp_path / remove).unlink()
    assert_rejected(arguments, capsys, message)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("key", ["run", "evaluation", "words"])
def test_missing_folders_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    assert_rejected([*study(tmp_path), f"{key}={tmp_path / 'nowhere'}"], capsys, "no such folder")


def test_figures_of_other_shards_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_rejected(study(tmp_path, {**EVALUATION, "recipe": "other"}), capsys, "other shards")


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"model": "other", "base": "before"}, "another model"), ({"model": "after", "base": "other"}, "started from")],
)
def test_figures_of_other_models_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: dict[str, str], message: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert_rejected(study(tmp_path / "a", evaluation={**EVALUATION, "weights": weights}), capsys, message)
    assert_rejected(study(tmp_path / "b", words={**WORDS, "weights": weights}), capsys, message)


def test_only_a_page_by_report_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study(tmp_path)
    page_of(arguments)
    page_of(arguments)
    notes = tmp_path / "notes.txt"
    notes.write_text("all of my notes")
    others = [word for word in arguments if not word.startswith("output=")]
    assert_rejected([*others, f"output={notes}"], capsys, "was not written by report")
    assert notes.read_text() == "all of my notes"


def test_samples_and_lost_words_are_labelled(tmp_path: Path) -> None:
    words = {
        "mask": word(200, matches=4656),
        "😷": word(0, unknown=274, matches=274),
        "zebra": word(0, truncated=0, unknown=0, matches=0),
    }
    page = page_of(study(tmp_path, words={**WORDS, "words": words}))
    text = " ".join(page.shown)
    assert "200 of 4,656" in text and "lost to [UNK]" in text and "not in the tweets" in text
    assert "too rare" not in text.replace("Too rare", "")


def test_damaged_json_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study(tmp_path)
    (tmp_path / "words/summary.json").write_text("{")
    assert_rejected(arguments, capsys, "damaged")


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_the_error_without_the_extra_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    assert_rejected(study(tmp_path), capsys, "pip install 'bert_tweets[words]'")


def assert_rejected(arguments: list[str], capsys: pytest.CaptureFixture[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        report.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1
