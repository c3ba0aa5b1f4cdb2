"""The order of tweets: one keyed permutation per epoch, with any position in constant time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bert_tweets.common.arrays import Ints
from bert_tweets.common.hashing import mix
from bert_tweets.config import DataConfig

Words = npt.NDArray[np.uint64]

_ROUNDS = 6


def permute(positions: Ints, rows: int, seed: int, epoch: int) -> Ints:
    """The tweets at these positions of an epoch.

    A Feistel network over the next power of two, with halves as equal as possible, applied until the result is in range
    (cycle walking, Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): a bijection of [0, rows) without a
    table.

    Args:
        positions: int64 [n], each in [0, rows).
        rows: number of tweets in an epoch, at least 1.
        seed, epoch: the key.

    Returns:
        int64 [n], tweet indices.
    """
    return _walk(positions, rows, _keys(seed, epoch)[:, None])


def permute_blocks(positions: Ints, rows: int, seed: int, epoch: int, block_size: int, shuffle_blocks: int) -> Ints:
    """The tweets at these positions of an epoch whose reads stay within a window of blocks.

    Blocks of consecutive tweets are shuffled, then the tweets within each window of `shuffle_blocks` shuffled blocks.
    Where an epoch divides its tweets into blocks is part of the key, and tweets after the last whole block come last:
    they are different tweets in each epoch. All three steps are bijections, so their composition is one, without a
    table.

    Args:
        positions, rows, seed, epoch: as for `permute`, and so is the result.
        block_size: number of tweets in a block; the last may have fewer.
        shuffle_blocks: number of blocks in a window.
    """
    keys = _keys(seed, epoch)
    window_rows = block_size * shuffle_blocks
    windows, inside = np.divmod(positions, window_rows)
    of_window = mix(keys[:, None] ^ mix(windows.astype(np.uint64) + np.uint64(1)))
    whole = windows < rows // window_rows
    for size, where in ((window_rows, whole), (rows % window_rows, ~whole)):
        if where.any():
            inside[where] = _walk(inside[where], size, of_window[:, where])
    blocks, inside = np.divmod(windows * window_rows + inside, block_size)
    shuffled = blocks < rows // block_size
    if shuffled.any():
        blocks[shuffled] = _walk(blocks[shuffled], rows // block_size, keys[:, None])
    first_cut = int(mix(keys[:1])[0]) % rows
    return (blocks * block_size + inside + first_cut) % rows


@lru_cache(maxsize=8)
def _keys(seed: int, epoch: int) -> Words:
    return np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64).astype(np.uint64)


def _walk(positions: Ints, size: int, keys: Words) -> Ints:
    """Permute [0, size) by one key for all positions, uint64 [rounds, 1], or one for each, [rounds, positions]."""
    bits = max(2, int(size - 1).bit_length())
    values = _feistel(positions.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(values >= size)
    while len(outside):
        of_outside = keys if keys.shape[1] == 1 else keys[:, outside]
        values[outside] = _feistel(values[outside], bits, of_outside)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _feistel(values: Words, bits: int, keys: Words) -> Words:
    """Each round mixes one half into the other, alternately."""
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << (bits // 2)) - 1), np.uint64((1 << (bits - bits // 2)) - 1)
    high, low = values >> low_bits, values & low_mask
    for turn, key in enumerate(keys):
        if turn % 2:
            low = low ^ (mix(high + key) & low_mask)
        else:
            high = high ^ (mix(low + key) & high_mask)
    return (high << low_bits) | low


@dataclass(frozen=True)
class Stream:
    """The endless stream of tweets, divided into steps.

    Attributes:
        rows: number of tweets in an epoch.
        seed: key of the order.
        batch_size: number of tweets in a step, over all ranks.
        length: number of positions in the run; the last step may be short.
        block_size: number of tweets that are read together, see `permute_blocks`; 0: full shuffle.
        shuffle_blocks: number of blocks in a window, see `permute_blocks`.
    """

    rows: int
    seed: int
    batch_size: int
    length: int
    block_size: int = 0
    shuffle_blocks: int = 0

    @property
    def steps(self) -> int:
        return -(-self.length // self.batch_size)

    @property
    def largest_step(self) -> int:
        """Number of tweets in the largest step."""
        return min(self.batch_size, self.length)

    @property
    def whole_steps(self) -> int:
        """Number of steps of `batch_size` tweets; there is at most one more."""
        return self.length // self.batch_size

    def tweets(self, positions: Ints) -> tuple[Ints, Ints]:
        """Epochs and indices of the tweets at these positions of the stream, int64, ascending, of any shape."""
        epochs, within = np.divmod(positions, self.rows)
        if not positions.size:
            return epochs, within
        tweets = np.empty_like(within)
        for epoch in range(int(epochs.flat[0]), int(epochs.flat[-1]) + 1):
            of_epoch = epochs == epoch
            blocks = (self.block_size, self.shuffle_blocks) if self.block_size else ()
            permutation = permute_blocks if self.block_size else permute
            tweets[of_epoch] = permutation(within[of_epoch], self.rows, self.seed, epoch, *blocks)
        return epochs, tweets

    def positions(self, first: int, last: int, rank: int, ranks: int, world_size: int) -> Ints:
        """Ints in the stream of the shares of neighbouring ranks: contiguous, and equal to within one tweet.

        Args:
            first, last: range of steps of one size.
            rank, ranks: first rank, and number of ranks.
            world_size: number of ranks in the run.

        Returns:
            int64 [last - first, tweets], ascending.
        """
        size = min(self.batch_size, self.length - first * self.batch_size)
        share = np.arange(size * rank // world_size, size * (rank + ranks) // world_size)
        return np.arange(first, last)[:, None] * self.batch_size + share

    def slice(self, step: int, rank: int, world_size: int) -> tuple[Ints, Ints]:
        """Epochs and tweet indices of a rank's contiguous share of a step; int64 [tweets] each."""
        return self.tweets(self.positions(step, step + 1, rank, 1, world_size)[0])

    def epoch(self, step: int) -> float:
        """Number of epochs after `step` steps."""
        return min(step * self.batch_size, self.length) / self.rows


def stream_of(
    rows: int, seed: int, batch_size: int, max_steps: int | None, epochs: float | None, data: DataConfig | None = None
) -> Stream:
    """The stream of a run of `max_steps` steps, or of `epochs` epochs if that is None.

    Args:
        rows: number of tweets in an epoch.
        seed: key of the order.
        batch_size: number of tweets in a step, over all ranks.
        max_steps, epochs: length of the run.
        data: settings of the shuffle; None: full shuffle.
    """
    length = max_steps * batch_size if max_steps is not None else max(1, round((epochs or 0) * rows))
    if data is None or data.shuffle == "full":
        return Stream(rows, seed, batch_size, length)
    return Stream(rows, seed, batch_size, length, data.block_size, data.shuffle_blocks)
