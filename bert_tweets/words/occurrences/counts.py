"""A census of words: what embed would find of each, counted before any model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.corpus.shards.manifest import TOKENIZER_FOLDER, Manifest, require_tokenizer
from bert_tweets.corpus.text.tokenizer import load_tokenizer

from .find import FOUND, STATUSES, Occurrences, align, find, open_corpus, tweet_columns
from .groups import labels
from .matching import Asked


@dataclass(frozen=True)
class WordCount:
    """What the tweets of both splits hold of one word.

    Attributes:
        text: the word.
        statuses: name of a status to occurrences; their sum is the word's matches.
        pieces: median of the tokens of those that are found; 0 where none is.
        tweets, clusters: with one that is found; clusters are of near-duplicates.
        authors: of these, where they are known; None where of no tweet.
        years: to found occurrences, where times are known.
    """

    text: str
    statuses: dict[str, int]
    pieces: int
    tweets: int
    clusters: int
    authors: int | None
    years: dict[str, int]

    @property
    def matches(self) -> int:
        return sum(self.statuses.values())


def census(folder: Path, manifest: Manifest, words: Sequence[Asked]) -> list[WordCount]:
    """Counts the occurrences of words.

    Args:
        folder, manifest: the shards.
        words: to look for.

    Raises:
        UserError: the shards or their tokenizer are damaged.
    """
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


def _count(text: str, mine: npt.NDArray[np.bool_], occurrences: Occurrences, tweets: pa.Table) -> WordCount:
    counts = np.bincount(occurrences.status[mine], minlength=len(STATUSES)).tolist()
    found = mine & (occurrences.status == FOUND)
    of_found = tweets.filter(pa.array(found))
    authors = of_found.column("author")
    years: Any = pc.value_counts(labels(of_found.column("time"), "year").drop_null())
    by_year = {str(entry["values"]): int(entry["counts"]) for entry in years.to_pylist()}
    return WordCount(
        text=text,
        statuses=dict(zip(STATUSES, counts, strict=True)),
        pieces=int(np.median(occurrences.piece_counts[found])) if found.any() else 0,
        tweets=len(np.unique(occurrences.places.tweet[found])),
        clusters=len(np.unique(occurrences.cluster[found])),
        authors=pc.count_distinct(authors).as_py() if authors.null_count < len(authors) else None,
        years=dict(sorted(by_year.items())),
    )
