"""Columns of occurrences.parquet that describe how a word is used in its tweet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Ints
from bert_tweets.corpus.text.cleaning import LINK

from .find import Corpus, Places

CONTEXT = (
    # Of the word: lower, upper (two letters or more), title (each part), mixed, or none if no letter has a case.
    pa.field("casing", pa.string()),
    # Number of links in the tweet: addresses, or cleaning's replacement for them.
    pa.field("links", pa.int32()),
    pa.field("retweet", pa.bool_()),
    # Number of tokens of the tweet as the model reads it, including the special ones.
    pa.field("tweet_length", pa.int32()),
    # Position of the word's first token among these; -1 unless it is found.
    pa.field("position", pa.int32()),
)

# `HTTPURL` is BERTweet's.
_LINKS = rf"(?i)https?://\S+|\b{LINK}(?:url)?\b"


def context_columns(corpus: Corpus, places: Places, tweets: pa.Table, first: Ints) -> dict[str, pa.Array]:
    """The columns of `CONTEXT`.

    Args:
        tweets: columns `text` and `retweet_of` of each place's tweet.
        first: int64 [places], see `Occurrences.first_positions`.
    """
    texts = tweets.column("text")
    spans = zip(texts.to_pylist(), places.start.tolist(), places.end.tolist(), strict=True)
    return {
        "casing": casing(pa.array([text[start:end] for text, start, end in spans], pa.string())),
        "links": pc.count_substring_regex(texts, _LINKS).cast(pa.int32()),
        "retweet": pc.is_valid(tweets.column("retweet_of")),
        "tweet_length": pa.array(corpus.lengths_of(places.tweet), pa.int32()),
        "position": pa.array(first, pa.int32()),
    }


def casing(words: pa.Array) -> pa.Array:
    """lower, upper, title, mixed or none for each word; string [words]."""
    lower, upper = pc.utf8_lower(words), pc.utf8_upper(words)
    single = pc.less(pc.count_substring_regex(words, r"\p{L}"), 2)
    kinds = pc.case_when(
        pc.make_struct(
            pc.equal(lower, upper),
            pc.equal(words, lower),
            pc.and_(pc.equal(words, upper), pc.invert(single)),
            pc.equal(words, pc.utf8_title(words)),
        ),
        "none",
        "lower",
        "upper",
        "title",
        "mixed",
    )
    return kinds if isinstance(kinds, pa.Array) else pa.array([], pa.string())
