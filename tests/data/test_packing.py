"""Packing: every token has one place, tweets stay whole, rows are nearly full."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bert_tweets.corpus.shards.reader import Tweets
from bert_tweets.data.packing import Placement, best_fit, lay_out, pack


def tweets_of(lengths: list[int], seed: int = 0) -> Tweets:
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    starts = generator.random(count) < 0.5
    starts[(np.cumsum(lengths) - lengths).astype(int)] = True
    return Tweets(np.array(lengths, dtype=np.int64), generator.integers(1, 30_000, count).astype(np.int32), starts)


@given(lengths=st.lists(st.integers(1, 32), max_size=200))
def test_tweets_are_whole_and_never_overlap(lengths: list[int]) -> None:
    tweets = tweets_of(lengths) if lengths else Tweets(*(np.empty(0, t) for t in (np.int64, np.int32, bool)))
    packed = pack(tweets, 32, pad_id=0)
    ends = np.cumsum(tweets.lengths)
    assert (packed.segment_ids > 0).sum() == len(tweets.input_ids)
    for tweet, (length, end) in enumerate(zip(lengths, ends, strict=True), start=1):
        row, column = np.nonzero(packed.segment_ids == tweet)
        assert len(set(row)) == 1 and np.array_equal(column, np.arange(column[0], column[0] + length))
        assert np.array_equal(packed.input_ids[row, column], tweets.input_ids[end - length : end])
        assert np.array_equal(packed.position_ids[row, column], np.arange(length))
        starts = np.flatnonzero(tweets.word_starts[end - length : end])
        expected = starts[np.searchsorted(starts, np.arange(length), side="right") - 1]
        assert np.array_equal(packed.word_positions[row, column], expected)
    assert (packed.input_ids[packed.segment_ids == 0] == 0).all()


@given(lengths=st.lists(st.integers(1, 128), min_size=1, max_size=300))
def test_it_is_best_fit_decreasing(lengths: list[int]) -> None:
    """As many rows as the textbook algorithm, a tweet at a time."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, room in enumerate(free) if room >= length]
        if fitting:
            free[min(fitting, key=lambda i: free[i])] -= length
        else:
            free.append(128 - length)
    assert best_fit(np.array(lengths), 128).rows == len(free)


@given(
    parts=st.lists(st.lists(st.integers(1, 32), max_size=40), min_size=1, max_size=6),
    row_length=st.sampled_from([32, 40]),
)
def test_parts_are_packed_separately(parts: list[list[int]], row_length: int) -> None:
    together = best_fit(
        np.array([length for part in parts for length in part], np.int64), row_length, [len(part) for part in parts]
    )
    rows = tweets = 0
    for part, row_end in zip(parts, together.row_ends, strict=True):
        alone = best_fit(np.array(part, np.int64), row_length)
        assert np.array_equal(together.row[tweets : tweets + len(part)] - rows, alone.row)
        assert np.array_equal(together.start[tweets : tweets + len(part)], alone.start)
        assert row_end - rows == alone.rows
        rows, tweets = row_end, tweets + len(part)


@given(lengths=st.lists(st.integers(1, 32), min_size=1, max_size=60), seed=st.integers(0, 9))
def test_writing_rows_moves_tweets_without_changing_them(lengths: list[int], seed: int) -> None:
    """In any order of the tweets, each is at its place, with its own segment id."""
    tweets, placement = tweets_of(lengths), best_fit(np.array(lengths), 32)
    order = np.random.default_rng(seed).permutation(len(lengths))
    moved = Placement(placement.row[order], placement.start[order], placement.row_ends)
    one = pack(tweets, 32, pad_id=5)
    other = lay_out(tweets.take(order), order + 1, moved, 32, pad_id=5)
    for name in ("input_ids", "position_ids", "segment_ids", "word_positions"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == np.int32
    assert (one.input_ids[one.segment_ids == 0] == 5).all()
    assert not one.position_ids[one.segment_ids == 0].any() and not one.word_positions[one.segment_ids == 0].any()


def test_rows_of_tweets_are_nearly_full() -> None:
    lengths = np.clip(np.random.default_rng(0).gamma(4, 7, 512), 4, 128).astype(np.int64)
    assert lengths.sum() / (best_fit(lengths, 128).rows * 128) > 0.97
