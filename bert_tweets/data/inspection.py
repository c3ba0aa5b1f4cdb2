"""Inspection: what a folder of shards holds, counted on a seeded sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
    """What the tweets show: those of both splits, or a sample of the training split.

    Attributes:
        tweets: of the sample.
        lengths: percentile to tokens, over all training tweets.
        padding: way of making batches to the share of positions that it wastes, in the sample.
        unknown_tokens: share of [UNK] among the tokens of both splits, [CLS] and [SEP] left out, as prepare tells it.
        unknown_tweets: share of the tweets of both splits with one, as prepare tells it.
        worst_words: what [UNK] stands for in the sample, the most frequent first.
        samples: pairs of a tweet's text and its tokens.
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
    """Counts on a seeded sample of the training split, and takes what prepare counted over all tweets.

    Args:
        folder, manifest: the shards.
        max_tweets: tweets of the sample at most.
        batch_size: tweets of a batch, for the comparison of padding.
        samples: tweets to show.
        seed: of the samples.
        advance: is told of tweets as they are counted.

    Raises:
        UserError: the shards, their tokenizer or their funnel are damaged, or there is no training tweet.
    """
    if not manifest.rows("train"):
        raise UserError(f"{folder}: holds no training tweet; prepare more tweets, or a smaller validation_fraction")
    require_tokenizer(folder, manifest)
    funnel = Funnel.from_file(folder / FUNNEL_FILE)
    split = open_split(folder, manifest, "train")
    chosen = permute(np.arange(min(len(split), max_tweets)), len(split), seed, 0)
    backend = private_backend(load_tokenizer(str(folder / TOKENIZER_FOLDER), local_only=True))
    lengths, worst = [], Counter[str]()
    for first in range(0, len(chosen), _TWEETS_AT_ONCE):
        rows = chosen[first : first + _TWEETS_AT_ONCE]
        tweets = split.gather(rows)
        owner = np.repeat(np.arange(len(rows)), tweets.lengths)
        some = np.unique(owner[tweets.input_ids == manifest.unknown_id])
        worst.update(_unknown_words(split.texts(rows[some]), backend, manifest.unknown_id))
        lengths.append(tweets.lengths)
        advance(len(rows))
    return Inspection(
        tweets=len(chosen),
        lengths=percentiles(manifest.lengths["train"]),
        padding=padding_of(np.concatenate(lengths), batch_size, manifest.max_length),
        unknown_tokens=funnel.unknown_share,
        unknown_tweets=funnel.notes["tweets with [UNK]"] / max(1, funnel.kept),
        worst_words=worst.most_common(_WORST_WORDS),
        samples=[(text, backend.encode(text).tokens) for text in split.texts(chosen[:samples])],
    )


def percentiles(histogram: list[int]) -> dict[int, int]:
    """Percentile to tokens, out of a histogram whose entry n counts the tweets of n tokens."""
    ends = np.cumsum(histogram)
    return {p: int(np.searchsorted(ends, ends[-1] * p / 100)) for p in _PERCENTILES}


def padding_of(lengths: npt.NDArray[np.int64], batch_size: int, max_length: int) -> dict[str, float]:
    """The share of positions that is padding, by the way in which batches are made.

    Args:
        lengths: int64 [tweets], in the order in which they are batched.
    """
    whole = len(lengths) // batch_size * batch_size or len(lengths)
    size = min(batch_size, whole)
    batches = lengths[:whole].reshape(-1, size)
    grouped = np.sort(lengths[:whole]).reshape(-1, size)
    tokens = int(batches.sum())
    positions = {
        f"padded to {max_length}": whole * max_length,
        "padded to the batch's longest": int(batches.max(axis=1).sum()) * size,
        "grouped by length, then padded": int(grouped.max(axis=1).sum()) * size,
        "packed, as here": sum(best_fit(batch, max_length).rows for batch in batches) * max_length,
    }
    return {name: 1 - tokens / count for name, count in positions.items()}


def _unknown_words(texts: list[str], backend: object, unknown_id: int) -> list[str]:
    """What stands in the texts where the tokenizer has [UNK]."""
    words = []
    for text, encoding in zip(texts, backend.encode_batch(texts), strict=True):  # type: ignore[attr-defined]
        places = (place for token, place in zip(encoding.ids, encoding.offsets, strict=True) if token == unknown_id)
        words += [text[start:end] for start, end in places]
    return words
