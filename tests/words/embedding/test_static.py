"""A static vector is made of the tokens that the word has most often in these tweets."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from bert_tweets.common.arrays import Ints
from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.corpus.shards.reader import Split, Tweets
from bert_tweets.corpus.text.tokenizer import load_tokenizer
from bert_tweets.words.embedding.static import most_common_tokens, static_vectors
from bert_tweets.words.occurrences.find import FOUND, UNKNOWN, Occurrences, Places, align, find, open_corpus
from bert_tweets.words.occurrences.matching import words_of

WORDS = ["mask", "photographer", "the internet", "nowhere"]


def test_tokens_are_those_of_the_tokenizer(shards: Path) -> None:
    manifest, tokenizer = Manifest.read(shards), load_tokenizer(str(shards / "tokenizer"))
    corpus = open_corpus(str(shards), manifest)
    occurrences = align(corpus, find(corpus, words_of(WORDS)), tokenizer, manifest.unknown_id)
    expected = [tuple(tokenizer.encode(word, add_special_tokens=False)) for word in WORDS]
    assert most_common_tokens(corpus, occurrences, 4) == [*expected[:3], ()]
    assert most_common_tokens(corpus, occurrences, 1) == expected[:1] and len(expected[2]) > 1


def test_of_several_ways_to_write_a_word_the_most_common_counts() -> None:
    class Corpus:
        """Three tweets of five tokens."""

        def gather(self, tweets: Ints) -> Tweets:
            ids = np.array([[2, 7, 8, 9, 3], [2, 7, 6, 9, 3], [2, 9, 7, 6, 3]])[tweets].ravel().astype(np.int32)
            return Tweets(np.full(len(tweets), 5), ids, np.ones(len(ids), np.bool_))

    def occurrences(*rows: tuple[int, int, list[int]]) -> Occurrences:
        """By word, tweet and positions of the tokens; without any it is lost."""
        word, tweet = (np.array([row[column] for row in rows]) for column in (0, 1))
        counts, zeros = np.array([len(tokens) for *_, tokens in rows]), np.zeros(len(rows), np.int64)
        status = np.where(counts, FOUND, UNKNOWN).astype(np.int8)
        return Occurrences(
            Places(word, tweet, zeros, zeros), status, zeros, counts, np.concatenate([r[2] for r in rows]).astype(int)
        )

    # (7, 8) occurs once, (7, 6) twice; the third word is lost; the fourth is not one of the words.
    some = occurrences((0, 0, [1, 2]), (1, 0, [3]), (2, 0, []), (0, 1, [1, 2]), (0, 2, [2, 3]), (3, 2, [1]))
    assert most_common_tokens(cast(Split, Corpus()), some, 3) == [(7, 6), (9,), ()]
    tied = occurrences((0, 0, [3]), (0, 0, [2]), (0, 1, [1, 2]))
    assert most_common_tokens(cast(Split, Corpus()), tied, 1) == [(7, 6)]


def test_the_mean_of_rows() -> None:
    matrix = np.array([[0, 0], [1, 2], [3, 4]], np.float32)
    found = static_vectors(matrix, [(1,), (1, 2), (1, 1, 2), ()])
    np.testing.assert_allclose(found, [[1, 2], [2, 3], [5 / 3, 8 / 3], [np.nan, np.nan]], rtol=1e-6)
