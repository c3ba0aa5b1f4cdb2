"""The page of a whole study and the files next to it: complete, never those of others, and without account names."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bert_tweets import report
from bert_tweets.page.charts import spread_out
from bert_tweets.page.drawing import ENDINGS
from bert_tweets.page.mentions import without_mentions
from bert_tweets.page.names import file_names, short_name
from bert_tweets.page.references import works
from bert_tweets.words.analysis import records
from bert_tweets.words.analysis.records import MatchedOn
from bert_tweets.words.store.folder import EmbedRecord, write_embed_record
from tests.page import study
from tests.test_report import Page, assert_rejected

LARGEST = 10_000_000


def page_of(folder: Path, *more: str, **how: Any) -> Page:
    report.main([*study.write(folder, **how), *more])
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_findings_come_first(tmp_path: Path) -> None:
    text = page_of(tmp_path, words=5).text.replace("\u00a0", " ")
    first = text.partition("Maps of occurrences")[0]
    assert "which suggests a change of meaning: rank 1 among 214 control words" in first
    assert "No evidence that the use of coffee differs" in first and "60 tweets of 2018, 2019, 2020, 2021" in first
    assert "Too rare for any statement: goal (12 found)" in first
    # Changes come first.
    assert first.index("The use of mask") < first.index("the use of coffee")
    parts = (
        "Change over time",
        "Comparison with control words",
        "mask: 2 usage clusters",
        "links (q = 0.004)",
        "partial R²",
    )
    for part in parts:
        assert part in text, part
    assert "trained 3 times" in text and "control words keep 70% (50% to 90%); rank 3 of 201" in text


@pytest.mark.parametrize("missing", ["controls", "senses", "regression", "analyze"])
def test_sections_without_records_are_left_out(tmp_path: Path, missing: str) -> None:
    arguments = study.write(tmp_path, words=3, points=30)
    (tmp_path / f"change/{missing}.json").unlink()
    report.main(arguments)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    titles = {
        "controls": "Grey:",
        "senses": "Usage clusters",
        "regression": "Regression on",
        "analyze": "Change over time",
    }
    assert all((part in text) == (name != missing) for name, part in titles.items())


def test_findings_in_the_folder_of_words_are_found(tmp_path: Path) -> None:
    *arguments, _ = study.write(tmp_path, words=3, points=30)
    (tmp_path / "change/change.json").rename(tmp_path / "words/change.json")
    report.main(arguments)
    assert "Findings" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "not compared" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_single_training_seed_is_reported(tmp_path: Path) -> None:
    arguments = study.write(tmp_path, words=3, points=30)
    summary = json.loads((tmp_path / "words/summary.json").read_text())
    (tmp_path / "words/summary.json").write_text(json.dumps({**summary, "models": ["run/model"]}))
    report.main(arguments)
    assert "One seed:" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "one training seed" in (tmp_path / "methods.md").read_text()


def test_findings_from_other_vectors_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study.write(tmp_path, words=3, points=30)
    made_from: EmbedRecord = {"settings": {"words": ["zebra"]}, "data": "", "weights": {}}
    write_embed_record(tmp_path / "words", made_from)
    assert_rejected(arguments, capsys, "was made from other vectors")
    assert_rejected([one for one in arguments if not one.startswith("words=")], capsys, "give words= too")


@pytest.mark.parametrize("text", [False, True])
def test_text_of_tweets_is_opt_in_and_accounts_are_never_named(tmp_path: Path, text: bool) -> None:
    page = page_of(tmp_path, f"include_text={str(text).lower()}", words=3, points=30, text=True)
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("thinks that the" in raw) == text and ("@user thinks" in raw) == text
    assert ("contains no text of tweets" in page.text) != text
    for path in tmp_path.glob("*.*"):
        assert "some_body" not in path.read_text(encoding="utf-8"), path


def test_no_published_file_names_an_account(tmp_path: Path) -> None:
    arguments = study.write(tmp_path, words=3, points=30)
    for path in [*tmp_path.glob("*/*.json"), *tmp_path.glob("*/*.jsonl")]:
        path.write_text(re.sub(r"\bmask\b", "@zz_alice", path.read_text().replace('"party', '"@zz_bob')))
    report.main([word for word in arguments if word != "pictures=false"])
    names = [path for path in tmp_path.rglob("*") if path.parent.name == "pictures" or path.parent == tmp_path]
    assert len(names) > 30
    for path in names:
        assert "zz_alice" not in path.name
        if path.is_file() and path.suffix != ".png":
            assert not re.search(b"zz_(alice|bob)", path.read_bytes()), path


def test_methods_cite_exactly_the_works_in_the_references(tmp_path: Path) -> None:
    page_of(tmp_path, words=3, points=30)
    text, bib = (tmp_path / "methods.md").read_text(), (tmp_path / "references.bib").read_text()
    cited = set(re.findall(r"@([a-z]+\d{4}[a-z]+)", text))
    assert cited == set(re.findall(r"^@\w+\{(\w+),", bib, re.M)) == set(re.findall(r"`(\w+\d{4}\w+)`", text))
    assert {"mu2018allbutthetop", "szekely2013energy", "winkler2015block", "freedman1983nonstochastic"} <= cited
    assert "vandermaaten2008tsne" not in cited
    for part in (
        "Of 1,000 rows, 900 tweets",
        "9,999 permutations",
        "mean(9,10,11,12)",
        "whole authors",
        "weights with sha256 before",
    ):
        assert part in text, part
    assert not re.search(r"\bNone\b|nan", text)


def test_deepspeed_is_cited_if_it_was_used(tmp_path: Path) -> None:
    arguments = study.write(tmp_path, words=2, points=6)
    config = tmp_path / "run/config.yaml"
    config.write_text(config.read_text().replace("name: ddp", "name: deepspeed"))
    report.main(arguments)
    assert "with DeepSpeed [@rajbhandari2020zero]" in (tmp_path / "methods.md").read_text()
    assert "rajbhandari2020zero" in (tmp_path / "references.bib").read_text()


def test_limitations_are_listed(tmp_path: Path) -> None:
    arguments = study.write(tmp_path, words=3, points=30, authors=False)
    report.main(arguments)
    text = (tmp_path / "methods.md").read_text()
    assert "Some authors are unknown" in text and "winkler2015block" not in text
    assert "Not all control words are matched on part of speech" in text
    change = tmp_path / "change"
    rows = records.read_change(change)
    records.write_change(
        change, [{**row, "matched_on": [*row["matched_on"], MatchedOn.PART_OF_SPEECH]} for row in rows]
    )
    report.main(arguments)
    assert "Not all control words are matched on part of speech" not in (tmp_path / "methods.md").read_text()


def test_a_rank_needs_enough_control_words(tmp_path: Path) -> None:
    arguments = study.write(tmp_path, words=3, points=30)
    report.main(arguments)
    page = tmp_path / "report.html"
    assert "1 of 215" in page.read_text() and "Fewer than 200" not in (tmp_path / "methods.md").read_text()
    change = tmp_path / "change/change.json"
    change.write_text(json.dumps([{**row, "controls": 150} for row in json.loads(change.read_text())]))
    report.main(arguments)
    assert "1 of 215" not in page.read_text() and "1 of 151" not in page.read_text()
    assert "Fewer than 200 control words matched, so no change" in (tmp_path / "methods.md").read_text()


def test_every_bibtex_entry_is_complete() -> None:
    for key, entry in works().items():
        assert entry.startswith("@") and entry.count("{") == entry.count("}") and key[-1].isalpha(), key
        assert all(re.search(rf"^  {name} = \{{.+\}}", entry, re.M) for name in ("author", "title", "year")), key


def test_the_record_suffices_to_repeat_the_study(tmp_path: Path) -> None:
    page_of(tmp_path, words=3, points=30)
    record = json.loads((tmp_path / "reproduce.json").read_text())
    assert [line.split()[1] for line in record["commands"]] == ["train", "embed", "analyze"]
    assert record["seeds"] == {"train": 0, "embed": 3, "analyze": 0}
    assert (
        record["recipe"] == "abc" and record["model"]["weights"] == "before" and record["model"]["revision"] == "main"
    )
    assert {"torch", "scikit-learn", "plotly"} <= set(record["versions"])
    assert {"what": "row", "reason": "duplicate", "count": 100} in record["exclusions"]
    assert {"what": "occurrence", "word": "mask", "reason": "lost to [UNK]", "count": 2} in record["exclusions"]
    tested = [test for test in record["tests"] if test.get("contrast") == "omnibus"]
    assert [test["word"] for test in tested] == ["mask", "virus", "zoom"] and record["funnel"][0]["count"] == 1000


def test_pictures_are_reproducible_files(tmp_path: Path) -> None:
    arguments = [word for word in study.write(tmp_path, words=2, points=20) if word != "pictures=false"]
    report.main(arguments)
    folder = tmp_path / "pictures"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    index = json.loads(before["pictures.json"])["pictures"]
    assert {f"{one['name']}.{ending}" for one in index for ending in ENDINGS} == before.keys() - {"pictures.json"}
    kinds = {
        "loss",
        "funnel",
        "words-among-controls",
        "neighbours-kept",
        "change-mask",
        "senses-mask",
        "map-mask-by-time",
    }
    assert kinds <= {one["name"] for one in index}
    assert all(data.startswith(b"\x89PNG") for name, data in before.items() if name.endswith("png"))
    # A figure that is gone is deleted.
    (tmp_path / "change/senses.json").unlink()
    report.main(arguments)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "senses-mask.png" not in after
    same = after.keys() - {"pictures.json"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


@pytest.mark.parametrize(
    "name", ["methods.md", "references.bib", "reproduce.json", "pictures/loss.png", "pictures/me.txt"]
)
def test_files_of_others_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments = study.write(tmp_path, words=2, points=20)
    (tmp_path / "pictures").mkdir()
    (tmp_path / name).write_text("my own")
    assert_rejected(arguments, capsys, "in another folder")
    assert (tmp_path / name).read_text() == "my own" and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("library", ["matplotlib", "plotly.offline"])
def test_nothing_is_written_without_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    arguments = [word for word in study.write(tmp_path, words=2, points=20) if word != "pictures=false"]
    there = set(tmp_path.iterdir())
    monkeypatch.setitem(__import__("sys").modules, library, None)
    assert_rejected(arguments, capsys, "pip install 'bert_tweets[words]'")
    assert set(tmp_path.iterdir()) == there


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("change", [1]),
        ("change", {"a": 1}),
        ("change", [{"word": "mask"}]),
        ("controls", [{"word": 3}]),
        ("senses", {"mask": {"count": 2}}),
        ("senses", {"mask": {"clusters": 3}}),
        ("regression", [{"word": "mask"}]),
        ("analyze", {"settings": "none"}),
    ],
)
def test_a_damaged_record_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, record: Any
) -> None:
    arguments = study.write(tmp_path, words=2, points=20)
    (tmp_path / f"change/{name}.json").write_text(json.dumps(record))
    assert_rejected(arguments, capsys, "change")
    assert not (tmp_path / "report.html").exists()


def test_twenty_words_stay_small(tmp_path: Path) -> None:
    page_of(tmp_path, "include_text=true", words=20, points=2000, text=True)
    size = (tmp_path / "report.html").stat().st_size
    assert size < LARGEST
    print(f"20 words of 2,000 occurrences, two models, with text: {size:,} bytes")


def test_file_names_are_plain_and_distinct() -> None:
    names = file_names("map", ["mask", "Mask", "😷", "@alice", "../x", "a b", "été"])
    assert len(set(names)) == 7 and all(re.fullmatch(r"map-[\w-]+", name) for name in names)
    assert "alice" not in " ".join(names)


def test_overlapping_labels_are_moved_apart() -> None:
    assert spread_out([0.0, 1.0], 0.1) == [0.0, 1.0]
    assert spread_out([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    placed = sorted(spread_out([0.30, 0.31, 0.52, 0.45, 0.9], 0.1))
    assert all(after - before >= 0.1 - 1e-9 for before, after in pairwise(placed))


def test_mentions_are_masked_everywhere_in_a_record() -> None:
    record = {"@a_1": [("see @b", 1), {"c": "no.mail@example.org"}], "d": None}
    assert without_mentions(record) == {"@user": [["see @user", 1], {"c": "no.mail@example.org"}], "d": None}
    assert without_mentions("どうも@carl RT@dora: (@@eve) @fred@gus x@") == "どうも@user RT@user: (@user) @user x@"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("bert-base-uncased", "bert-base-uncased"), ("org/name", "org/name"), ("/home/me/run/model", "run/model")],
)
def test_the_name_of_a_model_does_not_show_the_disk(name: str, shown: str) -> None:
    assert short_name(name) == short_name(name + "/") == shown
