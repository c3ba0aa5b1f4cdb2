"""Counts of each word's occurrences, as embed would find them, without running a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Bools
from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest, require_tokenizer
from bert_tweets.corpus.text.tokenizer import load_tokenizer

from .find import FOUND, STATUSES, Occurrences, align, find, median_subwords, open_corpus, tweet_columns
from .groups import labels
from .matching import ChosenWord


@dataclass(frozen=True)
class WordCount:
    """Counts of one word in the tweets of both splits.

    Attributes:
        text: the word.
        statuses: number of occurrences by status; their sum is the word's matches.
        subwords: median number of tokens of its found occurrences; 0 if none is found.
        tweets, clusters: number of tweets and of near-duplicate clusters with a found occurrence.
        authors: number of known authors of these tweets; None if no author is known.
        years: number of found occurrences by year, if times are known.
    """

    text: str
    statuses: dict[str, int]
    subwords: int
    tweets: int
    clusters: int
    authors: int | None
    years: dict[str, int]

    @property
    def matches(self) -> int:
        return sum(self.statuses.values())


def count_occurrences(folder: Path, manifest: Manifest, words: Sequence[ChosenWord]) -> list[WordCount]:
    """Count the occurrences of words; raises UserError if the shards or their tokenizer are damaged."""
    require_tokenizer(folder, manifest)
    corpus = open_corpus(str(folder), manifest)
    tokenizer = load_tokenizer(str(folder / TOKENIZER_FOLDER), local_only=True)
    occurrences = align(corpus, find(corpus, words), tokenizer, manifest.unknown_id)
    if not len(occurrences):
        nothing = dict.fromkeys(STATUSES, 0)
        return [WordCount(word.text, nothing, 0, 0, 0, None, {}) for word in words]
    tweets = tweet_columns(corpus, occurrences.places.tweet, ["author", "time"])
    return [
        _count(word.text, occurrences.places.word == number, occurrences, tweets) for number, word in enumerate(words)
    ]


def _count(text: str, mine: Bools, occurrences: Occurrences, tweets: pa.Table) -> WordCount:
    counts = np.bincount(occurrences.status[mine], minlength=len(STATUSES)).tolist()
    found = mine & (occurrences.status == FOUND)
    of_found = tweets.filter(pa.array(found))
    authors = of_found.column("author")
    years: Any = pc.value_counts(labels(of_found.column("time"), "year").drop_null())
    by_year = {str(entry["values"]): int(entry["counts"]) for entry in years.to_pylist()}
    return WordCount(
        text=text,
        statuses=dict(zip(STATUSES, counts, strict=True)),
        subwords=median_subwords(occurrences, found),
        tweets=len(np.unique(occurrences.places.tweet[found])),
        clusters=len(np.unique(occurrences.cluster[found])),
        authors=pc.count_distinct(authors).as_py() if authors.null_count < len(authors) else None,
        years=dict(sorted(by_year.items())),
    )
