"""Generated tweets, and shards made from them as a user makes them."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bert_tweets.config import PrepareConfig
from bert_tweets.prepare import prepare

SUBJECTS = ["the mask", "this virus", "my vaccination", "our government", "a photographer", "unbelievable football"]
VERBS = ["protects", "disappoints", "overwhelms", "is misunderstood by", "photographs", "celebrates", "infuriates"]
OBJECTS = ["everyone", "the neighbourhood", "grandmothers", "commuters in London", "the internet", "nobody, honestly"]
ENDINGS = [
    "😷",
    "😂😂",
    "#StayHome",
    "#metoo",
    "@friend",
    "https://t.co/a1B2",
    "!!!",
    "&amp; so on",
    "👩🏽‍💻",
    "...",
    "",
]


def generated_tweets(count: int, seed: int = 0) -> list[str]:
    """Distinct tweets of 1 to about 40 words, with multi-subword words, hashtags, emoji, mentions, links, entities."""
    generator = random.Random(seed)
    tweets = []
    for number in range(count):
        sentences = [
            f"{generator.choice(SUBJECTS)} {generator.choice(VERBS)} {generator.choice(OBJECTS)}"
            for _ in range(generator.choice([1, 1, 1, 2, 4]))
        ]
        tweets.append(
            f"{'. '.join(sentences).capitalize()}{generator.choice([' ', ''])}{generator.choice(ENDINGS)} {number}"
        )
    return tweets


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    """Write a CSV file in UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def make_shards(folder: Path, texts: Sequence[str] | None = None, **overrides: Any) -> Path:
    """Make a folder of shards with prepare(), from these texts or from 400 generated ones.

    Args:
        folder: working folder; the shards are in `folder / "shards"`.
        texts: texts of the tweets, which get ids "0", "1", ..., days in 2020, and one of ten authors.
        overrides: settings of `PrepareConfig`. Defaults: a small trained WordPiece, a tenth for validation, 100 tweets
            per shard, no deduplication, so that no text is dropped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = generated_tweets(400) if texts is None else texts
    rows = [
        (str(number), f"2020-{number // 28 % 12 + 1:02d}-{number % 28 + 1:02d}", f"author{number % 10}", text)
        for number, text in enumerate(texts)
    ]
    source = write_csv(folder / "tweets.csv", ["id", "created_at", "author", "text"], rows)
    settings: dict[str, Any] = {
        "input": [str(source)],
        "output": str(folder / "shards"),
        "tokenizer": "wordpiece",
        "vocabulary_size": 240,
        "validation_fraction": 0.1,
        "shard_tweets": 100,
        "deduplicate": "none",
        "author_salt": "salt of the tests",
        **overrides,
    }
    prepare(PrepareConfig(**settings))
    return Path(settings["output"])
