"""Summarise a folder of shards, from the counts of prepare and a seeded sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError
from bert_tweets.corpus.shards.funnel import Funnel
from bert_tweets.corpus.shards.manifest import FUNNEL_FILE, TOKENIZER_FOLDER, Manifest, require_tokenizer
from bert_tweets.corpus.shards.reader import open_split
from bert_tweets.corpus.text.tokenizer import load_tokenizer, private_backend

from .packing import best_fit
from .permutation import permute

_TWEETS_AT_ONCE = 4096
_PERCENTILES = (1, 25, 50, 75, 95, 99, 100)
_WORST_WORDS = 15


@dataclass(frozen=True)
class Inspection:
    """A summary of the tweets of both splits, or of a sample of the training split.

    Attributes:
        tweets: number of tweets in the sample.
        lengths: length in tokens by percentile, over all training tweets.
        padding: share of positions that is padding in the sample, by batching method.
        unknown_tokens: share of [UNK] among the tokens of both splits, without [CLS] and [SEP].
        unknown_tweets: share of the tweets of both splits with [UNK].
        worst_words: words that are [UNK] in the sample and their counts, most frequent first.
        samples: text and tokens of sample tweets.
    """

    tweets: int
    lengths: dict[int, int]
    padding: dict[str, float]
    unknown_tokens: float
    unknown_tweets: float
    worst_words: list[tuple[str, int]]
    samples: list[tuple[str, list[str]]]


def inspect(
    folder: Path,
    manifest: Manifest,
    max_tweets: int,
    batch_size: int,
    samples: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Inspection:
    """Count on a seeded sample of the training split, and add the counts of prepare over all tweets.

    Args:
        folder, manifest: folder of the shards, and its manifest.
        max_tweets: maximum number of tweets in the sample.
        batch_size: number of tweets per batch in the comparison of padding.
        samples: number of tweets to show.
        seed: random seed of the sample.
        advance: is called with the number of tweets that were counted.

    Raises:
        UserError: the shards, their tokenizer or their funnel are damaged, or there is no training tweet.
    """
    if not manifest.rows("train"):
        raise UserError(f"{folder}: contains no training tweet; prepare more tweets, or a smaller validation_fraction")
    require_tokenizer(folder, manifest)
    funnel = Funnel.from_file(folder / FUNNEL_FILE)
    split = open_split(folder, manifest, "train")
    sample = permute(np.arange(min(len(split), max_tweets)), len(split), seed, 0)
    backend = private_backend(load_tokenizer(str(folder / TOKENIZER_FOLDER), local_only=True))
    lengths, worst = [], Counter[str]()
    for first in range(0, len(sample), _TWEETS_AT_ONCE):
        rows = sample[first : first + _TWEETS_AT_ONCE]
        tweets = split.gather(rows)
        owner = np.repeat(np.arange(len(rows)), tweets.lengths)
        some = np.unique(owner[tweets.input_ids == manifest.unknown_id])
        worst.update(_unknown_words(split.texts(rows[some]), backend, manifest.unknown_id))
        lengths.append(tweets.lengths)
        advance(len(rows))
    return Inspection(
        tweets=len(sample),
        lengths=percentiles(manifest.lengths["train"]),
        padding=padding_of(np.concatenate(lengths), batch_size, manifest.max_length),
        unknown_tokens=funnel.unknown_token_share,
        unknown_tweets=funnel.unknown_tweet_share,
        worst_words=worst.most_common(_WORST_WORDS),
        samples=[(text, backend.encode(text).tokens) for text in split.texts(sample[:samples])],
    )


def percentiles(histogram: list[int]) -> dict[int, int]:
    """Length in tokens by percentile, from a histogram whose entry n counts the tweets of n tokens."""
    ends = np.cumsum(histogram)
    return {p: int(np.searchsorted(ends, ends[-1] * p / 100)) for p in _PERCENTILES}


def padding_of(lengths: Ints, batch_size: int, max_length: int) -> dict[str, float]:
    """Share of positions that is padding, by batching method, for tweets of these lengths in tokens, int64 [tweets]."""
    whole = len(lengths) // batch_size * batch_size or len(lengths)
    size = min(batch_size, whole)
    batches = lengths[:whole].reshape(-1, size)
    grouped = np.sort(lengths[:whole]).reshape(-1, size)
    tokens = int(batches.sum())
    positions = {
        f"padded to {max_length}": whole * max_length,
        "padded to the batch's longest": int(batches.max(axis=1).sum()) * size,
        "grouped by length, then padded": int(grouped.max(axis=1).sum()) * size,
        "packed": sum(best_fit(batch, max_length).rows for batch in batches) * max_length,
    }
    return {name: 1 - tokens / count for name, count in positions.items()}


def _unknown_words(texts: list[str], backend: Any, unknown_id: int) -> list[str]:
    """Words of the texts that the tokenizer encodes as [UNK]."""
    words = []
    for text, encoding in zip(texts, backend.encode_batch(texts), strict=True):
        places = (place for token, place in zip(encoding.ids, encoding.offsets, strict=True) if token == unknown_id)
        words += [text[start:end] for start, end in places]
    return words
