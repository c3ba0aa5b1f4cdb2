"""A sample of a word's places depends on seed, word and place alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.corpus.shards.manifest import Manifest
from bert_tweets.distributed.work_split import WorkSplit
from bert_tweets.words.occurrences.bottom_k import BottomKSampler, salts_of
from bert_tweets.words.occurrences.find import Places, find, open_corpus, sample_places, search, tweet_columns
from bert_tweets.words.occurrences.groups import group_numbers, labels
from bert_tweets.words.occurrences.matching import words_of

ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 40)), max_size=60)


def kept(rows: list[tuple[int, int, int]], limit: int, keys: list[str], seed: int = 0) -> set[tuple[int, int, int]]:
    table = np.array(rows, np.int64).reshape(-1, 3)
    word, group, tweet = table.T
    chosen = BottomKSampler(salts_of(seed, keys), limit).select(word, group, tweet, np.zeros_like(tweet))
    assert (np.diff(chosen) > 0).all()
    return {rows[row] for row in chosen.tolist()}


@given(ROWS.map(lambda rows: sorted(set(rows))), st.integers(1, 5), st.integers(0, 60))
def test_samples_of_shares_give_the_sample_of_all(rows: list[tuple[int, int, int]], limit: int, cut: int) -> None:
    keys = ["a", "b", "c"]
    whole = kept(rows, limit, keys)
    for pair in {row[:2] for row in rows}:
        there = [row for row in rows if row[:2] == pair]
        assert len([row for row in whole if row[:2] == pair]) == min(limit, len(there))
    parts = kept(rows[:cut], limit, keys) | kept(rows[cut:], limit, keys)
    assert kept(sorted(parts), limit, keys) == whole
    # Other words and groups have no influence.
    assert kept([row for row in rows if row[:2] == (1, 1)], limit, keys) == {row for row in whole if row[:2] == (1, 1)}


def test_every_place_is_equally_likely() -> None:
    rows = [(0, 0, tweet) for tweet in range(50)]
    counts = np.zeros(50)
    for seed in range(400):
        for _, _, tweet in kept(rows, 10, ["mask"], seed):
            counts[tweet] += 1
    # Binomial of 400 draws at 1/5: five standard deviations.
    assert np.abs(counts - 80).max() < 40 and counts.sum() == 4000


def test_the_sample_is_limited_by_group_and_the_same_on_any_number_of_ranks(shards: Path) -> None:
    corpus, words = open_corpus(str(shards), Manifest.read(shards)), words_of(["mask", "the"])
    sampler = BottomKSampler(salts_of(7, [word.key for word in words]), 5)
    whole, matches = search(corpus, words, sampler, "month")
    everything = find(corpus, words)
    assert matches.tolist() == np.bincount(everything.word).tolist()
    parts, counts = zip(*(search(corpus, words, sampler, "month", WorkSplit(r, 3)) for r in range(3)), strict=True)
    again = sample_places(corpus, Places.join(parts), sampler, "month")
    assert np.array_equal(sum(counts), matches)
    for name in ("word", "tweet", "start", "end"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    month = group_numbers(labels(tweet_columns(corpus, whole.tweet, ["time"]).column(0), "month"))
    month_of_all = group_numbers(labels(tweet_columns(corpus, everything.tweet, ["time"]).column(0), "month"))
    for word in range(2):
        for group in np.unique(month_of_all):
            available = int(((everything.word == word) & (month_of_all == group)).sum())
            assert int(((whole.word == word) & (month == group)).sum()) == min(5, available)
