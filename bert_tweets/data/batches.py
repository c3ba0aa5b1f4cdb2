"""Micro-batches of packed rows, as they are sent to the device, and optimizer steps made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert_tweets.common.arrays import Ints

from .packing import PackedRows


@dataclass(frozen=True)
class MicroBatch:
    """Packed rows of whole tweets.

    Attributes:
        input_ids, position_ids, segment_ids, word_positions: int32 [rows, row_length], see `PackedRows`.
        tweet_index, epoch: int64 [tweets + 1], by segment; entry 0 stands for padding.
        masked_capacity: number of places for masked tokens, at least as many as will be masked; known on the CPU, so
            that no step waits for a count from the device.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    word_positions: Tensor
    tweet_index: Tensor
    epoch: Tensor
    masked_capacity: int = 1

    def to(self, device: torch.device) -> MicroBatch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> MicroBatch:
        return self._each(lambda tensor: tensor.pin_memory())

    def with_room_for(self, tweets: int) -> MicroBatch:
        """The same rows, with `tweet_index` and `epoch` padded to this number of tweets; longer ones do not change."""
        missing = tweets + 1 - len(self.tweet_index)
        if missing <= 0:
            return self
        tweet_index, epoch = (torch.cat([v, v.new_zeros(missing)]) for v in (self.tweet_index, self.epoch))
        return replace(self, tweet_index=tweet_index, epoch=epoch)

    def _each(self, change: Callable[[Tensor], Tensor]) -> MicroBatch:
        names = [field.name for field in fields(self) if field.name != "masked_capacity"]
        tensors: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **tensors)


@dataclass(frozen=True)
class Step:
    """One optimizer step of one rank.

    Attributes:
        index: number of the step, from 0.
        micro_batches: micro-batches of this rank; all ranks have equally many.
        masked_tokens: number of masked tokens of the step over all ranks, by which the loss is divided.
        tokens, tweets: number of real tokens and of tweets of the step over all ranks.
        positions: number of token positions of the step over all ranks, including padding and empty rows.
        is_last: whether all ranks stop after this step, because one of them was asked to stop.
    """

    index: int
    micro_batches: list[MicroBatch]
    masked_tokens: int
    tokens: int
    tweets: int
    positions: int
    is_last: bool = False


def to_micro_batch(rows: PackedRows, tweet_index: Ints, epoch: Ints) -> MicroBatch:
    """Packed rows as tensors that share their memory.

    Args:
        rows: packed rows.
        tweet_index, epoch: int64 [tweets], index and epoch of each tweet, in the order in which they were packed.
    """
    of_tweets = (np.concatenate([[0], values]).astype(np.int64)[None] for values in (tweet_index, epoch))
    return split_rows(rows, np.array([rows.rows]), *of_tweets)[0]


def split_rows(rows: PackedRows, row_ends: Ints, tweet_index: Ints, epoch: Ints) -> list[MicroBatch]:
    """Split the concatenated rows of several steps into one batch per step; tensors share their memory.

    Args:
        row_ends: int64 [steps], end of the rows of each step.
        tweet_index, epoch: int64 [steps, tweets + 1], by segment of the step; entry 0 stands for padding.
    """
    ids, positions, segments, words = (torch.from_numpy(getattr(rows, f.name)) for f in fields(rows))
    tweets, epochs = torch.from_numpy(tweet_index), torch.from_numpy(epoch)
    batches = []
    for step, (first, last) in enumerate(pairwise([0, *row_ends.tolist()])):
        of_step = slice(first, last)
        batches.append(
            MicroBatch(ids[of_step], positions[of_step], segments[of_step], words[of_step], tweets[step], epochs[step])
        )
    return batches


def take_rows(batch: MicroBatch, first: int, last: int, rows: int, pad_id: int, masked: int) -> MicroBatch:
    """Rows [first, last) of a batch, padded to `rows` with empty ones.

    Args:
        batch: batch of rows.
        first, last: range of rows; may exceed the batch.
        rows, masked: number of rows and of places for masked tokens in the result.
        pad_id: id of [PAD].
    """

    def cut(tensor: Tensor, fill: int) -> Tensor:
        part = tensor[first:last]
        if len(part) == rows:
            return part
        return torch.cat([part, tensor.new_full((rows - len(part), tensor.shape[1]), fill)])

    return replace(
        batch,
        input_ids=cut(batch.input_ids, pad_id),
        position_ids=cut(batch.position_ids, 0),
        segment_ids=cut(batch.segment_ids, 0),
        word_positions=cut(batch.word_positions, 0),
        masked_capacity=masked,
    )
