"""The layout of micro-batches: how many rows, tweets and masked tokens one holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bert_tweets.common.errors import UserError
from bert_tweets.config import DataConfig
from bert_tweets.corpus.shards.manifest import Manifest

from .packing import best_fit
from .sampler import deal, dealing_group

# Places for masked tokens are a multiple of it where shapes are fixed.
_PLACE_MULTIPLE = 64
# One step in a thousand may need a micro-batch more than the others.
_OVERFLOW = 0.001
_DRAWN_TWEETS, _FEWEST_STEPS, _MOST_STEPS = 200_000, 4, 32


@dataclass(frozen=True)
class FixedShape:
    """The one shape of all micro-batches of a run, so that its kernels are compiled once.

    Attributes:
        rows: rows, empty ones included.
        tweets: most tweets of a rank's step; `tweet_index` has one entry more.
        masked: places for masked tokens.
    """

    rows: int
    tweets: int
    masked: int


@dataclass(frozen=True)
class Layout:
    """How packed rows become micro-batches.

    Attributes:
        row_length: tokens of a row.
        tokens_per_device: token capacity of a micro-batch.
        pad_id: token of empty places.
        fixed: the shape of every micro-batch; None: each is as large as its tweets need, which is best where nothing
            is compiled, as on a CPU. What is computed is the same.
    """

    row_length: int
    tokens_per_device: int
    pad_id: int
    fixed: FixedShape | None = None

    @property
    def rows(self) -> int:
        """Rows of a micro-batch at most."""
        return self.fixed.rows if self.fixed else max(1, self.tokens_per_device // self.row_length)

    def split(self, rows: int) -> tuple[int, int]:
        """The number of micro-batches that so many rows need, and the rows of each, empty ones included."""
        count = -(-rows // self.rows)
        return count, self.fixed.rows if self.fixed else -(-rows // count)

    def places(self, masked: int) -> int:
        """Places for masked tokens in a micro-batch that holds so many; a fixed shape grows by eighths if it must."""
        if not self.fixed:
            return max(1, masked)
        usual = self.fixed.masked
        return usual + round_up(max(0, masked - usual), usual // 8)


def row_length_of(data: DataConfig, manifest: Manifest) -> int:
    """Tokens of a packed row: `data.row_length`, or the shards' max_length where that is not set.

    Raises:
        UserError: the longest tweet would not fit.
    """
    if data.row_length and data.row_length < manifest.max_length:
        raise UserError(
            f"data.row_length={data.row_length}: shorter than the shards' longest tweet "
            f"({manifest.max_length}); leave it out, or prepare with a smaller max_length"
        )
    return data.row_length or manifest.max_length


def fixed_shape(
    row_length: int,
    tokens_per_device: int,
    lengths: Sequence[int],
    batch_sizes: Sequence[int],
    world_size: int,
    probability: float,
) -> FixedShape:
    """The shape into which nearly every step fits, in as few micro-batches as the device's capacity allows.

    Args:
        row_length: tokens of a row.
        tokens_per_device: token capacity of a micro-batch.
        lengths: how many tweets have each length in tokens, from 0 on.
        batch_sizes: tweets of a step over all ranks: that of training, from which rows are counted, then others that
            are laid out in the same shape.
        world_size: number of ranks.
        probability: of a token to be masked.
    """
    rows = _rows_of_a_step(lengths, batch_sizes[0], world_size, row_length)
    each = -(-rows // Layout(row_length, tokens_per_device, 0).split(rows)[0])
    # Ranks differ by one tweet at most.
    tweets = max(-(-size // world_size) for size in batch_sizes) + 1
    # Masked as if every position could be: [CLS], [SEP] and padding, which cannot, are the margin.
    return FixedShape(each, tweets, round_up(math.ceil(probability * each * row_length), _PLACE_MULTIPLE))


def _rows_of_a_step(lengths: Sequence[int], batch_size: int, world_size: int, row_length: int) -> int:
    """Rows that suffice for a rank's share of 999 in 1,000 steps; found by packing steps of drawn lengths."""
    shares = np.array(lengths, np.float64) / sum(lengths)
    hands = len(dealing_group(0, world_size))
    tweets = -(-batch_size * hands // world_size)
    steps = min(max(_DRAWN_TWEETS // tweets, _FEWEST_STEPS), _MOST_STEPS)
    drawn = np.random.default_rng(0).choice(len(shares), (steps, tweets), p=shares)
    if hands > 1:
        drawn = np.take_along_axis(drawn, deal(drawn, 0, hands), axis=1)
    placement = best_fit(drawn.ravel(), row_length, [drawn.shape[1]] * steps)
    rows = np.diff(placement.row_ends, prepend=0)
    # All ranks have to fit.
    deviations = NormalDist().inv_cdf(1 - _OVERFLOW / world_size)
    return math.ceil(float(rows.mean() + deviations * rows.std(ddof=1)))


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple that is at least `count`."""
    return -(-count // multiple) * multiple
