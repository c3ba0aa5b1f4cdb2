"""What prepare says of its input: rows that cannot be read, times, languages and authors that are not told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bert_tweets.config import FilterConfig, PrepareConfig
from bert_tweets.data.manifest import Manifest
from bert_tweets.data.shards import open_split
from bert_tweets.data.unit_work import Report, unreadable_rows
from bert_tweets.errors import UserError
from bert_tweets.prepare import prepare
from bert_tweets.text.rows import NAMES

DOCS = Path(__file__).parents[1] / "docs" / "prepare.md"


@pytest.fixture
def run(tmp_path, tokenizer_folder):
    """Prepares files given as name to content; the funnel and the rows."""

    def go(files, **settings):
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        output = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        settings = {"validation_fraction": 0.0, "num_workers": 1, "unit_bytes": 200, **settings}
        paths = [str(folder / name) for name in files]
        prepare(PrepareConfig(input=paths, output=str(output), tokenizer=str(tokenizer_folder), **settings))
        opened = open_split(output, Manifest.read(output), "train")
        rows = [row for shard in range(len(opened.shards)) for row in opened.batch(shard).to_pylist()]
        return json.loads((output / "funnel.json").read_bytes()), rows

    return go


def test_the_first_rows_that_cannot_be_read_are_told_by_file_and_row(run, capsys):
    good = [f"{number},tweet number {number}" for number in range(60)]
    second = [*good[:40], "bad", *good[41:50], "bad", "bad"]
    files = {"a.csv": "\n".join(["id,text", *good]), "b.csv": "\n".join(["id,text", *second]).encode() + b"\n1,\xff\n"}
    funnel, _ = run(files)
    assert funnel["unreadable"] == ["b.csv row 41", "b.csv row 51", "b.csv row 52"]
    said = capsys.readouterr().err
    assert "4 of 113 rows could not be read, the first ones at b.csv row 41, b.csv row 51, b.csv row 52; was" in said
    assert "saved as CSV in UTF-8" in said


def test_a_units_place_in_a_file_of_the_web_tells_no_key():
    reports = [Report(n, 5, 4, {}, "https://ann:secret@a.org/in/t.csv?token=secret", (n,)) for n in range(5)]
    assert unreadable_rows(reports) == ["t.csv row 1", "t.csv row 7", "t.csv row 13"]


def test_advice_on_bad_rows_and_notices_are_those_of_json(run, capsys):
    tweets = [{"text": f"tweet number {number}"} for number in range(5)]
    lines = [json.dumps(found) for found in ({"limit": {"track": 1}}, *tweets, {"delete": {}}, {"id": 1})]
    funnel, _ = run({"a.jsonl": "\n".join(lines)})
    assert (funnel["dropped"]["no tweet"], funnel["dropped"]["malformed row"]) == (2, 1)
    said = capsys.readouterr().err
    assert "at a.jsonl row 8; does each line hold one JSON object with a text" in said and "CSV" not in said


@pytest.mark.parametrize(("time_format", "month"), [("mdy", 2), ("dmy", 11), ("auto", None)])
def test_days_and_months_in_numbers_are_read_as_told(run, capsys, time_format, month):
    funnel, rows = run({"a.csv": "text,date\nhello,2/11/2018\nworld,\n"}, time_format=time_format)
    assert [row["time"] and row["time"].month for row in rows] == [month, None]
    assert (funnel["notes"]["time not understood"], funnel["notes"]["no time"]) == (int(month is None), 1)
    assert ("time_format=mdy or dmy" in capsys.readouterr().err) == (month is None)


def test_a_language_is_kept_with_its_regions_and_those_there_are_told_when_none_is(run):
    data = "text,lang\none tweet,en-GB\ntwo tweets,en_US\nein Tweet,de\nthree tweets,en-GB\nno tweet,\n"
    with pytest.raises(UserError, match=r"5 other language\); its commonest languages are en-GB, en_US, de, \(none\)$"):
        run({"a.csv": data}, filter=FilterConfig(languages=["english"]))
    _, rows = run({"a.csv": data}, filter=FilterConfig(languages=["en"]))
    assert [row["text"] for row in rows] == ["one tweet", "two tweets", "three tweets"]


def test_a_language_that_no_detector_knows_is_told_before_anything_is_read(run):
    pytest.importorskip("py3langid", reason="needs the extra 'language'")
    with pytest.raises(UserError, match=r"filter\.languages: english: .* knows"):
        run({"a.csv": "text\na\n"}, filter=FilterConfig(languages=["english"], detect_language=True))


def test_a_filter_by_author_tells_of_tweets_without_one(run, capsys):
    files = {"a.csv": "text,author\none tweet,\ntwo tweets,\nthree tweets,ann\n"}
    funnel, _ = run(files, filter=FilterConfig(max_tweets_per_author=1))
    assert funnel["notes"]["no author"] == 2
    assert "filter.max_tweets_per_author: 2 tweets have no author and stay" in capsys.readouterr().err


def test_a_column_can_be_switched_off(run):
    files = {"a.csv": "id,text,rt_id\n7,hello world,9\n"}
    assert run(files)[1][0]["retweet_of"] == "9"
    (row,) = run(files, id_column="none", retweet_column="none")[1]
    assert (row["id"], row["retweet_of"]) == ("1", None)


def test_the_documentation_lists_every_name_that_is_looked_for():
    section = DOCS.read_text(encoding="utf-8").partition("## Which files, which columns, which times")[2]
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    for role, names in NAMES.items():
        assert any(" ".join(f"`{name}`" for name in names) in line for line in rows), role
