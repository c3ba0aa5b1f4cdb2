"""prepare's filters, near-duplicates, clusters and kept columns, over units of work, in the files people have."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter, defaultdict

import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.config import FilterConfig, NearConfig, PrepareConfig
from bert_tweets.corpus.pipeline import selection
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.prepare import prepare
from tests.helpers import write_csv

WORDS = [f"{first}{second}" for first in ("ma", "vi", "zo", "co", "go", "ra", "tu", "le") for second in
         ("sk", "rus", "om", "ffee", "al", "in", "lip", "mon", "per", "tra")]  # fmt: skip


def sentence(draw: random.Random, words: int = 12) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


def run(source, output, tokenizer_folder, **overrides):
    """Prepares in units of a kilobyte; the manifest, the funnel, and the rows of each split."""
    settings = {"tokenizer": str(tokenizer_folder), "validation_fraction": 0.0, "unit_bytes": 1024, **overrides}
    manifest = prepare(PrepareConfig(input=[str(source)], output=str(output), num_workers=1, **settings))
    funnel = json.loads((output / "funnel.json").read_text(encoding="utf-8"))
    rows = {}
    for split in ("train", "validation"):
        opened = open_split(output, Manifest.read(output), split)
        rows[split] = [row for shard in range(len(opened.shards)) for row in opened.batch(shard).to_pylist()]
    return manifest, funnel, rows


@pytest.fixture(scope="module")
def near_copies(tmp_path_factory):
    """300 sentences; every third comes again with its last word changed, far away; every fifth as a retweet."""
    draw = random.Random(1)
    texts = [sentence(draw, 16) for _ in range(300)]
    changed = [f"{text.rsplit(' ', 1)[0]} changed" for text in texts[::3]]
    retweets = [f"RT @somebody: {text}" for text in texts[::5]]
    rows = [(str(number), text) for number, text in enumerate(texts + changed + retweets)]
    return write_csv(tmp_path_factory.mktemp("near") / "tweets.csv", ["id", "text"], rows)


def test_near_duplicates_are_found_over_all_units_and_the_earliest_is_kept(near_copies, tokenizer_folder, tmp_path):
    _, funnel, rows = run(near_copies, tmp_path / "near", tokenizer_folder, deduplicate="near")
    assert funnel["dropped"]["duplicate"] == 60, "a retweet is a copy of its original"
    assert 97 <= funnel["dropped"]["near_duplicate"] <= 103
    assert all(int(row["id"]) < 300 for row in rows["train"][:290])
    _, funnel, rows = run(near_copies, tmp_path / "exact", tokenizer_folder, deduplicate="exact")
    assert (funnel["dropped"]["duplicate"], funnel["dropped"]["near_duplicate"]) == (60, 0)
    by_id = {int(row["id"]): row["cluster"] for row in rows["train"]}
    pairs = [(3 * number, 300 + number) for number in range(100)]
    assert sum(by_id[first] == by_id[second] for first, second in pairs) >= 97


def test_the_threshold_decides(near_copies, tokenizer_folder, tmp_path):
    strict = NearConfig(jaccard=0.95)
    _, funnel, _ = run(near_copies, tmp_path / "out", tokenizer_folder, deduplicate="near", near=strict)
    assert funnel["dropped"]["near_duplicate"] == 0


def test_without_deduplication_clusters_and_retweets_are_stored_and_stay_on_one_side(
    near_copies, tokenizer_folder, tmp_path
):
    _, funnel, rows = run(near_copies, tmp_path / "out", tokenizer_folder, deduplicate="none", validation_fraction=0.3)
    assert funnel["kept"] == 460 == funnel["read"]
    assert sum(row["retweet_of"] == "" for split in rows.values() for row in split) == 60
    sides = defaultdict(set)
    sizes = Counter()
    for split, found in rows.items():
        for row in found:
            sides[row["cluster"]].add(split)
            sizes[row["cluster"]] += 1
    assert all(len(side) == 1 for side in sides.values())
    assert len(rows["validation"]) > 60 and Counter(sizes.values())[3] >= 15


def test_each_filter_is_counted(tokenizer_folder, tmp_path):
    draw = random.Random(2)
    rows = []
    for number in range(120):
        text = sentence(draw, 3 if number < 10 else 30 if number < 20 else 10)
        text = f"RT @x: {text}" if 20 <= number < 30 else text
        author = "robot" if 30 <= number < 60 else f"author {number}"
        day = "2020-05-01" if 60 <= number < 90 else f"2020-06-{number % 28 + 1:02d}"
        rows.append(
            (str(number), text, author, day, "de" if number >= 110 else "en", "left" if number % 2 else "right")
        )
    source = write_csv(tmp_path / "t.csv", ["id", "text", "user", "created_at", "lang", "party"], rows)
    tokens = {"min_tokens": 14, "max_tokens": 70}
    manifest, funnel, found = run(
        source,
        tmp_path / "out",
        tokenizer_folder,
        group_columns=["party"],
        author_salt="s",
        filter=FilterConfig(retweets=True, languages=["EN"], max_tweets_per_author=20, max_tweets_per_day=12, **tokens),
    )
    dropped = {reason: count for reason, count in funnel["dropped"].items() if count}
    assert dropped.pop("too_few_tokens") == 10
    assert dropped.pop("too_many_tokens") == 10
    assert dropped == {
        "retweet": 10,
        "other_language": 10,
        "author_over_limit": 30,
        "day_over_limit": 18,
    }
    kept = found["train"]
    assert funnel["kept"] == len(kept) == 32
    assert manifest.groups == ["party"] == list(Manifest.read(tmp_path / "out").groups)
    assert all(row["group.party"] == ("left" if int(row["id"]) % 2 else "right") for row in kept)
    assert {row["language"] for row in kept} == {"en"}
    lengths = [len(row["input_ids"]) for row in kept]
    assert min(lengths) >= 14 and max(lengths) <= 70
    assert manifest.lengths["train"] == [lengths.count(n) for n in range(manifest.max_length + 1)]


def test_an_author_s_tweets_are_counted_with_their_copies(tokenizer_folder, tmp_path):
    draw = random.Random(4)
    rows = [("robot", "the same advertisement comes again"), ("robot", sentence(draw))]
    for number in range(60):
        rows.append((f"person {number}", sentence(draw)))
        if number % 6 == 0:
            rows.append(("robot", f"The same ADVERTISEMENT comes again! https://t.co/{number}"))
    source = write_csv(tmp_path / "t.csv", ["user", "text"], rows)
    limits = {"filter": FilterConfig(max_tweets_per_author=11), "author_salt": "s"}
    for name, overrides in (("units", {}), ("one", {"unit_bytes": 10**6}), ("none", {"deduplicate": "none"})):
        _, funnel, kept = run(source, tmp_path / name, tokenizer_folder, **limits, **overrides)
        copies = 0 if name == "none" else 10
        assert (funnel["dropped"]["duplicate"], funnel["dropped"]["author_over_limit"]) == (copies, 12 - copies)
        assert len(kept["train"]) == 60 == len({row["author"] for row in kept["train"]})
    twelve = FilterConfig(max_tweets_per_author=12)
    assert run(source, tmp_path / "twelve", tokenizer_folder, filter=twelve)[1]["kept"] == 62


def test_spellings_of_a_name_are_one_author(tokenizer_folder, tmp_path):
    names = ["Alice", "alice", " @ALICE ", "＠alice", "ÉLISE", "élise", "bob", "", " ", "@"]
    rows = [(name, f"{sentence(random.Random(number))}") for number, name in enumerate(names)]
    source = write_csv(tmp_path / "t.csv", ["user", "text"], rows)
    authors = [row["author"] for row in run(source, tmp_path / "out", tokenizer_folder)[2]["train"]]
    assert [len(set(authors[:4])), len(set(authors[4:6])), len(set(authors[:7]))] == [1, 1, 3]
    assert None not in authors[:7] and authors[7:] == [None, None, None]
    limits = FilterConfig(max_tweets_per_author=3)
    assert run(source, tmp_path / "limited", tokenizer_folder, filter=limits)[1]["kept"] == 6


def test_long_columns_that_are_kept_close_a_shard_early(tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "LARGEST_SHARD", 20_000)
    draw = random.Random(5)
    rows = [(sentence(draw), "profile " * 500, "") for _ in range(20)]
    source = write_csv(tmp_path / "t.csv", ["text", "bio", "nothing"], rows)
    manifest, _, kept = run(source, tmp_path / "out", tokenizer_folder, group_columns=["bio", "nothing"])
    assert [shard.rows for shard in manifest.splits["train"]] == [4] * 5 and len(kept["train"]) == 20


def test_a_filter_without_its_column_is_a_mistake(tmp_path, tokenizer_folder):
    source = write_csv(tmp_path / "t.csv", ["text"], [("hello",)])
    for given, message in (
        ({"languages": ["en"]}, r"filter\.languages: no language column.*detect_language=true"),
        ({"max_tweets_per_author": 3}, r"no author column.*author_column=NAME"),
        ({"max_tweets_per_day": 3}, r"no time column"),
    ):
        with pytest.raises(UserError, match=message):
            run(source, tmp_path / "out", tokenizer_folder, filter=FilterConfig(**given))
    assert not (tmp_path / "out").exists()


def test_retweets_of_twitter_v1_objects_are_recognised(tmp_path, tokenizer_folder):
    original = {"id_str": "7", "full_text": "the mask protects everyone in the neighbourhood", "user": {"id_str": "1"}}
    objects = [
        {**original, "lang": "en", "created_at": "Wed Oct 10 20:19:24 +0000 2018"},
        {
            "id_str": "8",
            "full_text": "RT @a: the mask protects every…",
            "retweeted_status": {**original, "user": {"screen_name": "a"}},
            "lang": "en",
            "user": {"id_str": "2"},
        },
    ]
    source = tmp_path / "tweets.jsonl"
    source.write_text("\n".join(map(json.dumps, objects)))
    _, _, rows = run(source, tmp_path / "none", tokenizer_folder, deduplicate="none")
    first, second = rows["train"]
    assert (first["retweet_of"], second["retweet_of"]) == (None, "7")
    assert first["cluster"] == second["cluster"] and second["text"].endswith("neighbourhood")
    assert first["language"] == "en" and first["time"].year == 2018
    _, funnel, _ = run(source, tmp_path / "exact", tokenizer_folder)
    assert funnel["dropped"]["duplicate"] == 1
    _, funnel, _ = run(source, tmp_path / "filtered", tokenizer_folder, filter=FilterConfig(retweets=True))
    assert funnel["dropped"]["retweet"] == 1


def test_the_language_can_be_detected_from_the_text(tmp_path, tokenizer_folder):
    texts = [
        "the government said yesterday that everybody should stay at home this week",
        "la ministra dijo ayer que todos tenemos que quedarnos en casa esta semana",
        "die Regierung hat gestern gesagt dass alle diese Woche zu Hause bleiben sollen",
    ]
    source = write_csv(tmp_path / "t.csv", ["text"], [(text,) for text in texts])
    limits = FilterConfig(languages=["es", "de"], detect_language=True)
    _, funnel, rows = run(source, tmp_path / "out", tokenizer_folder, filter=limits)
    assert [row["language"] for row in rows["train"]] == ["es", "de"]
    assert funnel["dropped"]["other_language"] == 1


def test_auto_chooses_the_preset_by_the_requested_tokenizer(tmp_path, tokenizer_folder):
    source = write_csv(tmp_path / "t.csv", ["text"], [("the mask",)])
    twitter = tmp_path / "cardiffnlp" / "twitter-x"
    twitter.parent.mkdir()
    shutil.copytree(tokenizer_folder, twitter)
    assert run(source, tmp_path / "out", twitter)[0].recipe.clean == "timelms"
    assert run(source, twitter.parent / "twitter-y", tokenizer_folder)[0].recipe.clean == "tweets"
