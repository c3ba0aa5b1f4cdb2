"""Select the tokens that the model must predict, as a pure function of (seed, epoch, tweet, position).

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the counter is the token's address,
so layout, ranks and workers cannot change a mask. Its 32-bit words are stored in int64 tensors, because torch does not
have unsigned arithmetic on every device; they are compared with integer thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bert_tweets.common.arrays import Ints
from bert_tweets.corpus.shards.manifest import Manifest

from .batches import MicroBatch
from .packing import PackedRows

Words = npt.NDArray[np.uint64]

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_HALF = np.uint64(32)
# Their random words fit into the caches of a CPU core.
_TOKENS_AT_ONCE = 2**14


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int] | tuple[Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Philox4x32-10.

    Args:
        counter: four int64 tensors of one shape, each value in [0, 2³²).
        key: two integers in [0, 2³²), or scalar int64 tensors.

    Returns:
        Four int64 tensors of that shape, values uniform in [0, 2³²).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product wraps in int64, but its 64 bits are right; `>>` is arithmetic, so mask after it.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((second >> 32) & _WORD) ^ c1 ^ k0,
            second & _WORD,
            ((first >> 32) & _WORD) ^ c3 ^ k1,
            first & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def philox_first_word(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> Words:
    """The first word of `philox`, on the CPU, several times as fast, for uint64 arrays that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(9):
        first, second = c0 * np.uint64(_MULTIPLIERS[0]), c2 * np.uint64(_MULTIPLIERS[1])
        c0 = _xor(second >> _HALF, c1, k0)
        c2 = _xor(first >> _HALF, c3, k1)
        c1, c3 = second, first
        c1 &= np.uint64(_WORD)
        c3 &= np.uint64(_WORD)
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return _xor(c2 * np.uint64(_MULTIPLIERS[1]) >> _HALF, c1, k0)


def _xor(values: Words, other: Words, key: int) -> Words:
    """XOR of both and the key; in place in `values` if it is as large as the result."""
    if values.size < other.size:
        values = values ^ other
    else:
        values ^= other
    values ^= np.uint64(key)
    return values


def _once(values: Words) -> Words:
    """A single value if all are equal, as epochs and high words nearly always are: arithmetic on it is free."""
    return values[:1] if len(values) and (values == values[0]).all() else values


def _threshold(probability: float) -> int:
    return round(probability * 2**32)


@dataclass(frozen=True)
class Masking:
    """Draw masks: 80 % [MASK], 10 % a random ordinary token, 10 % kept (Devlin et al. 2019, section 3.1).

    Attributes:
        seed: key of the generator, 64 bits.
        probability: fraction of ordinary tokens that is selected.
        whole_word: select all subwords of a word together, keyed by its first one.
        mask_id: id of [MASK].
        ordinary_ids: int64 [ordinary], all ids that are not special, from which random replacements are drawn.
        is_ordinary: bool [vocabulary], whether an id is not special.
    """

    seed: int
    probability: float
    whole_word: bool
    mask_id: int
    ordinary_ids: Tensor
    is_ordinary: Tensor
    _numbers: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The key and the threshold are values on the device, not constants, so that training and validation, with
        # different seeds and probabilities, share one compiled step.
        numbers = [self.seed & _WORD, (self.seed >> 32) & _WORD, _threshold(self.probability)]
        object.__setattr__(self, "_numbers", torch.tensor(numbers, device=self.is_ordinary.device))

    def to(self, device: torch.device) -> Masking:
        return replace(self, ordinary_ids=self.ordinary_ids.to(device), is_ordinary=self.is_ordinary.to(device))

    def select(self, batch: MicroBatch) -> Tensor:
        """Tokens to predict, never special ones or padding; bool [rows, row_length]."""
        return self._select(batch, self._words(batch, batch.word_positions if self.whole_word else batch.position_ids))

    def count_by_row(self, rows: PackedRows, tweets: Ints, tweet_index: Ints, epoch: Ints) -> Ints:
        """Number of tokens that `select` selects in each row, computed on the CPU.

        Args:
            rows: packed rows.
            tweets: int64 [rows, row_length], tweet of each token, an index into the next two; arbitrary for padding.
            tweet_index, epoch: int64 [tweets].

        Returns:
            int64 [rows].
        """
        is_ordinary = self.is_ordinary.numpy()
        positions = rows.word_positions if self.whole_word else rows.position_ids
        key = self.seed & _WORD, (self.seed >> 32) & _WORD
        index = tweet_index.astype(np.uint64)
        of_tweet = [_once(values) for values in (index & np.uint64(_WORD), index >> _HALF, epoch.astype(np.uint64))]
        counts = np.empty(rows.rows, np.int64)
        at_once = max(1, _TOKENS_AT_ONCE // max(1, tweets.shape[1]))
        for first in range(0, rows.rows, at_once):
            part = slice(first, first + at_once)
            low, high, epochs = (v if len(v) == 1 else v.take(tweets[part]) for v in of_tweet)
            words = philox_first_word((low, high, epochs, positions[part].astype(np.uint64)), key)
            selected = words < np.uint64(_threshold(self.probability))
            selected &= is_ordinary.take(rows.input_ids[part])
            counts[part] = np.count_nonzero(selected, axis=1)
        return counts

    def apply(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Mask a micro-batch.

        Returns:
            The input ids with selected tokens replaced, int64 [rows, row_length]; the selection, bool, of that shape.
        """
        words = self._words(batch, batch.position_ids)
        by_word = self._words(batch, batch.word_positions) if self.whole_word else words
        selected = self._select(batch, by_word)
        ids = batch.input_ids.long()
        random_ids = self.ordinary_ids[(words[2] * len(self.ordinary_ids)) >> 32]
        replaced = torch.where(words[1] < _threshold(0.9), random_ids, ids)
        replaced = torch.where(words[1] < _threshold(0.8), self.mask_id, replaced)
        return torch.where(selected, replaced, ids), selected

    def _words(self, batch: MicroBatch, positions: Tensor) -> tuple[Tensor, ...]:
        tweet, epoch = batch.tweet_index[batch.segment_ids], batch.epoch[batch.segment_ids]
        counter = (tweet & _WORD, (tweet >> 32) & _WORD, epoch, positions.long())
        low, high, _ = self._numbers.unbind()
        return philox(counter, (low, high))

    def _select(self, batch: MicroBatch, words: tuple[Tensor, ...]) -> Tensor:
        maskable = (batch.segment_ids > 0) & self.is_ordinary[batch.input_ids]
        return maskable & (words[0] < self._numbers[2])


def masking_for(manifest: Manifest, seed: int, probability: float, whole_word: bool) -> Masking:
    """Masking for the vocabulary of these shards."""
    is_ordinary = torch.ones(manifest.vocabulary_size, dtype=torch.bool)
    is_ordinary[manifest.special_ids] = False
    ordinary_ids = torch.nonzero(is_ordinary).squeeze(1)
    return Masking(seed, probability, whole_word, manifest.mask_id, ordinary_ids, is_ordinary)
