"""prepare: every row is counted, equal input gives equal bytes, and a user's mistake ends in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bert_tweets.common import output_folder
from bert_tweets.common.errors import UserError
from bert_tweets.config import PrepareConfig
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split, verify
from bert_tweets.corpus.text import tokenizer as tokenizers
from bert_tweets.corpus.text.cleaning import duplicate_key
from bert_tweets.prepare import main, prepare
from tests.helpers import generated_tweets, make_shards, write_csv


def run(source, output, tokenizer_folder, **overrides):
    """Run prepare; return its manifest, its funnel, and the rows of both splits."""
    settings = {"tokenizer": str(tokenizer_folder), "validation_fraction": 0.0, **overrides}
    manifest = prepare(PrepareConfig(input=[str(source)], output=str(output), **settings))
    funnel = json.loads((output / "funnel.json").read_text(encoding="utf-8"))
    return manifest, funnel, [row for split in ("train", "validation") for row in rows(output, split)]


def rows(output, split):
    opened = open_split(output, Manifest.read(output), split)
    return [row for shard in range(len(opened.shards)) for row in opened.batch(shard).to_pylist()]


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fails(capsys, *words):
    """Run the command, which must end with code 2 and one line; return the line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*map(str, words)])
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_funnel_adds_up(tweets_csv, tokenizer_folder, tmp_path):
    source = tweets_csv(
        [
            ("the mask works", "2020-01-01T00:00:00Z", "ann"),
            ("The MASK works!! https://t.co/x", "2020-01-02", "bob"),
            ("", "2020-01-02", "bob"),
            (" \t ", "2020-01-02", "bob"),
            ("\u200b", "2020-01-02", "bob"),
            ("x" * 101, "2020-01-02", "bob"),
            ("too", "many", "columns", "here"),
            ("the virus " * 10, "next week", ""),
            ("漢 the virus", "", "ann"),
        ],
        header=("text", "created_at", "author"),
    )
    source.write_bytes(source.read_bytes() + b"caf\xe9,2020-01-01,ann\r\n")
    output = tmp_path / "shards"
    manifest, funnel, kept = run(source, output, tokenizer_folder, max_characters=100, max_length=12)
    assert {reason: count for reason, count in funnel["dropped"].items() if count} == {
        "malformed_row": 1,
        "not_utf8": 1,
        "empty_text": 2,
        "too_many_characters": 1,
        "empty_after_cleaning": 1,
        "duplicate": 1,
    }
    assert funnel["read"] == 10 == funnel["kept"] + sum(funnel["dropped"].values())
    assert funnel["notes"] == {
        "truncated": 1,
        "unparsed_time": 1,
        "unparsed_time_other_order": 0,
        "no_time": 1,
        "no_author": 1,
        "rounded_id": 0,
        "tweets_with_unknown_tokens": 1,
        "unknown_tokens": 1,
    }
    named = {role: name for role, name in funnel["columns"].items() if name}
    assert named == {"text": "text", "time": "created_at", "author": "author"}
    assert funnel["recipe"] == manifest.recipe.hash
    assert funnel["splits"]["train"] == {"tweets": 3, "tokens": manifest.tokens("train")}
    assert manifest.unknown_tokens == 1
    assert [row["id"] for row in kept] == ["1", "8", "9"]
    assert [row["time"] and row["time"].year for row in kept] == [2020, None, None]
    assert kept[0]["author"] == kept[2]["author"] and kept[1]["author"] is None


def test_shards_hold_the_cleaned_text_and_its_tokens(shards):
    manifest = Manifest.read(shards)
    tokenizer = tokenizers.load_tokenizer(str(shards / "tokenizer"))
    assert tokenizers.fingerprint(tokenizer) == manifest.recipe.tokenizer
    for split in ("train", "validation"):
        verify(shards, manifest.splits[split])
        opened = open_split(shards, manifest, split)
        assert len(opened) == manifest.rows(split) > 0
        assert all(shard.rows <= 100 for shard in opened.shards)
        found = rows(shards, split)
        encoded = tokenizers.BatchTokenizer(tokenizer, manifest.max_length)([row["text"] for row in found])
        tweets = opened.gather(np.arange(len(opened)))
        assert (tweets.input_ids == encoded.input_ids).all()
        assert (tweets.word_starts == encoded.word_starts).all()
        assert (tweets.lengths == encoded.lengths).all()
    everything = rows(shards, "train") + rows(shards, "validation")
    assert {row["id"] for row in everything} == {str(number) for number in range(400)}
    assert not any("&amp;" in row["text"] or "t.co" in row["text"] for row in everything)


