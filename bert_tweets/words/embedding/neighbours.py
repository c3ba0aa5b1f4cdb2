"""Neighbours: the words of the same tweets whose centroids lie nearest, each model in its own space."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from bert_tweets.common.hashing import generator
from bert_tweets.corpus.text.cleaning import LINK
from bert_tweets.words.occurrences.find import Corpus, Places, sample, tweet_columns
from bert_tweets.words.occurrences.matching import Asked, fold, mark_ranges
from bert_tweets.words.store.vector_space import Doubles, Vectors

from .postprocess import NONE

# Occurrences of a background word that its centroid is made of, at most.
_OCCURRENCES = 50


@dataclass(frozen=True)
class Background:
    """The words that neighbours are chosen from.

    Attributes:
        words: case-folded, in alphabetical order.
        places: where they stand, by their number in `words`.
        tweets: tweets that were looked at.
    """

    words: list[str]
    places: Places
    tweets: int


def background(corpus: Corpus, asked: Sequence[Asked], tweets: int, minimum: int, seed: int) -> Background:
    """The words and hashtags of a seeded sample of tweets.

    A word has two letters at least and nothing but letters; mentions, links and the asked words are none.

    Args:
        corpus: the tweets.
        asked: words that are left out.
        tweets: to look at.
        minimum: occurrences in these tweets that a word needs.
        seed: of the sample.
    """
    size = min(tweets, len(corpus))
    chosen = np.sort(generator(seed, "background").choice(len(corpus), size, replace=False))
    spans = []
    texts = tweet_columns(corpus, chosen, ["text"]).column("text").to_pylist() if size else []
    for tweet, text in zip(chosen.tolist(), texts, strict=True):
        spans += [(word, tweet, start, end) for word, start, end in words_in(text)]
    counts = Counter(word for word, *_ in spans)
    frequent = (word for word, count in counts.items() if count >= minimum and word != LINK)
    words = sorted(word for word in frequent if not any(one.covers(word) for one in asked))
    number = {word: index for index, word in enumerate(words)}
    places = Places.of([(number[word], *where) for word, *where in spans if word in number])
    return Background(words, sample(places, words, _OCCURRENCES, seed), size)


def words_in(text: str) -> list[tuple[str, int, int]]:
    """The words of two letters or more and the hashtags of a text: folded, with start and end in characters."""
    found = []
    for match in _word_pattern().finditer(text):
        word = match.group()
        letters = sum(character.isalpha() for character in word)
        is_hashtag = word[0] in "#＃" and letters > 0
        is_word = letters > 1 and all(c.isalpha() or unicodedata.category(c)[0] == "M" for c in word)
        if is_hashtag or is_word:
            found.append((fold(word), match.start(), match.end()))
    return found


@cache
def _word_pattern() -> re.Pattern[str]:
    """Runs of word characters with what stands before them."""
    return re.compile(rf"[#＃@＠]?[\w{mark_ranges()}]+")


def nearest(words: Vectors, others: Vectors, count: int) -> list[list[tuple[int, float]]]:
    """The nearest of the background for each word, by cosine after the origin is moved, see `background_mean`.

    Args:
        words: one model's centroids; NaN for a word that was not found.
        others: those of the background, in the same space; NaN likewise.
        count: neighbours of a word.

    Returns:
        For each word its neighbours as (row of `others`, cosine), nearest first; none for one not found.

    Raises:
        UserError: they lie in different spaces.
    """
    known = np.flatnonzero(~np.isnan(others.values).any(axis=1))
    cosines = words.cosines(others.take(known), background_mean(others))
    ranked = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [
        [] if np.isnan(row).any() else [(int(known[column]), float(row[column])) for column in best]
        for row, best in zip(cosines, ranked, strict=True)
    ]


def background_mean(others: Vectors) -> Doubles | None:
    """What is taken off before cosines: the mean of the background's words; None in a space that is corrected.

    Contextual vectors share a large common direction, beside which all cosines look alike; taking off the mean
    is the first step of Mu and Viswanath 2018, "All-but-the-top", section 3.
    """
    known = others.values[~np.isnan(others.values).any(axis=1)]
    if others.space.correction != NONE or not len(known):
        return None
    mean: Doubles = known.mean(axis=0, dtype=np.float64)
    return mean


def overlap(before: list[str], after: list[str]) -> float | None:
    """The share of neighbours that stayed, from 0 to 1; None where a side has none."""
    if not before or not after:
        return None
    return len(set(before) & set(after)) / min(len(before), len(after))
