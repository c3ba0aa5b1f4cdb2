"""The order of tweets: one keyed permutation an epoch, any position in constant time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..hashing import mix

Ints = npt.NDArray[np.int64]

_ROUNDS = 6


def permute(positions: Ints, rows: int, seed: int, epoch: int) -> Ints:
    """The tweets at these positions of an epoch.

    A Feistel network over the next power of two, its halves as equal as they can be, walked along its cycles until
    it falls inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): a bijection of [0, rows)
    without a table.

    Args:
        positions: int64 [n], each in [0, rows).
        rows: tweets of an epoch, at least 1.
        seed, epoch: the key.

    Returns:
        int64 [n], tweet indices.
    """
    bits = max(2, int(rows - 1).bit_length())
    keys = _keys(seed, epoch)
    values = _feistel(positions.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(values >= rows)
    while len(outside):
        values[outside] = _feistel(values[outside], bits, keys)
        outside = outside[values[outside] >= rows]
    return values.astype(np.int64)


@lru_cache(maxsize=8)
def _keys(seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    return np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64).astype(np.uint64)


def _feistel(values: npt.NDArray[np.uint64], bits: int, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Each round mixes one half into the other, in turns."""
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
    """The endless stream of tweets, cut into steps.

    Attributes:
        rows: tweets of an epoch.
        seed: key of the order.
        batch_size: tweets of a step, over all ranks.
        length: positions that the run takes; the last step may be short.
    """

    rows: int
    seed: int
    batch_size: int
    length: int

    @property
    def steps(self) -> int:
        return -(-self.length // self.batch_size)

    def slice(self, step: int, rank: int, world_size: int) -> tuple[Ints, Ints]:
        """A rank's share of a step: contiguous, within one tweet of an even share.

        Returns:
            epochs and tweet indices, int64 [tweets] each.
        """
        first = step * self.batch_size
        size = min(self.batch_size, self.length - first)
        positions = np.arange(first + size * rank // world_size, first + size * (rank + 1) // world_size)
        epochs, within = np.divmod(positions, self.rows)
        tweets = np.empty_like(within)
        for epoch in np.unique(epochs):
            of_epoch = epochs == epoch
            tweets[of_epoch] = permute(within[of_epoch], self.rows, self.seed, int(epoch))
        return epochs, tweets

    def epoch(self, step: int) -> float:
        """Epochs seen once `step` steps are done."""
        return min(step * self.batch_size, self.length) / self.rows


def stream_of(rows: int, seed: int, batch_size: int, max_steps: int | None, epochs: float | None) -> Stream:
    """The stream of a run that lasts `max_steps` steps, or `epochs` passes where that is None."""
    length = max_steps * batch_size if max_steps is not None else max(1, round((epochs or 0) * rows))
    return Stream(rows, seed, batch_size, length)
