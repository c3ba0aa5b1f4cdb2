"""Nearest neighbours: the background words with the most similar centroids, in each model's own space."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from bert_tweets.common.arrays import Doubles
from bert_tweets.common.hashing import generator
from bert_tweets.corpus.text.cleaning import LINK
from bert_tweets.words.occurrences.find import Corpus, Places, sample, tweet_columns
from bert_tweets.words.occurrences.matching import ChosenWord, fold, mark_ranges
from bert_tweets.words.store.vector_space import Vectors

from .postprocess import NONE

# Maximum number of occurrences that a background word's centroid is made of.
_OCCURRENCES = 50


@dataclass(frozen=True)
class Background:
    """The words that neighbours are chosen from.

    Attributes:
        words: the words, case-folded, in alphabetical order.
        places: a sample of their places, by index in `words`.
        tweets: number of sampled tweets.
    """

    words: list[str]
    places: Places
    tweets: int


def background(corpus: Corpus, chosen_words: Sequence[ChosenWord], tweets: int, minimum: int, seed: int) -> Background:
    """The words and hashtags of a seeded sample of tweets that occur at least `minimum` times in it.

    A word consists of letters, at least two; mentions, links and the chosen words are excluded.
    """
    size = min(tweets, len(corpus))
    chosen = np.sort(generator(seed, "background").choice(len(corpus), size, replace=False))
    spans = []
    texts = tweet_columns(corpus, chosen, ["text"]).column("text").to_pylist() if size else []
    for tweet, text in zip(chosen.tolist(), texts, strict=True):
        spans += [(word, tweet, start, end) for word, start, end in words_in(text)]
    counts = Counter(word for word, *_ in spans)
    frequent = (word for word, count in counts.items() if count >= minimum and word != LINK)
    words = sorted(word for word in frequent if not any(one.covers(word) for one in chosen_words))
    number = {word: index for index, word in enumerate(words)}
    places = Places.from_rows([(number[word], *where) for word, *where in spans if word in number])
    return Background(words, sample(places, words, _OCCURRENCES, seed), size)


def words_in(text: str) -> list[tuple[str, int, int]]:
    """The words of two letters or more and the hashtags of a text: case-folded, with start and end in characters."""
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
    """Matches runs of word characters, with a preceding # or @."""
    return re.compile(rf"[#＃@＠]?[\w{mark_ranges()}]+")


def nearest(words: Vectors, others: Vectors, count: int) -> list[list[tuple[int, float]]]:
    """The nearest background words of each word, by cosine after `background_mean` is subtracted.

    The arguments are centroids in one space (else UserError is raised), NaN for a word that was not found.

    Returns:
        For each word its neighbours as (row of `others`, cosine), nearest first; empty for a word that was not found.
    """
    known = np.flatnonzero(~np.isnan(others.values).any(axis=1))
    cosines = words.cosines(others.take(known), background_mean(others))
    ranked = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [
        [] if np.isnan(row).any() else [(int(known[column]), float(row[column])) for column in best]
        for row, best in zip(cosines, ranked, strict=True)
    ]


def background_mean(others: Vectors) -> Doubles | None:
    """The origin to subtract before cosines: the mean of the background words; None in a corrected space.

    Contextual vectors share a large common direction, which makes all cosines similar; subtracting the mean is the
    first step of Mu and Viswanath 2018, "All-but-the-top", section 3.
    """
    known = others.values[~np.isnan(others.values).any(axis=1)]
    if others.space.correction != NONE or not len(known):
        return None
    return np.asarray(known.mean(axis=0, dtype=np.float64))


def overlap(before: list[str], after: list[str]) -> float | None:
    """The share of common neighbours, from 0 to 1; None if one list is empty."""
    if not before or not after:
        return None
    return len(set(before) & set(after)) / min(len(before), len(after))
