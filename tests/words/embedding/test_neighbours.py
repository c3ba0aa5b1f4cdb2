"""Neighbours are the nearest background words, in each model's own space."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.words.embedding.neighbours import background, nearest, overlap, words_in
from bert_tweets.words.occurrences.find import open_corpus, tweet_columns
from bert_tweets.words.occurrences.matching import fold, words_of
from bert_tweets.words.store.vector_space import Vectors, VectorSpace

SPACE = VectorSpace("weights", "recipe", "12")


def test_the_words_of_a_text() -> None:
    text = "Don't @user a #StayHome2 2nd snake_case über क्या cafe\u0301! #1 NO x #_"
    words = words_in(text)
    assert [word for word, *_ in words] == ["don", "#stayhome2", "über", "क्या", "café", "no"]
    for word, start, end in words:
        assert fold(text[start:end]) == word


def test_the_background_excludes_chosen_words_links_and_rare_words(shards: Path) -> None:
    corpus = open_corpus(str(shards), Manifest.read(shards))
    found = background(corpus, words_of(["Mask", "#StayHome"]), tweets=400, minimum=5, seed=0)
    assert found.tweets == 400 and "virus" in found.words and found.words == sorted(found.words)
    assert not {"mask", "#stayhome", "http", "@user", "user"} & set(found.words)
    assert not background(corpus, [], tweets=400, minimum=10**6, seed=0).words
    assert not background(corpus, [], tweets=0, minimum=1, seed=0).words
    assert np.bincount(found.places.word).max() <= 50
    texts = tweet_columns(corpus, found.places.tweet, ["text"])["text"].to_pylist()
    for word, start, end, text in zip(found.places.word, found.places.start, found.places.end, texts, strict=True):
        assert fold(text[start:end]) == found.words[word]


def test_the_background_is_a_function_of_its_seed(shards: Path) -> None:
    corpus = open_corpus(str(shards), Manifest.read(shards))
    drawn = [background(corpus, [], 50, 2, seed).places.tweet for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert set(drawn[0].tolist()) != set(drawn[2].tolist())


def test_the_common_direction_is_subtracted() -> None:
    """With a large common direction all plain cosines are near 1; subtracting the background mean removes it."""
    common = np.full(8, 100.0)
    others = np.eye(8)[:4] + common
    words = np.array([[0, 0, 1, 0, 0, 0, 0, 0.0], [1, 0.5, 0, 0, 0, 0, 0, 0]]) + common
    near = nearest(Vectors(SPACE, words.astype(np.float32)), Vectors(SPACE, others.astype(np.float32)), 2)
    assert near[0][0][0] == 2
    assert [row for row, _ in near[1]] == [0, 1]
    assert near[0][0][1] > 0.9 > 0.1 > near[0][1][1]


def test_words_without_a_vector_have_no_neighbours_and_are_none() -> None:
    others = np.array([[1, 0], [np.nan, np.nan], [0, 1]], np.float32)
    words = Vectors(SPACE, np.array([[1, 0.1], [np.nan, np.nan]], np.float32))
    near = nearest(words, Vectors(SPACE, others), 5)
    assert [row for row, _ in near[0]] == [0, 2] and near[1] == []
    none = Vectors(SPACE, np.empty((0, 2), np.float32))
    assert nearest(Vectors(SPACE, np.ones((1, 2), np.float32)), none, 5) == [[]]


def test_overlap_is_the_share_of_common_neighbours() -> None:
    assert overlap(["a", "b", "c", "d"], ["d", "x", "a", "y"]) == 0.5
    assert overlap(["a"], ["a"]) == 1.0
    assert overlap([], ["a"]) is None