def test_authors_are_hashes_and_the_salt_is_written_nowhere(tmp_path):
    secret = "a very secret salt"
    first = make_shards(tmp_path / "a", author_salt=secret)
    again = make_shards(tmp_path / "b", author_salt=secret)
    other = make_shards(tmp_path / "c", author_salt="")
    for folder in (first, other):
        assert not any(b"author3" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert {len(row["author"]) for row in rows(folder, "train")} == {32}
    assert not any(secret.encode() in path.read_bytes() for path in first.rglob("*") if path.is_file())
    authors = [[row["author"] for row in rows(folder, "train")] for folder in (first, again, other)]
    assert authors[0] == authors[1]
    assert not set(authors[0]) & set(authors[2])
    assert len(set(authors[0])) == 10
    assert Manifest.read(first).settings["author_salt"] == "given"


def test_equal_input_and_settings_give_equal_bytes(tmp_path, tokenizer_folder):
    source = write_csv(tmp_path / "tweets.csv", ["text"], [(text,) for text in generated_tweets(300)])
    settings = {"author_salt": "x", "validation_fraction": 0.1, "shard_tweets": 70}
    run(source, tmp_path / "a", tokenizer_folder, **settings)
    run(source, tmp_path / "b", tokenizer_folder, num_workers=1, **settings)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_copies_are_never_on_both_sides(tmp_path, tokenizer_folder):
    texts = [text for text in generated_tweets(300) for _ in range(2)]
    source = write_csv(tmp_path / "tweets.csv", ["text"], [(text,) for text in texts])
    output = tmp_path / "all"
    _, funnel, _ = run(source, output, tokenizer_folder, deduplicate="none", validation_fraction=0.3)
    keys = [
        set(duplicate_key(pa.array([row["text"] for row in rows(output, split)])).to_pylist())
        for split in ("train", "validation")
    ]
    assert not keys[0] & keys[1] and keys[1]
    assert funnel["kept"] == 600
    _, funnel, kept = run(source, tmp_path / "distinct", tokenizer_folder, deduplicate="exact")
    assert funnel["dropped"]["duplicate"] == 300
    assert [int(row["id"]) for row in kept] == list(range(1, 600, 2)), "the earliest copy stays"


def test_the_split_depends_on_the_text_and_not_on_other_tweets(tmp_path, tokenizer_folder):
    texts = generated_tweets(300)
    held_out = []
    for name, lines in (("once", texts), ("copied", [text for text in texts for _ in range(3)]), ("back", texts[::-1])):
        source = write_csv(tmp_path / f"{name}.csv", ["text"], [(text,) for text in lines])
        run(source, tmp_path / name, tokenizer_folder, validation_fraction=0.2)
        held_out.append({row["text"] for row in rows(tmp_path / name, "validation")})
    assert 30 < len(held_out[0]) < 90
    assert held_out[0] == held_out[1] == held_out[2]


def test_rows_that_lack_an_id_cannot_be_taken_for_another(tweets_csv, tokenizer_folder, tmp_path):
    source = tweets_csv([("2", "one"), ("", "two")], header=("id", "text"))
    assert [row["id"] for row in run(source, tmp_path / "out", tokenizer_folder)[2]] == ["2", "row 2"]


def test_several_files_are_one_input(tweets_csv, tokenizer_folder, tmp_path):
    sources = [str(tweets_csv([f"tweet {name}", "the same"], name=f"{name}.csv")) for name in "ab"]
    prepare(PrepareConfig(input=sources, output=str(tmp_path / "out"), tokenizer=str(tokenizer_folder)))
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())
    assert (funnel["read"], funnel["kept"]) == (4, 3)


def test_an_empty_validation_split_is_allowed_with_a_warning(tweets_csv, tokenizer_folder, tmp_path, capsys):
    source = tweets_csv(["only one"])
    manifest, _, _ = run(source, tmp_path / "out", tokenizer_folder, validation_fraction=0.0001)
    assert manifest.splits["validation"] == []
    assert "no tweet was held out" in capsys.readouterr().err
    assert len(open_split(tmp_path / "out", Manifest.read(tmp_path / "out"), "validation")) == 0


def test_the_files_are_printed_and_none_is_read_twice(tweets_csv, tokenizer_folder, tmp_path, capsys):
    sources = [tweets_csv([f"tweet {name}"], name=f"{name}.csv") for name in "abcd"]
    words = [f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}"]
    main([f"input=[{','.join(map(str, sources))}]", *words])
    assert "input:      4 files (a.csv, b.csv, c.csv, ...)" in capsys.readouterr().out
    (tmp_path / "link.csv").symlink_to(sources[0])
    for twice in ([f"{tmp_path}/*.csv", sources[2]], [sources[0], tmp_path / "link.csv"]):
        names = f"input=[{','.join(map(str, twice))}]"
        assert "is named twice in input" in fails(capsys, names, f"output={tmp_path / 'new'}", words[1])


def test_tweets_without_a_time_are_reported(tweets_csv, tokenizer_folder, tmp_path, capsys):
    source = tweets_csv([("one", "2020-01-01"), ("two", ""), ("three", "soon")], header=("text", "created_at"))
    run(source, tmp_path / "out", tokenizer_folder)
    assert "warning: 1 tweet has no time" in capsys.readouterr().err


