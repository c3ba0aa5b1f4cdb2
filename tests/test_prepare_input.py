"""Warnings of prepare about its input: unreadable rows, missing times, languages and authors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.config import FilterConfig, PrepareConfig
from bert_tweets.corpus.pipeline.pipeline import places_of_rows
from bert_tweets.corpus.pipeline.worker import UnitReport
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.corpus.sources.schema import NAMES
from bert_tweets.prepare import prepare

DOCS = Path(__file__).parents[1] / "docs" / "prepare.md"


@pytest.fixture
def run(tmp_path, tokenizer_folder):
    """Prepare files, given as name to content; return the funnel and the rows."""

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


def test_the_first_unreadable_rows_are_reported_by_file_and_row(run, capsys):
    good = [f"{number},tweet number {number}" for number in range(60)]
    second = [*good[:40], "bad", *good[41:50], "bad", "bad"]
    files = {"a.csv": "\n".join(["id,text", *good]), "b.csv": "\n".join(["id,text", *second]).encode() + b"\n1,\xff\n"}
    funnel, _ = run(files)
    assert funnel["unreadable"] == ["b.csv row 41", "b.csv row 51", "b.csv row 52"]
    said = capsys.readouterr().err
    assert "4 of 113 rows could not be read, the first ones at b.csv row 41, b.csv row 51, b.csv row 52; was" in said
    assert "saved as CSV in UTF-8" in said


def test_the_place_of_a_row_in_a_url_contains_no_key():
    reports = [UnitReport(n, 5, 4, {}, "https://ann:secret@a.org/in/t.csv?token=secret", (n,)) for n in range(5)]
    assert places_of_rows(reports)[0] == ["t.csv row 1", "t.csv row 7", "t.csv row 13"]


def test_an_unclosed_quote_that_swallows_tweets_is_reported_with_its_place(run, capsys):
    lines = [f"{number},tweet number {number}" for number in range(200)]
    lines[20], lines[120] = '20,"unclosed quote here', '120,they said hello"'
    files = {"a.csv": "\n".join(["id,text", *lines[:10]]), "b.csv": "\n".join(["id,text", *lines])}
    funnel, _ = run(files)
    assert (funnel["read"], funnel["several_lines"], funnel["most_lines"]) == (110, 101, 101)
    assert funnel["long_records"] == ["b.csv row 21 spans 101 lines"]
    said = capsys.readouterr()
    assert "warning: b.csv row 21 spans 101 lines: is there a quote that is never closed?" in said.err
    assert re.search(r"lines in multi-line rows +101 +101 in the longest", said.out)


def test_quotes_in_an_unquoted_file_are_reported_with_their_lines(run, capsys):
    lines = [f"{number},tweet number {number}" for number in range(40)]
    for first in (5, 25):
        lines[first], lines[first + 2] = f'{first},"so he said', f'{first + 2},he said "no"'
    lines[27] += " and left"
    funnel, _ = run({"a.csv": "\n".join(["id,text", *lines])}, unit_bytes=10_000)
    assert (funnel["read"], funnel["several_lines"], funnel["long_records"]) == (36, 6, [])
    assert "a.csv row 24; 6 lines are in multi-line rows" in capsys.readouterr().err


def test_tweets_of_some_lines_are_counted_and_no_cause_to_warn(run, capsys):
    files = {"a.csv": "id,text\n" + "".join(f'{number},"one\n\ntwo\r\nthree, {number}\n"\n' for number in range(30))}
    funnel, rows = run(files)
    assert (len(rows), funnel["several_lines"], funnel["most_lines"], funnel["long_records"]) == (30, 150, 5, [])
    assert "quote" not in capsys.readouterr().err


def test_days_and_months_in_the_other_order_are_reported(run, capsys):
    dates = [f"{day}/{month}/2018" for month in range(1, 13) for day in range(1, 29)]
    files = {"a.csv": "text,date\n" + "".join(f"tweet of {date},{date}\n" for date in dates)}
    funnel, _ = run(files, time_format="mdy")
    notes = funnel["notes"]
    assert notes["unparsed_time"] == notes["unparsed_time_other_order"] == 12 * 16
    said = capsys.readouterr().err
    assert "time_format=mdy: 192 times cannot be parsed (such as 13/1/2018); 192 of them could be with " in said
    assert "time_format=dmy" in said
    run(files, time_format="dmy")
    assert "time" not in capsys.readouterr().err


def test_what_is_no_time_is_not_shown(run, capsys):
    run({"a.csv": "text,date\na,I met Ann on 5 May\n"}, time_format="dmy")
    said = capsys.readouterr().err
    assert "times that cannot be parsed are treated as missing" in said and "Ann" not in said


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_rounded_ids_are_reported(run, tmp_path, capsys, ending):
    ids = [1.2345678901234604e18, 12.0]
    if ending == "csv":
        content = "".join(["id,text\n", *(f"{number!r},tweet\n" for number in ids)]).encode()
    elif ending == "jsonl":
        content = "\n".join(json.dumps({"id": number, "text": "tweet"}) for number in ids).encode()
    else:
        pq.write_table(pa.table({"id": ids, "text": ["tweet"] * 2}), tmp_path / "a")
        content = (tmp_path / "a").read_bytes()
    funnel, rows = run({f"a.{ending}": content}, deduplicate="none")
    # In a table 12.0 is a number, as is any that 53 bits hold.
    assert rows[1]["id"] == ("12.0" if ending == "csv" else "12")
    assert funnel["notes"]["rounded_id"] == (2 if ending == "csv" else 1)
    assert "1.2345678901234604e+18) and may be another tweet's" in capsys.readouterr().err


def test_of_two_ids_the_one_that_is_text_counts(run, capsys):
    tweet = {"id": 1e18, "id_str": "1000000000000000001", "text": "a", "user": {"id_str": "7"}}
    _, rows = run({"a.jsonl": json.dumps(tweet)})
    assert rows[0]["id"] == "1000000000000000001" and "float" not in capsys.readouterr().err


def test_what_the_input_has_not_is_null_whatever_it_is_written_in(run, tmp_path):
    values = [("a", "x"), ("b", ""), ("c", None)]
    table = {"text": [text for text, _ in values], "lang": [value for _, value in values]}
    table["party"] = table["lang"]
    pq.write_table(pa.table(table), tmp_path / "a")
    tweets = [{"text": text, "lang": value, "party": value} for text, value in values]
    tweets[2].pop("party")
    files = {
        "a.csv": "text,lang,party\n" + "".join(f"{text},{value or ''},{value or ''}\n" for text, value in values),
        "b.jsonl": "\n".join(map(json.dumps, tweets)),
        "c.parquet": (tmp_path / "a").read_bytes(),
    }
    _, rows = run(files, group_columns=["party"], deduplicate="none")
    assert [(row["language"], row["group.party"]) for row in rows] == [("x", "x"), (None, None), (None, None)] * 3


def test_many_unknown_tokens_are_reported_with_what_to_do(run, capsys):
    files = {"a.csv": "text\n" + "".join(f"the mask {number} 🍕\n" for number in range(9))}
    run(files)
    said = capsys.readouterr().err
    assert "100.0% of the tweets contain [UNK]" in said and "emoji=names" in said
    run(files, emoji="tokens")
    printed = capsys.readouterr()
    assert "emoji=tokens: 1 new token (🍕)" in printed.out and "[UNK]" not in printed.err
    run({"a.csv": "text\nthe mask\n"}, emoji="tokens")
    assert "none was added" in capsys.readouterr().err


def test_pages_without_a_tweet_are_no_tweets_and_texts_that_are_null_are_empty(run):
    lines = [{"meta": {"result_count": 0}}, {"errors": [{"title": "Not Found"}]}, {"text": "a"}, {"text": None}]
    funnel, _ = run({"a.jsonl": "\n".join(map(json.dumps, lines))})
    dropped = {reason: count for reason, count in funnel["dropped"].items() if count}
    assert dropped == {"no_tweet": 2, "empty_text": 1}


def test_a_file_with_another_spelling_in_a_resumed_run_is_the_same_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    reports = [UnitReport(0, 5, 4, {}, "t.csv", (1,)), UnitReport(1, 5, 4, {}, f"{tmp_path}/t.csv", (1,))]
    assert places_of_rows(reports)[0] == ["t.csv row 2", "t.csv row 7"]


def test_advice_on_bad_rows_and_notices_are_those_of_json(run, capsys):
    tweets = [{"text": f"tweet number {number}"} for number in range(5)]
    lines = [json.dumps(found) for found in ({"limit": {"track": 1}}, *tweets, {"delete": {}}, {"id": 1})]
    funnel, _ = run({"a.jsonl": "\n".join(lines)})
    assert (funnel["dropped"]["no_tweet"], funnel["dropped"]["malformed_row"]) == (2, 1)
    said = capsys.readouterr().err
    assert "at a.jsonl row 8; does each line contain one JSON object with a text" in said and "CSV" not in said


@pytest.mark.parametrize(("time_format", "month"), [("mdy", 2), ("dmy", 11), ("auto", None)])
def test_numeric_days_and_months_are_read_in_the_given_order(run, capsys, time_format, month):
    funnel, rows = run({"a.csv": "text,date\nhello,2/11/2018\nworld,\n"}, time_format=time_format)
    assert [row["time"] and row["time"].month for row in rows] == [month, None]
    assert (funnel["notes"]["unparsed_time"], funnel["notes"]["no_time"]) == (int(month is None), 1)
    assert ("time_format=mdy or dmy" in capsys.readouterr().err) == (month is None)


def test_a_language_is_kept_with_its_regions_and_existing_ones_are_reported_if_none_is_kept(run):
    data = "text,lang\none tweet,en-GB\ntwo tweets,en_US\nein Tweet,de\nthree tweets,en-GB\nno tweet,\n"
    with pytest.raises(
        UserError, match=r"5 tweets in other languages\); its most frequent languages are en-GB, en_US, de, \(none\)$"
    ):
        run({"a.csv": data}, filter=FilterConfig(languages=["english"]))
    _, rows = run({"a.csv": data}, filter=FilterConfig(languages=["en"]))
    assert [row["text"] for row in rows] == ["one tweet", "two tweets", "three tweets"]


def test_an_unknown_language_is_reported_before_anything_is_read(run):
    pytest.importorskip("py3langid", reason="needs the extra 'language'")
    with pytest.raises(UserError, match=r"filter\.languages: english: not known"):
        run({"a.csv": "text\na\n"}, filter=FilterConfig(languages=["english"], detect_language=True))


def test_a_filter_by_author_reports_tweets_without_one(run, capsys):
    files = {"a.csv": "text,author\none tweet,\ntwo tweets,\nthree tweets,ann\n"}
    funnel, _ = run(files, filter=FilterConfig(max_tweets_per_author=1))
    assert funnel["notes"]["no_author"] == 2
    assert "filter.max_tweets_per_author: 2 tweets have no author and are kept" in capsys.readouterr().err


def test_a_column_can_be_switched_off(run):
    files = {"a.csv": "id,text,rt_id\n7,hello world,9\n"}
    assert run(files)[1][0]["retweet_of"] == "9"
    (row,) = run(files, id_column="none", retweet_column="none")[1]
    assert (row["id"], row["retweet_of"]) == ("1", None)


def test_the_documentation_lists_every_name_that_is_looked_for():
    section = DOCS.read_text(encoding="utf-8").partition("## Name the columns")[2]
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    for role, names in NAMES.items():
        assert any(" ".join(f"`{name}`" for name in names) in line for line in rows), role
