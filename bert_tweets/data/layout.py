"""The layout of micro-batches: their number of rows, tweets and masked tokens."""

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

# With fixed shapes, the number of slots for masked tokens is a multiple of this.
_PLACE_MULTIPLE = 64
# Fraction of steps that may need an extra micro-batch.
_OVERFLOW = 0.001
_PACKED_TWEETS, _FEWEST_STEPS, _MOST_STEPS = 200_000, 8, 128
# Minimum number of tweets in a step of validation, so that they pack well.
_VALIDATED_TWEETS = 1024


@dataclass(frozen=True)
class FixedShape:
    """The one shape of all micro-batches of a run, so that its kernels are compiled once.

    Attributes:
        rows: number of rows, including empty ones.
        tweets: maximum number of tweets in a rank's step; `tweet_index` has one entry more.
        masked: number of slots for masked tokens.
    """

    rows: int
    tweets: int
    masked: int


@dataclass(frozen=True)
class Layout:
    """How packed rows become micro-batches.

    Attributes:
        row_length: length of a row in tokens.
        tokens_per_device: capacity of a micro-batch in tokens.
        pad_id: id of [PAD], for empty positions.
        fixed: shape of every micro-batch; None: each is as large as its tweets need, which is best if nothing is
            compiled, as on a CPU. The results are the same.
    """

    row_length: int
    tokens_per_device: int
    pad_id: int
    fixed: FixedShape | None = None

    @property
    def rows(self) -> int:
        """Maximum number of rows in a micro-batch."""
        return self.fixed.rows if self.fixed else _most_rows(self.tokens_per_device, self.row_length)

    def split(self, rows: int) -> tuple[int, int]:
        """Number of micro-batches for this number of rows, and the rows of each, including empty ones."""
        count = -(-rows // self.rows)
        return count, self.fixed.rows if self.fixed else -(-rows // count)

    def places(self, masked: int) -> int:
        """Number of slots for this number of masked tokens; a fixed shape grows in steps of one eighth if necessary."""
        if not self.fixed:
            return max(1, masked)
        usual = self.fixed.masked
        return usual + round_up(max(0, masked - usual), usual // 8)


def row_length_of(data: DataConfig, manifest: Manifest) -> int:
    """Length of a packed row in tokens: `data.row_length`, or the shards' max_length if that is not set.

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
        row_length, tokens_per_device: length of a row, and capacity of a micro-batch, in tokens.
        stream, lengths: tweets of the run, divided into steps, and their lengths.
        world_size: number of ranks.
        probability: masking probability; the largest one, if several use the shape.
    """
    rows = _rows_of_a_step(stream, lengths, world_size, row_length)
    micro_batches = -(-rows // _most_rows(tokens_per_device, row_length))
    each = -(-rows // micro_batches)
    # Ranks differ by at most one tweet.
    tweets = -(-validation_batch(stream) // world_size) + 1
    # Counts every position as maskable; [CLS], [SEP] and padding, which are not, provide the margin.
    return FixedShape(each, tweets, round_up(math.ceil(probability * each * row_length), _PLACE_MULTIPLE))


def _most_rows(tokens_per_device: int, row_length: int) -> int:
    return max(1, tokens_per_device // row_length)


def validation_batch(stream: Stream) -> int:
    """Number of tweets in a validation step over all ranks: as in a training step, but not fewer than 1,024."""
    return max(_VALIDATED_TWEETS, stream.largest_step)


def _rows_of_a_step(stream: Stream, lengths: Lengths, world_size: int, row_length: int) -> int:
    """Number of rows that suffices for a rank's share of 999 in 1,000 steps, from packing a sample of steps.

    The upper bound for one more step, by Student's t (Abramowitz and Stegun 1964, 26.7.5, first term).
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
    # The shares of all ranks must fit.
    normal = NormalDist().inv_cdf(1 - _OVERFLOW / world_size)
    student = normal + (normal**3 + normal) / (4 * (len(rows) - 1))
    spread = student * float(np.std(rows, ddof=1)) * math.sqrt(1 + 1 / len(rows))
    return math.ceil(float(np.mean(rows)) + spread)


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple that is at least `count`."""
    return -(-count // multiple) * multiple