def test_names_in_another_encoding_end_in_one_line(tweets_csv, tokenizer_folder, tmp_path, capsys):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    tweets_csv(["a"]).rename(os.fsdecode(odd))
    words = [f"output={tmp_path / 'out'}", f"tokenizer={tokenizer_folder}"]
    for named in (os.fsdecode(odd), str(tmp_path)):
        assert "contains bytes that are not UTF-8" in fails(capsys, f"input={named}", *words)
    assert r"seed=\udce9: contains" in fails(capsys, f"input={tmp_path}/none.csv", *words, os.fsdecode(b"seed=\xe9"))
    assert not (tmp_path / "out").exists()


BAD_INPUT = {
    "missing column": (b"tweet_id,body_text\n1,x\n", "no text column among tweet_id, body_text"),
    "UTF-16": ("text\nhello\n".encode("utf-16"), "save the file as UTF-8"),
    "unclosed quote": (b'text\na\n"b\nc\n', "line 3 is never closed"),
    "empty file": (b"", "is empty"),
    "header only": (b"text,id\n", "contains a header but no rows"),
    "empty tweets": (b"text,id\n,1\n  ,2\n", "no tweet is left of 2 rows (2 empty texts)"),
    "truncated gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "cannot be read to its end"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_ends_in_one_line_and_leaves_nothing(case, tokenizer_folder, tmp_path, capsys):
    data, expected = BAD_INPUT[case]
    source = tmp_path / "tweets.csv"
    source.write_bytes(data)
    for tokenizer in (tokenizer_folder, "wordpiece"):
        line = fails(capsys, f"input={source}", f"output={tmp_path / 'out'}", f"tokenizer={tokenizer}")
        assert str(source) in line and expected in line
        assert [path.name for path in tmp_path.iterdir()] == ["tweets.csv"]


def test_other_mistakes_end_in_one_line_too(tweets_csv, tokenizer_folder, tmp_path, capsys):
    source, output = tweets_csv(["a"]), tmp_path / "out"
    given = [f"input={source}", f"output={output}", f"tokenizer={tokenizer_folder}"]
    assert "no such file" in fails(capsys, f"input={tmp_path}/none.csv", *given[1:])
    assert "no column 'txt' for the text (did you mean 'text'?)" in fails(capsys, *given, "text_column=txt")
    assert "no such folder" in fails(capsys, *given[:2], "tokenizer=./none")
    assert "(did you mean 'text'?)" in fails(capsys, *given, "text_column=TEXT")
    assert "unit_bytes=10: must be at least 4096" in fails(capsys, *given, "unit_bytes=10")
    assert "no such key (did you mean 'max_length'?)" in fails(capsys, *given, "max_lenght=3")
    assert "is a file" in fails(capsys, given[0], f"output={source}", given[2])
    assert not output.exists()


def test_invalid_bytes_only_drop_their_row(tokenizer_folder, tmp_path):
    source = tmp_path / "tweets.csv"
    source.write_bytes(
        b"text,id\nfirst,1\nnul \x00 byte,2\ncaf\xe9,3\n" + b"x" * 10_000_000 + b',4\n"quoted\nnewline",5\nlast,6'
    )
    _, funnel, kept = run(source, tmp_path / "out", tokenizer_folder)
    assert [row["text"] for row in kept] == ["first", "nul byte", "quoted newline", "last"]
    assert funnel["dropped"]["not_utf8"] == funnel["dropped"]["too_many_characters"] == 1


def test_help_is_quick_and_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from bert_tweets.prepare import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "max_length" in done.stdout


@pytest.mark.real_data
@pytest.mark.skipif("BERT_TWEETS_REAL_DATA" not in os.environ, reason="names no folder of real tweets")
@pytest.mark.parametrize("name", ["btc_ccby40.csv", "vader_mit.csv", "fivethirtyeight_mayweather_ccby40.csv"])
def test_real_tweets(name, tmp_path):
    source = Path(os.environ["BERT_TWEETS_REAL_DATA"]) / name
    manifest, funnel, kept = run(source, tmp_path / "out", "wordpiece", vocabulary_size=4000)
    assert funnel["dropped"]["malformed_row"] == funnel["dropped"]["not_utf8"] == 0
    assert len(kept) == funnel["kept"] > 0.5 * funnel["read"]
    assert manifest.unknown_tokens < 0.02 * manifest.tokens("train")


def test_a_full_disk_leaves_no_output_and_the_same_command_goes_on(tweets_csv, tokenizer_folder, tmp_path, monkeypatch):
    source = tweets_csv(["a"])
    real = output_folder.write_bytes

    def full(path, data, mode=0o666):
        if ".arrow" in path.name:
            raise OSError(errno.ENOSPC, "full")
        real(path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr(output_folder, "write_bytes", full)
        with pytest.raises(UserError, match=r"the disk is full; .*the same command resumes the work in .*\.out\.unf"):
            run(source, tmp_path / "out", tokenizer_folder)
        assert not (tmp_path / "out").exists()
    run(source, tmp_path / "out", tokenizer_folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tweets.csv"]
