"""Pack whole tweets into rows of a fixed length by best fit, without a loop over tweets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Ints, ranges
from bert_tweets.corpus.shards.reader import Tweets


@dataclass(frozen=True)
class Placement:
    """The place of each tweet.

    Attributes:
        row, start: int64 [tweets], row of each tweet, and its first column.
        row_ends: int64 [parts], number of rows in use up to the end of each part.
    """

    row: Ints
    start: Ints
    row_ends: Ints

    @property
    def rows(self) -> int:
        """Number of rows in use."""
        return int(self.row_ends[-1])


def best_fit(lengths: Ints, row_length: int, parts: Sequence[int] | None = None) -> Placement:
    """Best-fit decreasing over the histogram of lengths (Krell et al. 2021, "Efficient sequence packing").

    All tweets of one length are placed at once: into the fullest rows with room, as many per row as fit, then into new
    rows. The work grows with the number of distinct lengths, not with the tweets.

    Args:
        lengths: int64 [tweets], each in [1, row_length].
        row_length: length of a row in tokens.
        parts: sizes of consecutive groups of tweets that are packed separately, such as steps; None: all share rows.
    """
    counts = np.array([len(lengths)] if parts is None else parts)
    slots = row_length + 1
    # Part by part, longest tweets first.
    keys = np.repeat(np.arange(len(counts)) * slots, counts) + (row_length - lengths)
    by_length = np.argsort(keys.astype(np.uint16) if len(counts) * slots < 2**16 else keys, kind="stable")
    histograms = np.bincount(keys, minlength=len(counts) * slots).reshape(-1, slots)[:, ::-1].tolist()
    in_rows: list[int] = []
    bundles: list[tuple[int, int, int]] = []
    row_ends, rows = [], 0
    for histogram in histograms:
        rows = _place_histogram(histogram, row_length, rows, in_rows, bundles)
        row_ends.append(rows)
    how_many, first, each = np.array(bundles, np.int64).reshape(-1, 3).T
    first, each = np.repeat(first, how_many), np.repeat(each, how_many)
    row, start = np.empty_like(lengths), np.empty_like(lengths)
    row[by_length] = np.repeat(np.array(in_rows, np.int64), each)
    start[by_length] = np.repeat(first, each) + ranges(np.zeros_like(each), each) * lengths[by_length]
    return Placement(row, start, np.array(row_ends, np.int64))


def _place_histogram(
    histogram: list[int], row_length: int, rows: int, in_rows: list[int], bundles: list[tuple[int, int, int]]
) -> int:
    """Place one part, whose new rows are numbered from `rows`; return the number of rows then in use.

    A bundle is several adjacent tweets of one length in one row. The row of each bundle is appended to `in_rows`; the
    number of equal bundles, their first column, and the number of tweets in each to `bundles`.
    """
    free_rows: list[list[int]] = [[] for _ in range(row_length + 1)]
    filled = 0  # bit f: a row has f free tokens
    for length in range(row_length, 0, -1):
        left = histogram[length]
        while left:
            tighter = filled >> length
            free = length + (tighter & -tighter).bit_length() - 1 if tighter else row_length
            each = min(free // length, left)
            count = left // each  # rows that take as many as fit; the next round takes what is left
            if tighter:
                candidates = free_rows[free]
                taken, free_rows[free] = candidates[:count], candidates[count:]
                count = len(taken)
                if not free_rows[free]:
                    filled ^= 1 << free
            else:
                taken = list(range(rows, rows + count))
                rows += count
            in_rows += taken
            bundles.append((count, row_length - free, each))
            left -= count * each
            free -= each * length
            if free:
                free_rows[free] += taken
                filled |= 1 << free
    return rows


@dataclass(frozen=True)
class PackedRows:
    """Tweets in rows; all int32 [rows, row_length].

    Attributes:
        input_ids: ids of the tokens, and of padding.
        position_ids: position within the tweet, from 0.
        segment_ids: 1 + index of the tweet in the list that was packed; 0 for padding.
        word_positions: position within the tweet of the first token of the token's word.
    """

    input_ids: npt.NDArray[np.int32]
    position_ids: npt.NDArray[np.int32]
    segment_ids: npt.NDArray[np.int32]
    word_positions: npt.NDArray[np.int32]

    @property
    def rows(self) -> int:
        return len(self.input_ids)


def pack(tweets: Tweets, row_length: int, pad_id: int) -> PackedRows:
    """Pack tweets into rows by best fit."""
    segments = np.arange(1, len(tweets.lengths) + 1)
    return lay_out(tweets, segments, best_fit(tweets.lengths, row_length), row_length, pad_id)


def lay_out(tweets: Tweets, segments: Ints, placement: Placement, row_length: int, pad_id: int) -> PackedRows:
    """Write tweets into rows at the places of a placement.

    The rows are written from left to right; a tweet and the gap after it are one run.

    Args:
        tweets, placement: tokens and places of the tweets.
        segments: int64 [tweets], segment id of each, above 0.
        row_length: length of a row in tokens.
        pad_id: id of [PAD], for the gaps.
    """
    first = placement.row * row_length + placement.start
    order = np.argsort(first)
    first, lengths = first[order], tweets.lengths[order]
    positions = placement.rows * row_length
    # The gap after each tweet is first written as its continuation, and filled at the end.
    runs = np.diff(first, append=positions)
    source = np.repeat((np.cumsum(tweets.lengths) - tweets.lengths)[order] - first, runs)
    source += np.arange(positions)
    place = np.arange(positions, dtype=np.int32)
    tweet_first = np.repeat(first.astype(np.int32), runs)
    gaps = ranges(first + lengths, runs - lengths)
    source[gaps] = 0
    word_first = np.maximum.accumulate(np.where(tweets.word_starts.take(source), place, np.int32(0)))
    rows = PackedRows(
        input_ids=tweets.input_ids.take(source),
        position_ids=place - tweet_first,
        segment_ids=np.repeat(segments[order].astype(np.int32), runs),
        word_positions=word_first - tweet_first,
    )
    for values in (rows.input_ids, rows.position_ids, rows.segment_ids, rows.word_positions):
        values[gaps] = pad_id if values is rows.input_ids else 0
        values.shape = (placement.rows, row_length)
    return rows
