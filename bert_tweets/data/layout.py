"""The layout of micro-batches: how many rows, tweets and masked tokens one holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bert_tweets.common.errors import UserError
from bert_tweets.config import DataConfig
from bert_tweets.corpus.shards.manifest import Manifest

from .packing import best_fit
from .permutation import Stream
from .sampler import Lengths, Sampler, dealing_group

# Places for masked tokens are a multiple of it where shapes are fixed.
_PLACE_MULTIPLE = 64
# One step in a thousand may need a micro-batch more than the others.
_OVERFLOW = 0.001
_PACKED_TWEETS, _FEWEST_STEPS, _MOST_STEPS = 200_000, 8, 128
# A step of validation has no fewer tweets, so that they pack well.
_VALIDATED_TWEETS = 1024


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
    row_length: int, tokens_per_device: int, stream: Stream, lengths: Lengths, world_size: int, probability: float
) -> FixedShape:
    """The shape into which nearly every step fits, in as few micro-batches as the device's capacity allows.

    Args:
        row_length: tokens of a row.
        tokens_per_device: token capacity of a micro-batch.
        stream: the run's tweets, cut into steps.
        lengths: of the tweets.
        world_size: number of ranks.
        probability: of a token to be masked, the largest of all that use the shape.
    """
    rows = _rows_of_a_step(stream, lengths, world_size, row_length)
    each = -(-rows // Layout(row_length, tokens_per_device, 0).split(rows)[0])
    # Ranks differ by one tweet at most.
    tweets = -(-validation_batch(stream) // world_size) + 1
    # Masked as if every position could be: [CLS], [SEP] and padding, which cannot, are the margin.
    return FixedShape(each, tweets, round_up(math.ceil(probability * each * row_length), _PLACE_MULTIPLE))


def validation_batch(stream: Stream) -> int:
    """Tweets of a step of validation, over all ranks: as many as fill what a step of training fills."""
    return max(_VALIDATED_TWEETS, stream.largest_step)


def _rows_of_a_step(stream: Stream, lengths: Lengths, world_size: int, row_length: int) -> int:
    """Rows that suffice for a rank's share of 999 in 1,000 steps; found by packing steps from all over the run.

    The upper bound of one further step, by Student's t (Abramowitz and Stegun 1964, 26.7.5, first term).
    """
    sampler = Sampler(stream, lengths, 0, world_size)
    whole = max(1, stream.whole_steps)
    tweets = len(dealing_group(0, world_size)) * stream.largest_step // world_size
    count = min(max(_PACKED_TWEETS // max(1, tweets), _FEWEST_STEPS), _MOST_STEPS, whole)
    rows = []
    for step in np.unique(np.linspace(0, whole - 1, count).round().astype(np.int64)).tolist():
        (share,) = sampler.share(step, step + 1)[1]
        rows.append(best_fit(lengths.lengths_of(share), row_length).rows if len(share) else 1)
    if len(rows) == whole:
        return max(rows)
    # All ranks have to fit.
    normal = NormalDist().inv_cdf(1 - _OVERFLOW / world_size)
    student = normal + (normal**3 + normal) / (4 * (len(rows) - 1))
    spread = student * float(np.std(rows, ddof=1)) * math.sqrt(1 + 1 / len(rows))
    return math.ceil(float(np.mean(rows)) + spread)


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple that is at least `count`."""
    return -(-count // multiple) * multiple
