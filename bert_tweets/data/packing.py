"""Packing: whole tweets into rows of a fixed length, best fit, without a loop a tweet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .shards import Tweets, ranges

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Placement:
    """Where each tweet lies.

    Attributes:
        row, start: int64 [tweets], the row of a tweet and its first column there.
        rows: rows in use.
    """

    row: Ints
    start: Ints
    rows: int


def best_fit(lengths: Ints, row_length: int) -> Placement:
    """Best-fit decreasing over the histogram of lengths (Krell et al. 2021, "Efficient sequence packing").

    All tweets of one length are placed at once: into the tightest rows that take them, as many a row as fit,
    then into new rows. The work grows with the number of distinct lengths, not with the tweets.

    Args:
        lengths: int64 [tweets], each in [1, row_length].
        row_length: tokens of a row.
    """
    row, start = np.empty_like(lengths), np.empty_like(lengths)
    by_length = np.argsort(-lengths, kind="stable")
    distinct, counts = np.unique(lengths, return_counts=True)
    free_rows: list[Ints] = [np.empty(0, np.int64)] * (row_length + 1)
    filled = 0  # bit f: some row has f free tokens
    rows = done = 0
    for length, count in zip(distinct[::-1].tolist(), counts[::-1].tolist(), strict=True):
        last = done + count
        while done < last:
            tighter = filled >> length
            if tighter:
                free = length + (tighter & -tighter).bit_length() - 1
                candidates = free_rows[free]
            else:
                free = row_length
                candidates = np.arange(rows, rows - (-(last - done) // (row_length // length)))
                rows += len(candidates)
            each = free // length
            taken = candidates[: -(-(last - done) // each)]
            placed = min(last - done, len(taken) * each)
            tweets = by_length[done : done + placed]
            row[tweets] = np.repeat(taken, each)[:placed]
            start[tweets] = row_length - free + np.tile(np.arange(each) * length, len(taken))[:placed]
            done += placed
            if tighter:
                free_rows[free] = candidates[len(taken) :]
                if not len(free_rows[free]):
                    filled &= ~(1 << free)
            whole = placed // each  # rows that took as many as they can; the last may have taken fewer
            filled |= _keep(free_rows, taken[:whole], free - each * length)
            filled |= _keep(free_rows, taken[whole:], free - (placed - whole * each) * length)
    return Placement(row, start, rows)


def _keep(free_rows: list[Ints], rows: Ints, free: int) -> int:
    """Files rows under their free space; the bit to set for it."""
    if not len(rows) or not free:
        return 0
    free_rows[free] = np.concatenate([free_rows[free], rows])
    return 1 << free


@dataclass(frozen=True)
class PackedRows:
    """Tweets laid out in rows; all int32 [rows, row_length].

    Attributes:
        input_ids: tokens; the padding id between.
        position_ids: position within the tweet, from 0.
        segment_ids: 1 + the tweet's place in the list that was packed; 0 for padding.
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
    """Lays tweets out in as few rows as best fit needs."""
    placement = best_fit(tweets.lengths, row_length)
    target = ranges(placement.row * row_length + placement.start, tweets.lengths)
    positions = ranges(np.zeros_like(tweets.lengths), tweets.lengths)
    first = np.maximum.accumulate(np.where(tweets.word_starts, np.arange(len(positions)), 0))
    columns: dict[str, npt.NDArray[Any]] = {
        "input_ids": tweets.input_ids,
        "position_ids": positions,
        "segment_ids": np.repeat(np.arange(1, len(tweets.lengths) + 1), tweets.lengths),
        "word_positions": positions[first] if len(first) else first,
    }
    packed = {}
    for name, values in columns.items():
        packed[name] = np.full(placement.rows * row_length, pad_id if name == "input_ids" else 0, np.int32)
        packed[name][target] = values
    return PackedRows(**{name: values.reshape(-1, row_length) for name, values in packed.items()})
